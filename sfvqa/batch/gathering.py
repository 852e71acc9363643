"""Where items come from: a folder, a glob, one video, or a manifest."""

from collections.abc import Sequence
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.batch.listing import list_videos
from sfvqa.batch.manifest import read_manifest
from sfvqa.batch.output_file import is_stream
from sfvqa.batch.video_kinds import is_video
from sfvqa.errors import UsageError
from sfvqa.inference.question import check_question


def gather_items(source: str, questions: Sequence[str], notices: list[str] | None = None) -> list[Item]:
    """The items of a folder, a glob, a video file, a manifest, or one on standard input (`-`) or a pipe.

    Of a folder, a glob and a video every question is asked; of a manifest (see `read_manifest`), of the lines without
    one. A question that is given twice is asked once. `notices` are told what was left out. Raises UsageError for what
    is not there, is none of these, or leaves nothing to ask.
    """
    asked = list(dict.fromkeys(check_question(question) for question in questions))
    if not source:  # Path would take it for this folder: a shell's variable that is not set
        raise UsageError("The name of what to ask about is empty.", "Name a folder, “.” for this one.")
    path = Path(source)
    if is_stream(path) or (path.is_file() and not _is_video(path)):
        return read_manifest(source, asked, notices)
    videos = [(path, path.name)] if path.is_file() else list_videos(source, notices)
    if not asked:  # said of what is there: a manifest's name may be misspelt
        raise UsageError("No question was given.", "Give one with --question, or name a manifest that has them.")
    return [Item(video, name, question) for video, name in videos for question in asked]


def _is_video(path: Path) -> bool:
    try:
        return is_video(path)
    except OSError:
        return False
