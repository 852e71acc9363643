"""`sfvqa demo`: the bundled videos, where they are, and what to ask about them."""

import json as jsonlib
import shlex
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import typer

from sfvqa.cli import options
from sfvqa.errors import SfvqaError

HELP = """\b
[bold]Examples[/bold]
  sfvqa demo
  sfvqa demo --json | jq -r '.videos[0].path'

Name the videos that come with the package and what to ask about each: commands
to paste, each with the true answer under it."""


@dataclass(frozen=True)
class DemoVideo:
    """One bundled video: its full path, what it shows, and questions with their true answers."""

    path: str
    description: str
    questions: tuple[tuple[str, str], ...]


def load_demo_videos() -> list[DemoVideo]:
    """The bundled videos, by full path; SfvqaError when the installation lacks them."""
    folder = Path(str(resources.files("sfvqa").joinpath("assets", "demo")))
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


def demo(json: options.Json = False) -> None:
    """Print the bundled videos with commands to paste."""
    videos = load_demo_videos()
    if json:
        typer.echo(jsonlib.dumps({"schema_version": 1, "videos": [_entry(video) for video in videos]}))
    else:
        typer.echo("\n\n".join(_paragraph(video) for video in videos))


def _entry(video: DemoVideo) -> dict[str, object]:
    questions = [{"question": question, "answer": answer} for question, answer in video.questions]
    return {**asdict(video), "questions": questions}


def _paragraph(video: DemoVideo) -> str:
    """A video, its questions as commands, each with its true answer on a line of its own (zsh knows no comments)."""
    lines = [video.path, f"  {video.description}"]
    for question, answer in video.questions:
        lines += ["", f"sfvqa ask {shlex.quote(video.path)} {shlex.quote(question)}", f"  → {answer}"]
    return "\n".join(lines)
