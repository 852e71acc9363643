"""Rows that are learned from as they come, out of shards: in which order, and where a run goes on that was stopped.

Each process reads its part of the shards once an epoch, one row after another, and lays the videos in its folder until
they have been learned from; the processes of --num-workers read those files, as they read any. So the order depends on
seed and number of processes alone, and disk holds a block of rows at a time, and what is read ahead.
"""

import json
import logging
import os
import random
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch.utils.data import DataLoader

from sfvqa.errors import SfvqaError, UsageError, VideoError
from sfvqa.training.annotations import Example, Fault, Source, read_row
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import VideoDataset, collate
from sfvqa.training.shards import Shard, ShardRow, Streamed, is_streamed
from sfvqa.wording import plural

logger = logging.getLogger(__name__)


def streamed_sources(sources: Sequence[Source], options: FineTuning) -> list[Streamed]:
    """All sources with their shards, if any of them is to be streamed: then files of conversations are so as well.

    UsageError for sources that cannot be found, and for what cannot be done with rows that are not known before they
    come.
    """
    if not any(map(is_streamed, sources)):
        if options.shuffle_rows != FineTuning.shuffle_rows:
            raise UsageError("shuffle_rows has no effect: nothing is streamed.", "Leave it out.")
        return []
    if options.num_steps is None:
        raise UsageError("A stream has no length, so that --num-epochs says no number of steps.", "Give --num-steps.")
    if options.group_by_length:
        raise UsageError("A stream cannot be grouped by length: its rows come one by one.", "Leave it out.")
    if options.validation_share is not None:
        raise UsageError(
            "No share of a stream can be held out: which videos it has is not known before they come.",
            "Name a file of conversations with --validation.",
        )
    return [Streamed.of(source) for source in sources]


# --- in which order ---------------------------------------------------------------------------------------------------


@dataclass
class Position:
    """Where a stream is: the epoch; for each source, at which row of which shard of its order; whose turn it is."""

    epoch: int
    at: list[tuple[int, int]]
    turn: int = 0


@dataclass(frozen=True)
class Order:
    """In which order the rows of several sources come to one process of so many; they take turns, row by row.

    A source whose shards can be dealt out evenly is dealt out by shards, else by rows. With `is_shuffled` the order of
    its shards is drawn anew for each epoch.
    """

    sources: Sequence[Streamed]
    seed: int
    is_shuffled: bool
    process: tuple[int, int] = (0, 1)

    def start(self, epoch: int) -> Position:
        """Where an epoch begins."""
        return Position(epoch, [(0, 0)] * len(self.sources))

    def rows(self, position: Position) -> Iterator[ShardRow]:
        """The rest of an epoch; `position` is moved on with each row."""
        lanes = [self._lane(number, position) for number in range(len(self.sources))]
        num_ended = 0
        while num_ended < len(lanes):
            found = next(lanes[position.turn], None)
            position.turn = (position.turn + 1) % len(lanes)
            num_ended = num_ended + 1 if found is None else 0
            if found is not None:
                yield found

    def _lane(self, source: int, position: Position) -> Iterator[ShardRow]:
        plan = self._plan(source, position.epoch)
        visit, start = position.at[source]
        for place, (shard, share) in enumerate(plan[visit:], start=visit):
            for number, row in enumerate(islice(shard.rows(), start, None), start=start):
                position.at[source] = (place, number + 1)
                if self._is_mine(source, shard, number, share):
                    yield row
            start = 0
            position.at[source] = (place + 1, 0)

    def _plan(self, source: int, epoch: int) -> list[tuple[Shard, float]]:
        """The shards of a source in the order of an epoch, each as often as it weighs, and the share to take of it."""
        streamed, plan = self.sources[source], list[tuple[Shard, float]]()
        times = int(streamed.source.weight)
        for visit, share in enumerate([*[1.0] * times, streamed.source.weight - times]):
            shards = list(streamed.shards)
            if self.is_shuffled:
                random.Random(f"{self.seed} {epoch} {source} {visit}").shuffle(shards)
            mine = shards[self.process[0] :: self.process[1]] if self._is_dealt_by_shards(source) else shards
            plan += [(shard, share) for shard in mine if share > 0]
        return plan

    def _is_mine(self, source: int, shard: Shard, number: int, share: float) -> bool:
        if not self._is_dealt_by_shards(source) and number % self.process[1] != self.process[0]:
            return False
        return share == 1 or random.Random(f"{self.seed} {shard.file} {number}").random() < share

    def _is_dealt_by_shards(self, source: int) -> bool:
        return len(self.sources[source].shards) % self.process[1] == 0


# --- what is drawn ----------------------------------------------------------------------------------------------------


