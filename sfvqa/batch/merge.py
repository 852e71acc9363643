"""Merges files of records, from shards or other machines, into one file with one record an item."""

import contextlib
import itertools
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sfvqa.batch.journal import cannot_be_written, is_stream, move_aside, open_locked, real_path, sync_folder
from sfvqa.batch.record import OK, Line, check_records, parse_line, read_record_lines
from sfvqa.errors import JournalError, UsageError


@dataclass(frozen=True)
class _Place:
    """Where a record is, and what it is compared by with another of its item."""

    part: Path
    start: int
    size_bytes: int
    is_ok: bool
    finished: str
    answer: object


@dataclass
class Merge:
    """What was merged: the `best` record of each item, how many others were dropped and why, and notices for the user.

    `num_repeated` ok records repeat an earlier one; `num_superseded` error records gave way to an answer or a newer
    error; `conflicts` are the ids of items with different answers, of which the first was kept.
    """

    best: dict[str, _Place] = field(default_factory=dict)
    num_repeated: int = 0
    num_superseded: int = 0
    conflicts: dict[str, None] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def num_ok(self) -> int:
        """Items with an answer."""
        return sum(place.is_ok for place in self.best.values())

    def learn(self, part: Path, line: Line) -> None:
        """Compare a record with the best of its item."""
        record = line.record
        assert record is not None
        item_id, is_ok = record["item_id"], record["status"] == OK
        place = _Place(part, line.start, line.size_bytes, is_ok, str(record.get("finished", "")), record.get("answer"))
        before = self.best.setdefault(item_id, place)
        if before is place:
            return
        if is_ok and before.is_ok:
            if place.answer == before.answer:
                self.num_repeated += 1
            else:
                self.conflicts[item_id] = None
            return
        self.num_superseded += 1
        if is_ok or (not before.is_ok and place.finished >= before.finished):
            self.best[item_id] = place


def merge_records(parts: Sequence[Path], output: Path, *, overwrite: bool = False) -> Merge:
    """Write the records of `parts` to `output`, one an item, unchanged, in the order in which items first come.

    The first ok record of an item wins, else the error that finished last. Torn and damaged lines are left out. The
    output appears whole or not at all; an existing one is moved aside with `overwrite`. UsageError for one without, and
    for a part that cannot be read or is not a file of records; JournalError for what cannot be written.
    """
    if is_stream(output):
        raise UsageError(f"“{output}” is not a regular file.", "Give the name of a file.")
    if os.path.lexists(output) and not overwrite:
        raise UsageError(f"“{output}” already exists.", "Choose another name, or use --overwrite to move it aside.")
    merge = Merge()
    for part in parts:
        for line in read_record_lines(part, merge.notices):
            merge.learn(part, line)
    try:
        _write_whole(merge, real_path(output))
    except OSError as error:
        raise cannot_be_written(output, error) from error
    return merge


def _write_whole(merge: Merge, output: Path) -> None:
    """Write beside the output, then rename. OSError; JournalError while an existing output is in use."""
    with contextlib.ExitStack() as stack:
        locked = stack.enter_context(open_locked(output)) if output.exists() else None
        if locked is not None:
            check_records(locked, str(output))
        partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
        try:
            with partial.open("xb") as stream:
                _copy(merge, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if locked is not None:
                locked.close()  # Windows renames no file that is open
            if output.exists():
                merge.notices.append(f"The old “{output}” is now “{move_aside(output)}”.")
            partial.rename(output)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(output.parent)


def _copy(merge: Merge, stream: IO[bytes]) -> None:
    for part, items in itertools.groupby(merge.best.items(), key=lambda item: item[1].part):
        with part.open("rb") as source:
            for item_id, place in items:
                source.seek(place.start)
                line = source.read(place.size_bytes)
                record = parse_line(line)
                if record is None or record["item_id"] != item_id:
                    raise JournalError(
                        f"“{part}” was changed while it was read.", "Merge again once nothing changes it."
                    )
                stream.write(line.rstrip(b"\r\n") + b"\n")
