"""What workers of the tests run in place of a model: it waits at a gate, or dies, or fails. Imported by the workers."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfvqa.batch.cluster.connection import Resources
from sfvqa.batch.cluster.worker import Loaded
from sfvqa.batch.plan import BatchOptions
from sfvqa.errors import ModelNotDownloadedError
from tests.batch.answerer import FakeAnswerer

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class FakeLoader:
    """Gives a FakeAnswerer that keeps its word files in `folder`, and notices that say which process it is in.

    - `has_gate`: after its first answer a worker says in which process it waits, until the gate opens.
    - `deadly`: a video that ends the process; `stopping`: one that stops it, so that it lives and does nothing.
    - `loses_gpu`: the first worker that answers loses its GPU.
    - `fails`: no answer comes to anything; `is_missing`: there is no model.
    """

    folder: Path
    has_gate: bool = False
    deadly: str = ""
    stopping: str = ""
    loses_gpu: bool = False
    fails: bool = False
    is_missing: bool = False

    def __call__(self, options: BatchOptions, size: Resources) -> Loaded:
        """On the worker."""
        if self.is_missing:
            raise ModelNotDownloadedError("The model is not on this machine.", "Fetch it.")
        answerer = FakeAnswerer(on_chunk=self._on_chunk, on_answer=self._on_answer)
        notices = (f"process {os.getpid()}", f"{size.num_cpus} cores, {os.environ.get('OMP_NUM_THREADS')} threads")
        return Loaded(answerer, options, notices)

    @property
    def waiting(self) -> list[int]:
        """The processes that wait at the gate, or have."""
        return [int(path.suffix[1:]) for path in self.folder.glob("waiting.*")]

    def open_gate(self) -> None:
        """Let all go on."""
        (self.folder / "open").touch()

    def _on_chunk(self, name: str, _num_wanted: int) -> None:
        if name == self.deadly:
            os._exit(9)
        if name == self.stopping:
            (self.folder / f"stopped.{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    def _on_answer(self, _questions: list[str], _stop: Callable[[], bool]) -> None:
        if self.fails:
            raise ValueError("no such word")
        if self.loses_gpu and _is_first(self.folder / "gpu"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if not self.has_gate or _is_first(self.folder / f"first.{os.getpid()}"):
            return
        (self.folder / f"waiting.{os.getpid()}").touch()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (self.folder / "open").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def _is_first(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