class RowsOnDisk:
    """Makes examples of rows, whose videos lie in `folder` until they are let go."""

    def __init__(self, folder: Path, video_folder: Path) -> None:
        self.folder, self._video_folder = folder, video_folder
        self._num_written = 0
        self._ignored: set[str] = set()

    def example(self, found: ShardRow) -> Example | Fault:
        """One row, or what is wrong with it. SfvqaError where there is no room for its video."""
        made, ignored = read_row(found.place, found.row, self._video_folder, [name for name, _ in found.shown])
        if new := set(ignored) - self._ignored:
            self._ignored |= new
            logger.warning("Not everything in %s is read; ignored: %s.", found.place.file, ", ".join(sorted(new)))
        if isinstance(made, Fault) or not found.shown:
            return made
        [(name, data)] = found.shown  # of two videos it is a fault
        path = self.folder / f"{self._num_written:09d}-{_UNUSUAL.sub('_', PurePosixPath(name).name)[-_LONGEST_NAME:]}"
        self._num_written += 1
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise SfvqaError(
                f"The video of {found.place} cannot be laid in {self.folder}: {error.strerror}.",
                "Make room, or hold fewer rows (--shuffle-rows).",
            ) from error
        return replace(made, video=path)

    def let_go(self, example: Example) -> None:
        """Delete its video, if it came with the row."""
        if example.video is not None and example.video.parent == self.folder:
            example.video.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all of them, and the folder above, which processes share, if these were the last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()


_UNUSUAL = re.compile(r"[^\w.-]")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Drawn:
    """A row of tokens, by its example and its `number` there; at which `place` of all that were drawn, from 1."""

    example: Example
    number: int
    place: int
    epoch: int


@dataclass(frozen=True)
class _UnderWay:
    """A row that was drawn and not yet learned from, the state behind it, and whether it is the last of its example."""

    drawn: Drawn
    state: dict[str, Any]
    is_last: bool


_BEGINNING: dict[str, Any] = {"epoch": 0, "block": 0, "at": None, "turn": 0, "num_drawn": 0, "num_skipped": 0}


class Stream:
    """Draws the rows of one process, epoch after epoch: a block at a time, which is shuffled.

    `state` is what it goes on from: where the block began that the last row which was learned from is of, and how many
    rows of that block have been. `refuse` may raise an error for an example that must not be learned from.
    """

    def __init__(
        self,
        sources: Sequence[Streamed],
        rows: RowsOnDisk,
        options: FineTuning,
        *,
        process: tuple[int, int] = (0, 1),
        state: dict[str, Any] | None = None,
        refuse: Callable[[Example], None] = lambda _: None,
    ) -> None:
        self._order = Order(sources, options.seed, options.shuffle_rows > 1, process)
        self._rows, self._options, self._refuse = rows, options, refuse
        self._under_way: deque[_UnderWay] = deque()
        self.state = state or _BEGINNING
        self.num_skipped = int(self.state["num_skipped"])
        self._has_left_out = False

    def draw(self, num_rows: Callable[[Example], int]) -> Iterator[Drawn]:
        """Yield rows of tokens without end; `num_rows` says how many an example has."""
        place = 0
        for begin, block in self._blocks():
            numbered = [(example, number) for example in block for number in range(num_rows(example))]
            for count, (example, number) in enumerate(numbered, start=1):
                is_last = number + 1 == num_rows(example)
                if count > begin["num_drawn"]:
                    place += 1
                    drawn = Drawn(example, number, place, begin["epoch"])
                    self._under_way.append(_UnderWay(drawn, begin | {"num_drawn": count}, is_last))
                    yield drawn
                elif is_last:
                    self._rows.let_go(example)

    def _blocks(self) -> Iterator[tuple[dict[str, Any], list[Example]]]:
        """Shuffled blocks without end, each with the state to go on from before it, or within the first."""
        state = self.state
        while True:
            position = self._order.start(state["epoch"])
            if state["at"] is not None:
                position.at, position.turn = [(visit, row) for visit, row in state["at"]], state["turn"]
            examples, is_empty = self._examples(self._order.rows(position)), state["at"] is None
            begin = state | {"at": list(position.at), "turn": position.turn}
            while block := list(islice(examples, self._options.shuffle_rows)):
                is_empty = False
                random.Random(f"{self._options.seed} {begin['epoch']} {begin['block']}").shuffle(block)
                yield begin, block
                at = {"at": list(position.at), "turn": position.turn}
                begin = begin | at | {"block": begin["block"] + 1, "num_drawn": 0}
            if is_empty:
                raise _nothing_to_learn_from()
            state = _BEGINNING | {"epoch": state["epoch"] + 1}

    def first_block(self) -> list[Example]:
        """The first examples, as many as are shuffled at a time. UsageError where there are none."""
        if block := list(islice(self._examples(self._order.rows(self._order.start(0))), self._options.shuffle_rows)):
            return block
        raise _nothing_to_learn_from()

    @property
    def said(self) -> str:
        """What it is, in words."""
        shards = sum(len(each.shards) for each in self._order.sources)
        return f"a stream of {plural(shards, 'shard')} from {plural(len(self._order.sources), 'source')}"

    def _examples(self, rows: Iterator[ShardRow]) -> Iterator[Example]:
        for found in rows:
            made = self._rows.example(found)
            if isinstance(made, Fault):
                raise UsageError(f"{made.place}: {made.error.message}", made.error.remedy) from made.error
            if self._options.stage is Stage.BRIDGE and made.video is None:
                if not self._has_left_out:
                    logger.warning("Stage 1 leaves out rows without a video; %s is the first.", made.called)
                self._has_left_out = True
                continue
            self._refuse(made)
            yield made

    def learned(self, place: int, num_skipped: int = 0) -> None:
        """Note that all rows up to a place have been learned from, but for those that were skipped since the last."""
        self.num_skipped += num_skipped
        while self._under_way and self._under_way[0].drawn.place <= place:
            done = self._under_way.popleft()
            self.state = done.state
            if done.is_last:
                self._rows.let_go(done.drawn.example)

    def save(self, folder: Path) -> None:
        """Write the state, whole or not at all, into the folder of a saved state."""
        path = _state_file(folder, self._order.process[0])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.state | {"num_skipped": self.num_skipped}), encoding="utf-8")
        partial.replace(path)

    def close(self) -> None:
        """Delete the videos that lie on disk, and say how many could not be read."""
        self._rows.close()
        if self.num_skipped:
            logger.warning("%s could not be read, and were not learned from.", plural(self.num_skipped, "row"))


