"""Several files of records made into one that has one record an item: what shards wrote, or runs on other machines."""

import contextlib
import itertools
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sfvqa.batch.output_file import cannot_be_written, is_stream, move_aside, open_locked, real_path, sync_folder
from sfvqa.batch.record import OK, Line, Record, check_records, describe_damage, parse_line, read_lines
from sfvqa.errors import JournalError, UsageError


@dataclass(frozen=True)
class MergeSummary:
    """What was merged: records by status, how many were dropped and why, and what the user should hear.

    `num_repeated` ok records say what one before them says; `num_superseded` error records had an answer or a newer
    error; `conflicts` are items with several answers, of which the first was kept.
    """

    output: Path
    num_ok: int
    num_errors: int
    num_repeated: int
    num_superseded: int
    conflicts: tuple[str, ...]
    notices: tuple[str, ...]


def merge_records(parts: Sequence[Path], output: Path, *, overwrite: bool = False) -> MergeSummary:
    """Write the records of `parts` to `output`, one an item, as they are, in the order in which items first come.

    An ok record wins over errors, the first over others; of errors the one that finished last. Torn and damaged lines
    are left out. The output appears whole or not at all; one that is there is moved aside with `overwrite`, and else
    refused with a UsageError. Raises JournalError for what cannot be read, is no file of records, or cannot be written.
    """
    if is_stream(output):
        raise UsageError(f"“{output}” is no file, and a merge is written to one.", "Give the name of a file.")
    if os.path.lexists(output) and not overwrite:
        raise UsageError(f"“{output}” is there already.", "Give another name, or --overwrite to move it aside.")
    merge = _Merge()
    for part in parts:
        merge.learn(part)
    try:
        _write_whole(merge, real_path(output))
    except OSError as error:
        raise cannot_be_written(output, error) from error
    return merge.summary(output)


@dataclass(frozen=True)
class _Place:
    """Where a record is, and what it takes to compare it with another of its item."""

    part: Path
    start: int
    size_bytes: int
    is_ok: bool
    finished: str
    answer: object


@dataclass
class _Merge:
    """The best record of each item so far; records stay in their files."""

    best: dict[str, _Place] = field(default_factory=dict)
    num_repeated: int = 0
    num_superseded: int = 0
    conflicts: dict[str, None] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def learn(self, part: Path) -> None:
        """Go through a part. JournalError."""
        unread: list[Line] = []
        try:
            with part.open("rb") as stream:
                for line in read_lines(stream, str(part)):
                    if line.record is not None:
                        self._compare(line.record, part, line)
                    elif not line.is_empty:
                        unread.append(line)
        except OSError as error:
            raise JournalError(f"“{part}” cannot be read: {error.strerror or error}.", "Check the path.") from error
        self.notices += describe_damage(part, unread)

    def _compare(self, record: Record, part: Path, line: Line) -> None:
        item_id, is_ok = record["item_id"], record["status"] == OK
        place = _Place(part, line.start, line.size_bytes, is_ok, str(record.get("finished", "")), record.get("answer"))
        before = self.best.get(item_id)
        if before is None:
            self.best[item_id] = place
        elif is_ok and before.is_ok:
            self.num_repeated += place.answer == before.answer
            if place.answer != before.answer:
                self.conflicts[item_id] = None
        else:
            self.num_superseded += 1
            if is_ok or (not before.is_ok and place.finished >= before.finished):
                self.best[item_id] = place

    def summary(self, output: Path) -> MergeSummary:
        """What was done."""
        num_ok = sum(place.is_ok for place in self.best.values())
        return MergeSummary(
            output=output,
            num_ok=num_ok,
            num_errors=len(self.best) - num_ok,
            num_repeated=self.num_repeated,
            num_superseded=self.num_superseded,
            conflicts=tuple(self.conflicts),
            notices=tuple(self.notices),
        )


def _write_whole(merge: _Merge, output: Path) -> None:
    """Write beside the output, then give it its name. OSError; JournalError when the one that is there is in use."""
    with contextlib.ExitStack() as stack:
        if output.exists():
            check_records(stack.enter_context(open_locked(output)), str(output))
        partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
        try:
            with partial.open("xb") as stream:
                _copy(merge, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if output.exists():
                merge.notices.append(f"The old “{output}” is now “{move_aside(output)}”.")
            partial.rename(output)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(output.parent)


def _copy(merge: _Merge, stream: IO[bytes]) -> None:
    for part, items in itertools.groupby(merge.best.items(), key=lambda item: item[1].part):
        with part.open("rb") as source:
            for item_id, place in items:
                source.seek(place.start)
                line = source.read(place.size_bytes)
                record = parse_line(line)
                if record is None or record["item_id"] != item_id:
                    raise JournalError(
                        f"“{part}” was changed while it was read.", "Merge again when nobody changes it."
                    )
                stream.write(line.rstrip(b"\r\n") + b"\n")
