"""`sfvqa demo`: the bundled videos, and what to ask about them."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from sfvqa.cli.ask import AskOptions, ask
from sfvqa.cli.frame_options import WindowedFrameOptions
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import BUNDLED_VIDEOS, CacheOptions, Json, OutputOptions
from sfvqa.cli.screen import can_ask, echo, print_json
from sfvqa.cli.warm import ServerUse
from sfvqa.errors import SfvqaError
from sfvqa.wording import command_line

HELP = """\b
[bold]Examples[/bold]
  sfvqa demo
  sfvqa demo --json | jq -r ".videos[0].path"

List the bundled videos, each with what it shows, a question, and the true
answer. --json gives their paths and all questions."""


@dataclass(frozen=True)
class DemoVideo:
    """One bundled video: its full path, what it shows, and questions with their true answers."""

    path: str
    description: str
    questions: tuple[tuple[str, str], ...]


def load_demo_videos() -> list[DemoVideo]:
    """The bundled videos, by full path; SfvqaError when the installation lacks them."""
    try:
        entries = json.loads((BUNDLED_VIDEOS / "demo.json").read_text(encoding="utf-8"))["videos"]
    except (OSError, ValueError, KeyError) as error:
        raise SfvqaError(f"The demo videos are missing from {BUNDLED_VIDEOS}.", "Reinstall sfvqa.") from error
    return [
        DemoVideo(
            path=str(BUNDLED_VIDEOS / entry["file"]),
            description=entry["description"],
            questions=tuple((pair["question"], pair["answer"]) for pair in entry["questions"]),
        )
        for entry in entries
    ]


def demo(as_json: Json = False) -> None:
    """Print the bundled videos, each with a command to paste; on a terminal offer to run the first."""
    videos = load_demo_videos()
    if as_json:
        print_json({"videos": [_entry(video) for video in videos]})
        return
    echo("\n\n".join(_paragraph(video) for video in videos))
    if can_ask() and sys.stdout.isatty() and typer.confirm("\nAsk the first question now?", default=True, err=True):
        ask(
            Path(videos[0].path),
            [videos[0].questions[0][0]],
            model=ModelOptions(model="tiny"),
            frames=WindowedFrameOptions(),
            answers=AskOptions(),
            cache=CacheOptions(),
            server=ServerUse(),
            output=OutputOptions(),
        )


def _entry(video: DemoVideo) -> dict[str, object]:
    questions = [{"question": question, "answer": answer} for question, answer in video.questions]
    return {**asdict(video), "questions": questions}


def _paragraph(video: DemoVideo) -> str:
    """What it shows, a question as a command, which works from any folder, and the true answer."""
    name, (question, answer) = Path(video.path).name, video.questions[0]
    return f"{command_line(['sfvqa', 'ask', name, question])}\n  → {answer}\n  {video.description}"
