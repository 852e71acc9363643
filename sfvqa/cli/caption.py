"""`sfvqa caption`: a batch of one question, whose answers become a file of captions beside each video."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfvqa.batch.journal import RecordKeeper
from sfvqa.cli.answer_options import TurnOptions
from sfvqa.cli.answers import warnings_of_end
from sfvqa.cli.batch.command import TextTracks, WorkOptions
from sfvqa.cli.frame_options import WindowedFrameOptions
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import (
    OUTPUT,
    CacheOptions,
    CaptionFormatName,
    DryRun,
    OutputOptions,
    option,
    parse_file,
)
from sfvqa.cli.windows import caption_of
from sfvqa.errors import SfvqaError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.batch.item import Item
    from sfvqa.cli.screen import Notices
    from sfvqa.video.subtitles import SubtitleLine
    from sfvqa.video.windows import WindowOptions

HELP = """\b
[bold]Examples[/bold]
  sfvqa caption talk.mp4                       (talk.vtt, a caption a window)
  sfvqa caption videos/ --window 10 --out captions/
  sfvqa caption videos/ --whole                (a .txt a video, for training)
  sfvqa caption lecture.mp4 --prompt "What is on the slide?" --format srt

Caption videos: the model describes each window of a video, and the texts
become a file of subtitles beside it. Files that are there stay as they are,
so rerun the command to resume."""

DEFAULT_PROMPT = "Describe the video."

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEO|FOLDER|GLOB",
        help="Video files, folders, searched with their subfolders, or quoted patterns.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(WindowedFrameOptions):
    """Which parts of each video are captioned, what is written of them, and where."""

    panel = "The captions"

    window: Annotated[
        str | None,
        option("Caption each window of this length, such as 30s or 1:30, or each scene.", metavar="TIME|scenes"),
    ] = "30s"
    whole: Annotated[bool, option("Write one text about the whole video, as plain text.")] = False
    prompt: Annotated[str, option("Ask the model for this.", metavar="TEXT")] = DEFAULT_PROMPT
    format: Annotated[
        CaptionFormatName | None,
        option("Format of the files: vtt, srt, txt, csv or jsonl (default: vtt, with --whole txt).", metavar="NAME"),
    ] = None
    out: Annotated[
        Path | None,
        option(
            "Write the files here, in subfolders as the videos are, not beside the videos.",
            parser=parse_file,
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Annotated[bool, option("Replace files that are there already.", rich_help_panel=OUTPUT)] = False

    def __post_init__(self) -> None:
        for name in ("window", "overlap") if self.whole else ():
            if self.is_flag(name):
                raise UsageError(f"--whole and --{name} contradict each other.", "Leave one of them out.")
        super().__post_init__()

    def windows(self) -> "WindowOptions | None":
        """The windows to caption, None for the whole video at once."""
        return None if self.whole else super().windows()

    @property
    def format_name(self) -> CaptionFormatName:
        """The format to write."""
        return self.format or ("txt" if self.whole else "vtt")

    def place_of(self, item: "Item") -> Path:
        """Where the captions of a video go."""
        if self.out is None:
            return item.video.with_suffix(f".{self.format_name}")
        name = Path(item.name)
        below = Path(name.name) if name.anchor or ".." in name.parts else name  # on Windows: D:a.mp4, \\a.mp4
        return (self.out / below).with_suffix(f".{self.format_name}")


@dataclass(frozen=True, kw_only=True)
class CaptionAnswerOptions(TurnOptions):
    """How captions are written: subtitles are those of each video."""

    subtitles: TextTracks = None


def caption(
    sources: Sources,
    *,
    captions: CaptionOptions,
    work: WorkOptions,
    model: ModelOptions,
    answers: CaptionAnswerOptions,
    cache: CacheOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Find the videos that have no captions yet, and have the batch ask about them."""
    from sfvqa.cli.batch.command import plan_batch
    from sfvqa.cli.batch.dry_run import show_what_is_left
    from sfvqa.cli.batch.running import run, show_summary

    notices = output.notices()
    answers.check(model)
    model.check(needs_weights=not dry_run)
    places = find_places(sources, captions, notices)
    left = {item: file for item, file in places.items() if captions.overwrite or not file.exists()}
    if num_there := len(places) - len(left):
        notices.note(f"{plural(num_there, 'video')} captioned already; --overwrite captions them again.")
    for item, file in left.items():
        check_file(item, file)
    request = plan_batch(list(left), work, model, captions, answers, None, cache, notices)
    if dry_run:
        raise typer.Exit(show_what_is_left(request, Path("-"), notices, overwrite=True, json=output.json))
    files = CaptionFiles(left, request.items, captions)
    try:
        summary = run(request, files, notices)
    finally:
        files.tell(notices)
    raise typer.Exit(show_summary(summary, files.describe(), notices, json=output.json))


