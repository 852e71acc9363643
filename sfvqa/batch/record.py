"""Records, each one JSON object that says what became of an item: how they are made, and how a file of them is read."""

import contextlib
import functools
import importlib.metadata
import itertools
import json
import platform
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import sfvqa
from sfvqa.batch.item import Question
from sfvqa.errors import OutOfMemoryError, ReadingMemoryError, SfvqaError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.inference.answer import Answer

Record = dict[str, Any]
"""One line: the object of `sfvqa ask --json` and more, see `ok_record` and `error_record`."""

OK, ERROR = "ok", "error"
SCHEMA_VERSION = 1
START = b'{"schema_version": '
"""How every line begins, so that half of one is recognised."""

_LIBRARIES = ("torch", "transformers", "av")
_LONGEST_REASON = 500
_LONGEST_LIST = 10
_HEAD_BYTES = 1 << 20  # many times a record
_LONGEST_LINE_BYTES = 32 << 20  # more than a record with the evidence of 200,000 frames


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no answer, in words: an error would keep its traceback alive, and every object in its frames.

    `kind` is the error's type; `traceback` is that of an error that was not raised on purpose.
    """

    kind: str
    message: str
    traceback: str | None = None
    fewer_frames_may_help: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The error in words."""
        kind = type(error).__name__
        of_memory = isinstance(error, OutOfMemoryError | MemoryError) and not isinstance(error, ReadingMemoryError)
        if isinstance(error, SfvqaError):
            return cls(kind, error.with_flags, fewer_frames_may_help=of_memory)
        reason = " ".join(str(error).split())[:_LONGEST_REASON]  # torch writes pages
        message = f"{kind}: {reason}" if reason else kind
        return cls(kind, message, "".join(traceback.format_exception(error)), of_memory)

    def to_dict(self) -> dict[str, str]:
        """What a record says of it."""
        said = {"type": self.kind, "message": self.message}
        return said if self.traceback is None else {**said, "traceback": self.traceback}


def ok_record(question: Question, answer: "Answer", settings: Mapping[str, object]) -> Record:
    """The answer and all there is to know about it; `settings` are those that were asked for."""
    return {**answer.to_dict(), **_facts(question, OK, settings)}


def error_record(question: Question, failure: Failure, settings: Mapping[str, object]) -> Record:
    """Why there is no answer, with the traceback of an error that was not raised on purpose."""
    return {"schema_version": SCHEMA_VERSION, **_facts(question, ERROR, settings), "error": failure.to_dict()}


_DEEPEST = 8  # of objects whose fields are told apart


def flat_fields(value: object, depth: int = _DEEPEST) -> dict[str, str]:
    """The values of an object, each as text by its name, those of an object in it by `a.b`; none of anything else.

    Null counts as not there; what is neither text nor an object is as JSON has it.

    >>> flat_fields({"a": {"b": 2.5}, "c": ["x", True], "d": "y", "e": None})
    {'a.b': '2.5', 'c': '["x", true]', 'd': 'y'}
    """
    found: dict[str, str] = {}
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict) and inner and depth > 1:
            found |= {f"{name}.{below}": text for below, text in flat_fields(inner, depth - 1).items()}
        elif inner is not None:
            found[name] = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
    return found


def to_line(record: Mapping[str, object]) -> bytes:
    r"""The record as one line of ASCII, its newline too.

    Names that are not UTF-8 keep their bytes, as lone surrogates. ValueError for NaN and infinity, which JSON has not.

    >>> to_line({"video": "a\nb"})
    b'{"video": "a\\nb"}\n'
    """
    return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def parse_line(line: bytes) -> Record | None:
    """The record that a line holds, with or without its newline; None if it holds none."""
    value = _parse_json(line)
    return value if _is_record(value) else None


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("item_id"), str) and value.get("status") in (OK, ERROR)


@dataclass(frozen=True)
class Line:
    """A line of a file of records: where it is, in bytes, and the record it holds, if any.

    `is_whole` if it ends with a newline, as every line does that was written to its end; `is_torn` if it is part of a
    record, or what a crash of the system left of one, which only a last line can be.
    """

    number: int
    start: int
    size_bytes: int
    record: Record | None
    is_whole: bool
    is_empty: bool
    is_torn: bool


