"""Files of conversations about videos, JSON or JSON lines, become examples, strictly: nothing is skipped silently."""

import json
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfvqa.errors import SfvqaError, UsageError, VideoError
from sfvqa.training.conversation import as_object, read_conversation
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.wording import plural

logger = logging.getLogger(__name__)

_NUM_NAMED = 3  # of the videos that cannot be read


@dataclass(frozen=True)
class Place:
    """Where a row stands: in which file or shard, at which `number` (from 1), and its id.

    Both are None for the file as a whole. `kind` is what the number counts: lines, or entries of a list, say.
    """

    file: Path | str
    number: int | None = None
    name: str | None = None
    kind: str = "Entry"

    def __str__(self) -> str:
        if self.number is None:
            return str(self.file)
        name = "" if self.name is None else f" ({self.name})"
        return f"{self.kind} {self.number}{name} of {self.file}"


@dataclass(frozen=True)
class Example:
    """A video or picture, None for text alone, and the questions and answers about it, in order.

    `timestamps_seconds` are those of the frames that are to be read and `duration_seconds` is the video's, None and 0
    where they are not known yet; `system` is the system message in place of the template's own, if any. One that is
    `held_out` is not learned from: the model is validated on it.
    """

    name: str
    video: Path | None
    turns: tuple[tuple[str, str], ...]
    timestamps_seconds: tuple[float, ...] | None = None
    duration_seconds: float = 0.0
    system: str | None = None
    held_out: bool = False
    place: Place | None = field(default=None, compare=False)

    @property
    def called(self) -> str:
        """How messages name it."""
        return f"Example {self.name}" if self.place is None else str(self.place)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row, or a file, and what to do about it."""

    place: Place
    error: SfvqaError


@dataclass(frozen=True)
class Source:
    """A file of annotations, each row of which is learned from `weight` times an epoch: 0.5 is half of its rows, drawn.

    What is streamed may have an address in place of a path. Raises UsageError when built.

    >>> Source.parse("a.jsonl:2").weight
    2.0
    """

    path: Path | str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UsageError(f"The weight of {self.path} is {self.weight:g}.", "Give a number above 0, such as 0.5.")

    @classmethod
    def parse(cls, text: str) -> "Source":
        """`FILE` or `FILE:WEIGHT`; what is no number behind a colon belongs to the name."""
        path, _, weight = text.rpartition(":")
        if not (path and _NUMBER.fullmatch(weight)):
            path, weight = text, "1"
        return cls(path if "://" in path else Path(path), float(weight))

    def __str__(self) -> str:
        return str(self.path) if self.weight == 1 else f"{self.path}:{self.weight:g}"

    def draw(self, examples: Sequence[Example], seed: int) -> list[Example]:
        """A file's examples as often as it weighs: whole times all, then a random part. UsageError if none is left."""
        times = int(self.weight)
        rest = round((self.weight - times) * len(examples))
        drawn = sorted(random.Random(seed).sample(range(len(examples)), rest))
        if not times and not drawn:
            raise UsageError(f"{self} leaves none of {plural(len(examples), 'row')}.", "Give it a larger weight.")
        return [*examples] * times + [examples[place] for place in drawn]


_NUMBER = re.compile(r"-?\d+(\.\d*)?|-?\.\d+")


def read_sources(sources: Sequence[Source], video_folder: Path, seed: int) -> list[Example]:
    """All examples of several files, each as often as its file weighs. Errors as `read_annotations`."""
    return [
        example
        for source in sources
        for example in source.draw(read_annotations(Path(source.path), video_folder), seed)
    ]


def read_annotations(path: Path, video_folder: Path) -> list[Example]:
    """Read all examples of a file; videos are in `video_folder`. UsageError names the first bad row, why, how many."""
    rows, ignored = read_rows(path, video_folder)
    faults = [row for row in rows if isinstance(row, Fault)]
    if faults:
        first, others = faults[0], len(faults) - 1
        more = f" {plural(others, 'more row')} of it cannot be read: list them with --check." if others else ""
        said = first.error.message if first.place.number is None else f"{first.place}: {first.error.message}"
        raise UsageError(said, first.error.remedy + more) from first.error
    if ignored:
        logger.warning("%s", says_ignored(path, ignored))
    return [row for row in rows if isinstance(row, Example)]


def says_ignored(path: Path, ignored: Counter[str]) -> str:
    """The sentence for keys that nothing is made of, such as a start and an end."""
    named = ", ".join(f"{key} ({count:,})" for key, count in sorted(ignored.items()))
    return f"Not everything in {path} is read; ignored: {named}."