def find_places(sources: Sequence[str], captions: CaptionOptions, notices: "Notices") -> "dict[Item, Path]":
    """The videos, each once, and where their captions go. UsageError where two go to the same place."""
    from sfvqa.batch.find_videos import gather_items

    said: list[str] = []
    with notices.waiting("Looking for videos"):
        found = [item for source in sources for item in gather_items(source, [captions.prompt], said)]
    for notice in said:
        notices.note(notice)
    videos = {os.path.realpath(item.video) for item in found}
    by_file: dict[str, Item] = {}
    for item in found:
        file = captions.place_of(item)
        first = by_file.setdefault(os.path.realpath(file), item)
        if replace(first, name=item.name) != item:
            raise UsageError(
                f"The captions of “{first.video}” and “{item.video}” would both be “{file}”.",
                "Rename one of them, or caption them one after the other with another --out.",
            )
        if os.path.realpath(file) in videos:
            raise UsageError(f"The captions of “{item.video}” would replace “{file}”, which is a video.", "Use --out.")
    return {item: captions.place_of(item) for item in by_file.values()}


def check_file(item: "Item", file: Path) -> None:
    """Fail now if the captions cannot be written there. UsageError, SfvqaError."""
    from sfvqa.cli.whole_file import check_folder, check_place

    check_folder(file.parent)
    if file.parent.is_dir():
        check_place(file, keep=[item.video])


class CaptionFiles(RecordKeeper):
    """Makes a file of captions of a video's records, once there are all of them.

    A window without an answer is left out, and a video without any answer gets no file. What is wrong is kept until
    `tell`.
    """

    remembers = True  # by the files that are there

    def __init__(self, places: "Mapping[Item, Path]", items: "Sequence[Item]", captions: CaptionOptions) -> None:
        super().__init__()
        self._captions = captions
        self._num_left = Counter(str(item.video.absolute()) for item in items)
        self._places = {str(item.video.absolute()): file for item, file in places.items()}
        self._lines: defaultdict[str, list[SubtitleLine]] = defaultdict(list)
        self._failures: defaultdict[str, list[str]] = defaultdict(list)
        self._warnings: dict[str, None] = {}  # as a set that keeps its order
        self._written: set[str] = set()

    def append(self, record: Mapping[str, Any]) -> None:
        """Take the record of a window, or of a whole video. SfvqaError where the file cannot be written."""
        video, name = record["video_path"], record["video"]
        if record["status"] == "ok":
            self._lines[video].append(caption_of(record))
            cut = warnings_of_end(record["finish_reason"], record["settings"]["max_new_tokens"])
            self._warnings |= dict.fromkeys(f"{name}: {warning}" for warning in (*record["warnings"], *cut))
        else:
            self._failures[video].append(f"{name}: {record['error']['message']}")
        self.learn(record)
        self._num_left[video] -= 1
        if not self._num_left[video]:
            self._write(video)

    def tell(self, notices: "Notices") -> None:
        """Say what is wrong with the captions; failures only where the display did not."""
        for warning in self._warnings:
            notices.warn(warning)
        for video, messages in self._failures.items():
            file = self._places[video]
            if video in self._written:
                notices.warn(f"{file} lacks {plural(len(messages), 'window')}; --overwrite makes it again.")
            for message in dict.fromkeys(messages if notices.live else ()):
                notices.note(f"Failed: {message}")

    def describe(self) -> str:
        """How many files were written, and where."""
        where = f"in {self._captions.out}" if self._captions.out else "beside the videos"
        return f"Captions: {plural(len(self._written), 'file')} {where}"

    def _write(self, video: str) -> None:
        from sfvqa.cli.whole_file import make_folder, whole_text_file
        from sfvqa.video.captions import CaptionFormat, CaptionWriter

        lines = sorted(self._lines.pop(video, ()), key=lambda line: (line.start_seconds, line.end_seconds))
        if not lines:
            return
        file = self._places[video]
        if file.exists() and not self._captions.overwrite:
            raise SfvqaError(f"“{file}” was made meanwhile by something else.", "Rerun the command to go on.")
        make_folder(file.parent)
        with whole_text_file(file) as stream:
            captions = CaptionWriter(stream, CaptionFormat(self._captions.format_name))
            for line in lines:
                captions.write(line)
        self._written.add(video)
