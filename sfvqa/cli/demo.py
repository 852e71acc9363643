"""`sfvqa demo`: the bundled videos, and what to ask about them."""

import contextlib
import json as jsonlib
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import typer

from sfvqa.cli.options import Json
from sfvqa.cli.terminal import echo
from sfvqa.errors import SfvqaError

HELP = """\b
[bold]Examples[/bold]
  sfvqa demo
  sfvqa demo --json | jq -r '.videos[0].path'

Name the videos that come with the package, each with a question, its true
answer, and what the video shows. `--json` has their paths and all questions."""


@dataclass(frozen=True)
class DemoVideo:
    """One bundled video: its full path, what it shows, and questions with their true answers."""

    path: str
    description: str
    questions: tuple[tuple[str, str], ...]


def _folder() -> Path:
    return Path(str(resources.files("sfvqa").joinpath("assets", "demo")))


def bundled_video(name: str) -> Path | None:
    """The bundled video of that name, where no file has it."""
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        bundled = _folder() / name
        if Path(name).name == name and not Path(name).exists() and bundled.suffix == ".mp4" and bundled.is_file():
            return bundled
    return None


def is_bundled(video: Path) -> bool:
    """Whether a path is that of a bundled video."""
    return video.resolve().parent == _folder().resolve()


def load_demo_videos() -> list[DemoVideo]:
    """The bundled videos, by full path; SfvqaError when the installation lacks them."""
    folder = _folder()
    try:
        entries = jsonlib.loads((folder / "demo.json").read_text(encoding="utf-8"))["videos"]
    except (OSError, ValueError, KeyError) as error:
        raise SfvqaError(f"The demo videos are not at {folder}.", "Install sfvqa again.") from error
    return [
        DemoVideo(
            path=str(folder / entry["file"]),
            description=entry["description"],
            questions=tuple((pair["question"], pair["answer"]) for pair in entry["questions"]),
        )
        for entry in entries
    ]


def demo(json: Json = False) -> None:
    """Print the bundled videos, each with a command to paste; on a terminal offer to run the first."""
    videos = load_demo_videos()
    if json:
        typer.echo(jsonlib.dumps({"schema_version": 1, "videos": [_entry(video) for video in videos]}))
        return
    echo("\n\n".join(_paragraph(video) for video in videos))
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        first = videos[0]
        if typer.confirm("\nAsk the first one now?", default=True, err=True):
            _ask(Path(first.path), first.questions[0][0])


def _ask(video: Path, question: str) -> None:
    from sfvqa.cli.ask import AskOptions, ask
    from sfvqa.cli.frame_options import FrameOptions
    from sfvqa.cli.model import ModelOptions
    from sfvqa.cli.options import CacheOptions, OutputOptions

    ask(
        video,
        [question],
        model=ModelOptions(model="tiny"),
        frames=FrameOptions(),
        answers=AskOptions(),
        cache=CacheOptions(),
        output=OutputOptions(),
    )


def _entry(video: DemoVideo) -> dict[str, object]:
    questions = [{"question": question, "answer": answer} for question, answer in video.questions]
    return {**asdict(video), "questions": questions}


def _paragraph(video: DemoVideo) -> str:
    """What it shows, a question as a command, which works from any folder, and the true answer."""
    name, (question, answer) = Path(video.path).name, video.questions[0]
    return f"sfvqa ask {shlex.quote(name)} {shlex.quote(question)}\n  → {answer}\n  {video.description}"
