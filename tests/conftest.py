"""Fixtures shared by all parts, and the rule about tests that need CUDA."""

import contextlib
import gc
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# Models, downloads, encoded videos and servers of whoever runs the tests are none of their business.
# A shell script starts what it puts into the background with Ctrl-C ignored; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["SFVQA_MODELS"] = os.devnull
_OWN = Path(tempfile.gettempdir(), f"sfvqa-tests-{os.getpid()}")
os.environ["SFVQA_REVISIONS"] = str(_OWN / "revisions.json")
os.environ["SFVQA_CACHE_DIR"] = str(_OWN / "cache")
os.environ["SFVQA_RUNTIME_DIR"] = str(_OWN / "run")
# Workers side by side would fight for the cores with the threads of each.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later look for garbage, which many tests ask for."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests without CUDA, unless `SFVQA_REQUIRE_CUDA=1` says that skipping is a failure."""
    needing = [item for item in items if item.get_closest_marker("cuda")]
    if not needing or os.environ.get("SFVQA_REQUIRE_CUDA") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="no CUDA device (SFVQA_REQUIRE_CUDA=1 makes this a failure)"))


@pytest.fixture(scope="session", autouse=True)
def _one_machine() -> Iterator[None]:
    """A CPU without bfloat16, and torch without CUDA's libraries, so that tests compute and estimate alike anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfvqa.checkpoints.host.CPUINFO", Path(os.devnull))
        patch.setattr("sfvqa.checkpoints.memory._is_cuda_build", lambda: False)
        yield


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    """Whatever happened, reading processes are gone afterwards; a server of other tests may have a spare one."""
    before = _reading_processes()
    yield
    deadline = time.monotonic() + 1
    while not _reading_processes() <= before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _reading_processes() <= before


def _reading_processes() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "readers.isolated" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found
