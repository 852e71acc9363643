"""One line of a manifest, made into what an item needs, or into what is wrong with it. Opens nothing."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.errors import UsageError
from sfvqa.inference.question import check_choices, check_question, check_text
from sfvqa.video.sampling import SamplingOptions, parse_time

FIELDS = ("video", "question", "id", "start", "end", "choices", "answer", "group")

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def to_items(fields: Mapping[str, object], folder: Path, questions: Sequence[str]) -> list[Item]:
    """The items of a line: one for its question, or else one for each of `questions`.

    Fields that are None or empty are not given. Paths are relative to `folder`. UsageError for what cannot be meant.
    """
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    video, name = _video(given.get("video"), folder)
    asked = [check_question(_text(given, "question") or "")] if "question" in given else list(questions)
    if not asked:
        raise UsageError("it has no question, and none was given with --question")
    start_seconds, end_seconds = _seconds(given, "start"), _seconds(given, "end")
    SamplingOptions(start_seconds=start_seconds, end_seconds=end_seconds)  # raises for a range that cannot be
    item = Item(
        video=video,
        name=name,
        question="",
        own_id=_text(given, "id"),
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        choices=_choices(given.get("choices")),
        answer=_text(given, "answer"),
        group=_text(given, "group"),
    )
    return [replace(item, question=question) for question in asked]


def _video(value: object, folder: Path) -> tuple[Path, str]:
    """Where it is, and its name: relative to the folder if it lies there, else as it was given."""
    if value is None:
        raise UsageError("it has no video")
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"its video is no path but {value!r}")
    if _ADDRESS.match(value):
        raise UsageError(f"“{value}” is an address, and only local files are read")
    path = folder / value
    if Path(value).is_absolute():
        try:
            name = Path(value).relative_to(folder.absolute())
        except ValueError:
            name = Path(value)
    else:
        name = Path(value)
    plain = Path(os.path.normpath(name))
    # ".." after a linked folder leads elsewhere than the text says: such a name stays as it is, or two would be alike.
    is_same = ".." not in name.parts or os.path.realpath(folder / plain) == os.path.realpath(path)
    return path, (plain if is_same else name).as_posix()


def _text(given: Mapping[str, object], field: str) -> str | None:
    """A text, or a number as text."""
    value = given.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"its {field} is no text but {value!r}")
    return check_text(str(value), field, "")


def _seconds(given: Mapping[str, object], field: str) -> float | None:
    """Seconds of a number, or of `90`, `1:30` or `0:01:30.5`."""
    value = given.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        return parse_time(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"its {field} is no time but {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"its {field} is no time but a number of {len(str(value))} digits") from None


def _choices(value: object) -> tuple[str, ...] | None:
    """A list of texts or numbers, or one text as a row of a CSV file."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = next(csv.reader([value], skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            raise UsageError(f"its choices cannot be read: {error}") from error
    if not isinstance(value, list):
        raise UsageError(f"its choices are no list but {value!r}")
    return check_choices([_text({"choice": choice}, "choice") or "" for choice in value])
