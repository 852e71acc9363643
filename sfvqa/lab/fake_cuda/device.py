"""CUDA devices that are not there: for a while torch finds them, and every tensor is a fake one."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch._library.fake_impl import FakeImplCtx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sfvqa.lab.fake_cuda.libraries import fake_libraries
from sfvqa.lab.fake_cuda.watch import Seen, Watch, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_GUARD = Path(__file__).with_name("guard.cpp")


def why_not() -> str | None:
    """What is missing, None where fake devices can be had."""
    if torch.version.cuda or torch.version.hip:
        return "this torch has CUDA of its own, which fake devices would replace"
    return None if _compiler() else "there is no C++ compiler"


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))


@functools.cache
def _load_guard() -> None:
    """Compile the guard and register it, which lasts as long as the process; it changes nothing of what is on CPUs."""
    if reason := why_not():
        raise RuntimeError(f"There are no fake CUDA devices: {reason}.")
    home = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "guard.so")
        found = [f"-I{home / 'include'}", f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}"]
        command = [
            _compiler() or "",
            "-std=c++20",
            "-shared",
            "-fPIC",
            str(_GUARD),
            *found,
            "-lc10",
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True)
        torch.ops.load_library(library)


class FakeCuda:
    """`num_devices` CUDA devices with `free_bytes` each, inside of its `with` blocks; a model stays usable in later
    ones. `watch` sees what they are asked to do.
    """

    def __init__(self, num_devices: int = 1, free_bytes: int = 140 * 10**9) -> None:
        _load_guard()
        self.watch = Watch()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._num_devices, self._free_bytes = num_devices, free_bytes
        self._stack = ExitStack()

    @contextmanager
    def seeing(self) -> Iterator[Seen]:
        """What is seen while the block runs."""
        before, self.watch.seen = self.watch.seen, Seen()
        try:
            yield self.watch.seen
        finally:
            self.watch.seen = before

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._fake)  # first: where torch finds no device it avoids to touch one
            stack.enter_context(fake_libraries())
            for name, value in self._replaced_in_torch().items():
                stack.enter_context(patch.object(torch.cuda, name, value))
            stack.enter_context(patch.object(torch, "Generator", _Generator))
            stack.enter_context(patch.object(FakeTensor, "tolist", lambda tensor: self.watch.listed(tensor)))
            stack.enter_context(patch.object(Tensor, "data_ptr", _data_ptr))
            stack.enter_context(patch.object(FakeImplCtx, "new_dynamic_size", self.watch.unknown_size))
            stack.enter_context(self.watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _replaced_in_torch(self) -> dict[str, Any]:
        watch = self.watch

        def synchronize(_device: object = None) -> None:
            watch.wait(f"{place()} (synchronize)")

        class Graph:
            def replay(self) -> None:
                watch.start("replay")

            def pool(self) -> None: ...

        class Event:
            def __init__(self, **_: bool) -> None: ...

            def record(self, _stream: object = None) -> None: ...

            def synchronize(self) -> None:
                watch.wait(f"{place()} (event)")

        class Stream:
            def __init__(self, device: torch.device | None = None) -> None:
                self.device = device

            def record_event(self) -> Event:
                return Event()

            def synchronize(self) -> None:
                watch.wait(f"{place()} (stream)")

        @contextmanager
        def graph(_graph: Graph, *, stream: Stream | None = None, **_: object) -> Iterator[None]:
            of = stream.device if stream else None
            watch.recorded_device = 0 if of is None else of.index or 0  # torch's own stream is the first device's
            try:
                yield
            finally:
                watch.recorded_device = None

        return {
            "is_available": lambda: True,
            "device_count": lambda: self._num_devices,
            "mem_get_info": lambda _device=None: (self._free_bytes, self._free_bytes),
            "get_device_capability": lambda _device=None: (9, 0),
            "get_per_process_memory_fraction": _memory_fraction,
            "memory_reserved": lambda _device=None: 0,
            "max_memory_allocated": lambda _device=None: 0,
            "empty_cache": lambda: None,
            "synchronize": synchronize,
            "CUDAGraph": Graph,
            "Event": Event,
            "current_stream": lambda _device=None: Stream(),
            "Stream": Stream,
            "device": lambda _device: nullcontext(),
            "graph": graph,
        }


def _memory_fraction(device: torch.device | int | None = None) -> float:
    """As torch, which here takes no `cuda` without a number."""
    if isinstance(device, torch.device) and device.index is None:
        raise ValueError(f"Expected a torch.device with a specified index, but got: {device}")
    return 1.0


class _Generator(torch.Generator):
    """On the CPU, wherever it is asked for: nothing that is drawn is known."""

    def __new__(cls, _device: object = "cpu") -> Self:
        return super().__new__(cls)


_real_data_ptr: Callable[[Tensor], int] = Tensor.data_ptr


def _data_ptr(tensor: Tensor) -> int:
    """Where accelerate only asks whether two tensors are one."""
    return id(tensor) if isinstance(tensor, FakeTensor) else _real_data_ptr(tensor)
