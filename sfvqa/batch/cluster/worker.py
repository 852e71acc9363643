"""What runs on a worker: one loaded model, and the batch runner on the shares it is given. Knows nothing of Ray."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sfvqa
from sfvqa.batch.cluster.connection import Resources
from sfvqa.batch.item import Item
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchModel, BatchOptions, default_num_readers
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import BatchEvent, ItemFinished, Tally
from sfvqa.checkpoints.find import identify_model
from sfvqa.checkpoints.gpus import take_part, usable_gpus
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.errors import ModelError, SfvqaError, UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video.readers.local_file import hash_content

_SECONDS_BETWEEN_TALLIES = 0.5


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer with these options, and notices about how it was loaded."""

    answerer: VideoQA
    options: BatchOptions
    notices: tuple[str, ...] = ()


Loader = Callable[[BatchOptions, Resources], Loaded]
"""Loads the model for a worker of a size, on the machine where it is called, which decides what was left open."""


@dataclass(frozen=True)
class Ready:
    """What a worker says once its model is loaded."""

    host: str
    notices: tuple[str, ...]


class Worker:
    """Holds one model in a process of its own, which Ray starts and watches. It yields records, and writes no file."""

    def load(
        self, loader: Loader, options: BatchOptions, size: Resources, done: Mapping[str, str], version: str
    ) -> Ready:
        """Load the model; `done` has the items that have a record. Errors are raised with the host's name."""
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
        self._keeper = RecordKeeper(done)
        return Ready(host, self._loaded.notices)

    def answer(self, items: Sequence[Item]) -> Iterator[BatchEvent | Tally]:
        """Run a batch: yield every item that is finished, how far it is now and then, and the final tally last."""
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


@dataclass(frozen=True)
class ModelLoader:
    """Loads `model`, whose weights must be `weights`, and opens the video cache of the machine where it is called.

    `num_readers` None depends on the worker's cores.
    """

    model: BatchModel
    weights: str
    open_cache: Callable[[], VideoCache | None]
    num_readers: int | None

    def __call__(self, options: BatchOptions, size: Resources) -> Loaded:
        """Load it. Raises ModelError, UsageError, and OutOfMemoryError where what was left open cannot fit."""
        # A worker without a GPU must not take one that Ray gave to another.
        keeps_off = self.model.settings.device == "auto" and not size.num_gpus
        settings = replace(self.model.settings, device="cpu") if keeps_off else self.model.settings
        if 0 < size.num_gpus < 1 and usable_gpus():  # others have the rest of it
            take_part(size.num_gpus)
        found = identify_model(settings.name, random_weights=settings.random_weights, adapter=settings.adapter)
        if found != self.weights:
            raise ModelError(
                f"The weights of {settings.name} ({found}) differ from those where the batch was started "
                f"({self.weights}).",
                "Install the same model on every node.",
            )
        plan, options = replace(self.model, settings=settings).plan(options)
        notices = (*plan.notices, *plan.check())
        cache = self.open_cache()
        answerer = VideoQA(load_checkpoint(plan.settings), video_cache=cache)
        num_cores = int(size.num_cpus)
        num_readers = self.num_readers or default_num_readers(num_cores)
        threads = options.reading.num_threads or max(1, num_cores // num_readers)
        options = replace(
            options,
            num_readers=num_readers,
            reading=replace(options.reading, num_threads=threads),
            content_of=hash_content if cache is None else cache.content_of,
        )
        return Loaded(answerer, options, notices)
