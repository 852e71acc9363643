"""What runs on a worker: one loaded model, and the batch runner on the share it is given. Knows nothing of Ray."""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import sfvqa
from sfvqa.batch.cluster.placement import WorkerSize
from sfvqa.batch.item import Item
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import BatchEvent, BatchSummary, ItemFinished
from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.question_answerer import VideoQuestionAnswerer

_SECONDS_BETWEEN_TALLIES = 0.5


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer with these options, and what there is to say about how it was loaded."""

    answerer: VideoQuestionAnswerer
    options: BatchOptions
    notices: tuple[str, ...] = ()


class Loader(Protocol):
    """Loads the model where it is called; what is to be decided by the machine is decided there."""

    def __call__(self, options: BatchOptions, size: WorkerSize) -> Loaded:
        """A model and options fit for a worker of this size."""


@dataclass(frozen=True)
class Ready:
    """What a worker says once its model is loaded."""

    host: str
    pid: int
    notices: tuple[str, ...]


class Worker:
    """Holds one model in a process of its own, which Ray starts and watches.

    What it yields is all that is kept of its work: it writes no file of records.
    """

    def load(
        self,
        loader: Loader,
        options: BatchOptions,
        size: WorkerSize,
        done: Mapping[str, str],
        version: str,
    ) -> Ready:
        """Load the model; `done` has the items that have a record. What is wrong is raised with the host's name."""
        host = platform.node()
        try:
            if version != sfvqa.__version__:
                raise UsageError(
                    f"sfvqa is {sfvqa.__version__} there, and {version} where the batch was started.",
                    "Install the same version on every node.",
                )
            self._loaded = loader(options, size)
        except SfvqaError as error:
            raise type(error)(f"On {host}: {error.message}", error.remedy) from error
        self._keeper = _KeptElsewhere(done)
        return Ready(host, os.getpid(), self._loaded.notices)

    def answer(self, items: Sequence[Item]) -> Iterator[BatchEvent | BatchSummary]:
        """Run a batch of these items: every one that is finished, a tally now and then, and the summary at the end."""
        loaded, said_at = self._loaded, time.monotonic()
        events = run_batch(loaded.answerer, items, self._keeper, loaded.options)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                yield end.value
                return
            if isinstance(event, ItemFinished) or time.monotonic() - said_at >= _SECONDS_BETWEEN_TALLIES:
                said_at = time.monotonic()
                yield event


class _KeptElsewhere(RecordKeeper):
    """Knows what was done before; records are yielded, and kept by whoever takes them."""

    def __init__(self, done: Mapping[str, str]) -> None:
        self._done = done

    @property
    def done(self) -> Mapping[str, str]:
        return self._done

    def append(self, record: Mapping[str, object]) -> None:
        """Nothing: the event that is yielded has it."""