def read_lines(stream: IO[bytes], name: str) -> Iterator[Line]:
    """Every line of a file. UsageError at once for a file of something else, see `check_records`.

    A line longer than any record is skipped, not held: a crash of the system may leave one as long as the disk.
    """
    check_records(stream, name)
    start = 0
    for number in itertools.count(1):
        content = stream.readline(_LONGEST_LINE_BYTES)
        if not content:
            return
        size_bytes, is_whole, is_empty = len(content), content.endswith(b"\n"), not content.strip()
        value = None
        if is_whole or size_bytes < _LONGEST_LINE_BYTES:
            value = _parse_json(content)
        while not is_whole and (content := stream.readline(_HEAD_BYTES)):
            size_bytes, is_whole = size_bytes + len(content), content.endswith(b"\n")
        del content
        record = value if _is_record(value) else None
        is_torn = record is None and not is_empty and not (is_whole and value is not None)
        yield Line(number, start, size_bytes, record, is_whole, is_empty, is_torn)
        start += size_bytes


def check_records(stream: IO[bytes], name: str) -> None:
    """Raise UsageError, naming the file, unless it is a file of records; leave the stream at its beginning.

    It is one if it is empty, has a record in its first megabyte, or holds only the torn beginning of a record.
    """
    head = stream.read(_HEAD_BYTES)
    if head and not _may_hold_records(head):
        raise UsageError(
            f"“{name}” is not a file of records.",
            "Name one that `sfvqa batch` wrote; to write records, a new file will do.",
        )
    stream.seek(0)


def read_records(path: Path, notices: list[str] | None = None) -> Iterator[Record]:
    """The records of a file in their order, as `read_record_lines` finds them."""
    for line in read_record_lines(path, notices):
        assert line.record is not None
        yield line.record


def read_record_lines(path: Path, notices: list[str] | None = None) -> Iterator[Line]:
    """The lines of a file that hold records, also while another process appends to it.

    Torn and damaged lines are skipped, as the last of `notices` says. UsageError for a file that cannot be read, or
    holds something else.
    """
    unread: list[Line] = []
    try:
        with path.open("rb") as stream:
            for line in read_lines(stream, str(path)):
                if line.record is not None:
                    yield line
                elif not line.is_empty:
                    unread.append(line)
    except OSError as error:
        raise UsageError(
            f"The records in “{path}” cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from error
    if notices is not None:
        notices += describe_damage(path, unread)


def describe_damage(path: Path, unread: Sequence[Line]) -> list[str]:
    """The notice about lines that hold no record, including a torn last one."""
    if not unread:
        return []
    numbers = ", ".join(str(line.number) for line in unread[:_LONGEST_LIST])
    more = f" and {len(unread) - _LONGEST_LIST} more" if len(unread) > _LONGEST_LIST else ""
    return [f"Skipped {plural(len(unread), 'torn or damaged line')} of “{path}”: {numbers}{more}."]


def _may_hold_records(head: bytes) -> bool:
    lines = head.split(b"\n")
    is_torn_start = len(lines) == 1 and START.startswith(head[: len(START)]) and _parse_json(head) is None
    return is_torn_start or any(parse_line(line) for line in lines)


def _parse_json(line: bytes) -> Any:
    """Its value, None if there is none: no JSON, no UTF-8, a number of thousands of digits, or nested too deep."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _facts(question: Question, status: str, settings: Mapping[str, object]) -> Record:
    item = question.item
    choices = None if item.choices is None else list(item.choices)
    own = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds, "choices": choices}
    return {
        "video": item.name,
        "video_path": str(item.video.absolute()),
        "window": item.window and item.window.to_dict(),
        "question": item.question,
        "item_id": question.item_id,
        "id": item.own_id,
        "status": status,
        "answer_expected": item.answer,
        "fields_expected": dict(item.fields) or None,
        "group": item.group,
        "requested": {**settings, **{name: value for name, value in own.items() if value is not None}},
        "versions": dict(_versions()),
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


@functools.cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"sfvqa": sfvqa.__version__, **dict.fromkeys(_LIBRARIES)}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return {**found, "python": sys.version.split()[0]}
