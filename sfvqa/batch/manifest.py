"""Manifests: JSON lines, or CSV, each line of which names a video and what to ask about it, made into items."""

import codecs
import contextlib
import csv
import io
import json
import os
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.batch.journal import is_stream
from sfvqa.batch.record import flat_fields
from sfvqa.errors import UsageError
from sfvqa.evaluation.matching import Rule, is_match
from sfvqa.given_file import STANDARD_INPUT, read_given
from sfvqa.inference.question import check_choices, check_question, check_text
from sfvqa.video.sampling import SamplingOptions, parse_time
from sfvqa.wording import plural

FIELDS = ("video", "question", "id", "start", "end", "choices", "answer", "group", "fields")
_OF_FIELDS = "fields."  # what columns of true fields begin with

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LONGEST_LIST = 10
_LONGEST_HEADER = 120
_MOST_BYTES = 512_000_000  # millions of lines
_OF_RECORDS = {"item_id", "status"}
_DELIMITERS = (",", "\t", ";")

_Row = tuple[int, dict[str, object] | str]
"""The number of a line, and its fields or what is wrong with it."""


def read_manifest(source: Path | str, questions: Sequence[str] = (), notices: list[str] | None = None) -> list[Item]:
    """The items of a manifest, or of standard input (`-`), in its order.

    A line is a JSON object, or a row of CSV under a header (`,`, `;` or tabs), with `video` and optionally `question`,
    `id`, `start`, `end` (seconds, or times such as 1:30), `choices` (a list, or text as in CSV), `answer`, `group`, and
    the true fields of an answer by a schema, in `fields.NAME` or an object `fields`.
    A line without a question takes each of `questions`. Paths are relative to the manifest's folder, or the working
    directory for standard input or a pipe; a folder of pictures counts as a video.
    Lines that repeat another are skipped; `notices` say so, and name unknown fields. Raises a UsageError that counts
    the lines that cannot be used and says what is wrong with the first ten.
    """
    name = "standard input" if str(source) == STANDARD_INPUT else f"“{source}”"
    folder = Path() if is_stream(Path(source)) else Path(source).parent
    lines = _Lines(name)
    for number, fields in _rows(_read(source, name), name):
        if isinstance(fields, str):
            lines.problems.append((number, fields))
            continue
        if fields.keys() >= _OF_RECORDS:
            raise UsageError(
                f"In {name} are the records of a batch, whose answers would be taken for the true ones.",
                "Name the folder or the manifest that they were made from.",
            )
        lines.unknown |= {name for name in fields if name not in FIELDS and not name.startswith(_OF_FIELDS)}
        lines.takes_questions |= not fields.get("question")
        try:
            lines.add(number, _to_items(fields, folder, questions))
        except UsageError as error:
            message = error.message.rstrip(".")
            lines.problems.append((number, message[:1].lower() + message[1:]))
    lines.refuse_problems()
    if notices is not None:
        notices += lines.describe()
        if questions and not lines.takes_questions:
            notices.append(f"Every line of {name} has its own question; those of --question are not asked.")
    return lines.items


@dataclass
class _Lines:
    """The items of the lines so far, what is wrong with lines, and what the user should hear."""

    name: str
    items: list[Item] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    takes_questions: bool = False
    _seen: dict[Item, tuple[int, Item]] = field(default_factory=dict)
    _own_ids: dict[str, int] = field(default_factory=dict)
    _num_repeated: int = 0

    def add(self, number: int, items: Sequence[Item]) -> None:
        """Take a line's items; UsageError if its id is taken, or another line asks the same with another answer."""
        own_id = items[0].own_id
        if own_id is not None and self._own_ids.setdefault(own_id, number) != number:
            raise UsageError(f"its id “{own_id}” is that of line {self._own_ids[own_id]}")
        for item in items:
            # One file may be written in several ways ("a", "b/../a"), and is one video.
            asked = replace(item, video=Path(os.path.realpath(item.video)), answer=None, group=None, fields=())
            line, same = self._seen.setdefault(asked, (number, item))
            if same is item:
                self.items.append(item)
            elif (same.answer, same.group, same.fields) == (item.answer, item.group, item.fields):
                self._num_repeated += 1
            else:
                raise UsageError(f"it repeats line {line} with another answer or group")

    def refuse_problems(self) -> None:
        """UsageError if there are any, or no items."""
        if self.problems:
            shown = "; ".join(f"line {number}: {problem}" for number, problem in self.problems[:_LONGEST_LIST])
            more = len(self.problems) - _LONGEST_LIST
            raise UsageError(
                f"{plural(len(self.problems), 'line')} of {self.name} cannot be used: {shown}"
                f"{f'; and {more} more' if more > 0 else ''}.",
                "Correct the manifest; nothing was asked.",
            )
        if not self.items:
            raise UsageError(
                f"There are no lines in {self.name}.", "Write one JSON object per line, or CSV with a header."
            )

    def describe(self) -> list[str]:
        """What the user should hear of the lines that were used."""
        told = []
        if self.unknown:
            told.append(f"Unknown fields of {self.name} are ignored: {', '.join(sorted(self.unknown))}.")
        if self._num_repeated:
            told.append(f"Skipped lines of {self.name} that repeat another: {self._num_repeated:,}.")
        odd = sum(
            not any(is_match(choice, item.answer, item.choices, rule=Rule.EXACT) for choice in item.choices)
            for item in self.items
            if item.choices is not None and item.answer is not None
        )
        if odd:
            told.append(f"Items whose true answer is not among their choices: {odd:,}.")
        return told