def _nothing_to_learn_from() -> UsageError:
    remedy = "Give more rows than there are processes; stage 1 learns from rows with a video alone."
    return UsageError("The stream has no rows to learn from.", remedy)


def read_state(folder: Path, process: int) -> dict[str, Any]:
    """What `Stream.save` wrote. UsageError where it is missing or damaged."""
    path = _state_file(folder, process)
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", f"Delete {folder} to go on from the state before."
        ) from error
    return state


def _state_file(folder: Path, process: int) -> Path:
    return folder / f"stream_{process}.json"


def process_of_run() -> tuple[int, int]:
    """The number of this process, of so many, as launchers say it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


# --- what is learned from ---------------------------------------------------------------------------------------------


class StreamedRows(VideoDataset):
    """One item a row of tokens, which is named by itself, as it was drawn."""

    skip_unreadable = False

    def num_rows(self, example: Example) -> int:
        """How many rows of tokens an example has."""
        return len(self.rows_of(example))

    def __getitem__(self, drawn: Any) -> dict[str, Any]:
        """Read one row; errors as those of VideoDataset, by the name of the row. What is skipped is `unreadable`."""
        where = {"place": drawn.place, "epoch": drawn.epoch}
        try:
            return self.item(drawn.example, drawn.number) | where
        except VideoError as error:
            said = f"{drawn.example.called}: {error.message}"
            if self.skip_unreadable:
                return where | {"unreadable": said}
            raise type(error)(said, error.remedy) from error


class StreamBatches:
    """Batches without end, for a trainer to go through as it does through a loader; smaller where rows are skipped."""

    def __init__(self, stream: Stream, rows: StreamedRows, batch_size: int, num_workers: int) -> None:
        self._stream, self._rows = stream, rows
        self._batch_size, self._num_workers = batch_size, num_workers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        last_epoch, num_skipped = self._stream.state["epoch"], 0
        for batch in DataLoader(
            self._rows,
            batch_size=self._batch_size,
            sampler=self._stream.draw(self._rows.num_rows),
            num_workers=self._num_workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # no draw from torch's own, which goes on in another place after --resume
        ):
            epoch = batch.pop("epoch")
            for said in batch.pop("unreadable"):
                num_skipped += 1
                logger.warning("%s It is left out.", said)
            if "input_ids" in batch:
                yield batch | {"num_skipped": num_skipped}
                last_epoch, num_skipped = epoch, 0
            elif epoch > last_epoch + 1:
                raise UsageError("In a whole epoch of the stream no video can be read.", "Check some of them.")


def _collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of those that could be read, if any."""
    read = [item for item in items if "unreadable" not in item]
    batch = collate(read) if read else {}
    said = [item["unreadable"] for item in items if "unreadable" in item]
    return batch | {"place": items[-1]["place"], "epoch": items[-1]["epoch"], "unreadable": said}