def read_rows(path: Path, video_folder: Path) -> tuple[list[Example | Fault], Counter[str]]:
    """Every row of a file, or what is wrong with it; and the keys that were not read, with the number of their rows.

    A file whose rows cannot be told apart is one fault.
    """
    rows: list[Example | Fault] = []
    ignored: Counter[str] = Counter()
    try:
        for place, row in rows_of_file(path):
            made, not_read = read_row(place, row, video_folder)
            rows.append(made)
            ignored.update(not_read)
    except UsageError as error:
        return [Fault(Place(path), error)], Counter()
    return rows, ignored


def read_row(
    place: Place, row: Any, video_folder: Path, shown: Sequence[str] = ()
) -> tuple[Example | Fault, tuple[str, ...]]:
    """One row, or what is wrong with it, and the keys that were not read; `shown` as `read_conversation` takes it."""
    name = str(row["id"]) if isinstance(row, dict) and row.get("id") is not None else None
    place = replace(place, name=place.name or name)
    try:
        if isinstance(row, UsageError):
            raise row
        said = read_conversation(row, shown)
    except UsageError as error:
        return Fault(place, error), ()
    video = None if said.shown is None else video_folder / said.shown
    return Example(place.name or str(place.number), video, said.turns, system=said.system, place=place), said.ignored


def rows_of_file(path: Path) -> Iterator[tuple[Place, Any]]:
    """The rows of a file: a list in JSON if it begins with a bracket, else JSON lines, whatever its name is.

    A line that is no JSON is an error in place of a row. UsageError for the file as a whole.
    """
    text = _text_of(path)
    if text.lstrip().startswith("["):
        found = _parsed(text)
        if isinstance(found, UsageError):
            raise UsageError(f"The annotations in {path} cannot be read: {found.message}", found.remedy)
        lines = [(Place(path, number), row) for number, row in enumerate(found, start=1)]
    else:
        parts = [(number, part) for number, part in enumerate(text.split("\n"), start=1) if part.strip()]
        if len(parts) > 1 and not isinstance(_parsed(text), UsageError):
            raise UsageError(f"{path} holds one object, not a list of rows.", _LISTED)
        lines = [(Place(path, number, kind="Line"), _parsed(part)) for number, part in parts]
    if not lines:
        raise UsageError(f"{path} holds no rows.", _LISTED)
    yield from lines


_LISTED = 'It should be [{"video": …, "conversations": …}, …], or such an object on each line.'


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"There is no annotation file {path}.", "Name a file of conversations.") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"The annotations in {path} cannot be read: line {line} is not UTF-8.", "Save it as UTF-8."
        ) from error
    except OSError as error:
        raise UsageError(f"The annotations in {path} cannot be read: {error.strerror}.", "Name a file.") from error


def _parsed(text: str) -> Any:
    """The value that a text in JSON stands for, or the UsageError that says where it is none."""
    try:
        return json.loads(text, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        return UsageError(
            f"It is not JSON: {error.msg}, at {where}.", "Correct it there, or write it with a JSON library."
        )
    except (RecursionError, ValueError) as error:  # nested too deep, or a number of thousands of digits
        return UsageError(f"It is not JSON that can be read: {error}.", "Leave this out.")


def check_videos(
    examples: Sequence[Example], sampling: SamplingOptions, reading: ReadOptions, *, skip_unreadable: bool
) -> list[Example]:
    """Open every video once; return the readable examples with what is known of their frames.

    Raises UsageError with the count and the first few that cannot, unless they are to be skipped: then it is a warning.
    """
    failures: dict[Path, str] = {}
    known: dict[Path | None, dict[str, Any]] = {}
    for video in dict.fromkeys(example.video for example in examples):
        if video is not None:
            try:
                with open_video(video, reading) as opened:
                    chosen = choose_unread(opened, sampling).indices
                if sampling.strategy is not SamplingStrategy.SCENE:  # of which only a highest number is known
                    times = tuple(opened.timestamps_seconds[index] for index in chosen)
                    known[video] = {"timestamps_seconds": times, "duration_seconds": opened.info.duration_seconds}
            except VideoError as error:
                failures[video] = error.message
    kept = [replace(example, **known.get(example.video, {})) for example in examples if example.video not in failures]
    if not failures:
        return kept
    named = " ".join(list(failures.values())[:_NUM_NAMED])
    counts = (
        f"{plural(len(failures), 'video')} of {len(examples) - len(kept)} of {plural(len(examples), 'example')} "
        "cannot be read"
    )
    if not skip_unreadable or not kept:
        raise UsageError(f"{counts}: {named}", "Repair or remove them, or skip them with --skip-unreadable.")
    logger.warning("%s; these examples are left out: %s", counts, named)
    return kept