def _read(source: Path | str, name: str) -> str:
    """All of it as text; bytes that are not UTF-8 are kept, since names of files may have them."""
    if str(source) == STANDARD_INPUT and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("Nothing is connected to standard input.", "Pipe a manifest into it, or name a file.")
    try:
        content = read_given(source, _MOST_BYTES)
    except OSError as error:
        raise UsageError(f"The manifest {name} cannot be read: {error.strerror or error}.", "Check it.") from error
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-8-sig", "surrogateescape")
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise UsageError(f"The manifest in {name} is not valid UTF-16.", "Save it as UTF-8.") from error


def _rows(text: str, name: str) -> Iterator[_Row]:
    """The lines that are not empty, as JSON or CSV by what the text begins with."""
    first = text.lstrip()[:1]
    if first == "[":
        raise UsageError(
            f"{name[:1].upper()}{name[1:]} is one JSON list.", "Write one object per line; jq -c '.[]' does that."
        )
    return _json_rows(text) if first == "{" else _csv_rows(text, name)


def _json_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: texts in JSON may hold U+2028
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=_without_repeated)
        except (ValueError, RecursionError) as error:
            yield number, f"it is not valid JSON ({error})"
            continue
        yield number, fields if isinstance(fields, dict) else "it is not a JSON object"


def _without_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is given more than once")
    return fields


def _csv_rows(text: str, name: str) -> Iterator[_Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((each for each in _DELIMITERS if each in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"it is not valid CSV ({error})"
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _check_header([_column(cell.strip()) for cell in cells], name)
        elif len(cells) > len(header):
            yield number, f"it has {plural(len(cells), 'cell')} under a header of {len(header)}"
        else:
            yield number, dict(zip(header, cells, strict=False))  # what a shorter row lacks is not given


def _column(cell: str) -> str:
    """A name in the header: ours in any case, those of fields in their own."""
    name = cell.lower()
    return f"{_OF_FIELDS}{cell[len(_OF_FIELDS) :]}" if name.startswith(_OF_FIELDS) else name


def _check_header(header: list[str], name: str) -> list[str]:
    if "video" not in header:
        shown = ", ".join(header)[:_LONGEST_HEADER]  # it may be whatever a binary file begins with
        raise UsageError(
            f"The header of {name} has no column “video”: {shown}{'…' if shown != ', '.join(header) else ''}.",
            "Begin CSV with the names of its columns, such as video,question; or write one JSON object per line.",
        )
    if repeated := next((column for column in header if header.count(column) > 1), None):
        raise UsageError(f"The header of {name} has “{repeated}” more than once.", "Give each column its own name.")
    return header


def _to_items(fields: Mapping[str, object], folder: Path, questions: Sequence[str]) -> list[Item]:
    """The items of a line: one for its question, or else one for each of `questions`.

    Fields that are None or empty count as not given; paths are relative to `folder`. UsageError for what cannot be.
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
        fields=tuple(_true_fields(given).items()),
    )
    return [replace(item, question=question) for question in asked]


def _video(value: object, folder: Path) -> tuple[Path, str]:
    """The video's path, and its name: relative to the folder if it is in it, else as given."""
    if value is None:
        raise UsageError("it has no video")
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"its video is not a path: {value!r}")
    if _ADDRESS.match(value):
        raise UsageError(f"“{value}” is a URL, and only local files are read")
    path, name = folder / value, Path(value)
    if name.is_absolute() and name.is_relative_to(folder.absolute()):
        name = name.relative_to(folder.absolute())
    plain = Path(os.path.normpath(name))
    # ".." after a linked folder leads elsewhere than the text says: such a name stays, or two videos would share it.
    is_same = ".." not in name.parts or os.path.realpath(folder / plain) == os.path.realpath(path)
    return path, (plain if is_same else name).as_posix()


def _text(given: Mapping[str, object], field: str) -> str | None:
    """A text, or a number as text."""
    value = given.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"its {field} is not text: {value!r}")
    return check_text(str(value), field, "")


def _true_fields(given: Mapping[str, object]) -> dict[str, str]:
    """The fields of columns `fields.NAME`, and of an object `fields`."""
    whole = given.get("fields", {})
    if not isinstance(whole, dict):
        raise UsageError(f"its fields are not an object: {reprlib.repr(whole)}")
    columns = {name.removeprefix(_OF_FIELDS): value for name, value in given.items() if name.startswith(_OF_FIELDS)}
    return {name: text for name, text in flat_fields({**whole, **columns}).items() if text}


def _seconds(given: Mapping[str, object], field: str) -> float | None:
    """Seconds of a number, or of `90`, `1:30` or `0:01:30.5`."""
    value = given.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        return parse_time(value)
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    raise UsageError(f"its {field} is not a time: {reprlib.repr(value)}")


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
        raise UsageError(f"its choices are not a list: {value!r}")
    return check_choices([_text({"choice": choice}, "choice") or "" for choice in value])
