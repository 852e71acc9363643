"""A Ray cluster of two nodes with one core each, on this machine, in a folder and an environment of its own."""

import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sfvqa

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, an extra, is not installed")

_NODE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sockets, whose paths must be short, and finds no cluster of anybody else."""
    folder = Path(tempfile.mkdtemp(prefix="sfvqa-", dir="/tmp"))
    own = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",  # else a token would be left in the user's home
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(sfvqa.__file__).parents[1]),  # for what workers import of the tests
    }
    before = {name: os.environ.get(name) for name in (*own, "RAY_ADDRESS")}
    os.environ.update(own)
    os.environ.pop("RAY_ADDRESS", None)
    yield folder
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(ray_folder: Path) -> Iterator[Any]:
    """The cluster, whose second node can be killed."""
    from ray.cluster_utils import Cluster

    assert ray_folder.is_dir()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    started = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    started.add_node(**_NODE)
    signal.signal(signal.SIGTERM, on_sigterm)  # in place of which Ray sets its own
    yield started
    started.shutdown()


def processes_of(ray_folder: Path) -> list[int]:
    """Those of Ray that run on its sockets in that folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(f"{ray_folder}/") in command:
            found.append(int(path.parent.name))
    return found
