"""The Ray cluster a batch runs on: found or started, quietly, and left or ended again."""

import contextlib
import importlib.util
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfvqa.batch.cluster.placement import Node
from sfvqa.errors import ClusterError, UsageError

_SECONDS_TO_ANSWER = 5.0
_LONGEST_REASON = 200
_OWN = "local"  # Ray's word for a new cluster


def check_installed() -> None:
    """UsageError where Ray, which is an extra, is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("Ray is not installed.", "Install it with pip install 'sfvqa[ray]', or leave out --ray.")


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to the cluster at `address`, else to one that Ray finds, else to one that is started here.

    One that was started ends with the block, and its workers with it; of another, only what this process put there.
    Raises ClusterError where nothing answers at the address.
    """
    check_installed()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports nothing
    with _nothing_printed():
        import ray

        try:
            with _own_signals():
                _connect(address)
            yield
        finally:
            ray.shutdown()


def alive_nodes() -> list[Node]:
    """What each node has that is there now, whoever uses it."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(float(has.get("CPU", 0)), float(has.get("GPU", 0))) for has in found]


def check_own_node() -> None:
    """ClusterError once Ray has ended on this machine: at the next thing it is asked for, Ray ends this process too."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own):
        raise ClusterError(
            "Ray has ended on this machine (killed, crashed, or out of memory).",
            "Run the same command again, after `ray start` where it was you who started Ray.",
        )


def free_resources() -> Node:
    """What nobody uses now, of all nodes together."""
    import ray

    free = ray.available_resources()
    return Node(float(free.get("CPU", 0)), float(free.get("GPU", 0)))


def _connect(asked: str | None) -> None:
    """Connect as ray.init does, but for an address at which nothing listens: that would take Ray minutes to say."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "include_dashboard": False}
    said = asked or os.environ.get("RAY_ADDRESS")
    address = said or _current_cluster()
    if said and not _may_answer(said):
        raise _no_answer(said, "nothing listens there")
    if address is None or not _may_answer(address):  # the current cluster may have been killed
        address = said = _OWN
    try:
        ray.init(said, **quiet)  # without an address Ray finds the current one itself, and uses its token
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_answer(address, " ".join(str(error).split())[:_LONGEST_REASON].rstrip(".")) from error


def _current_cluster() -> str | None:
    """Where the cluster is that `ray start` began on this machine, as it leaves word."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray has it
    with contextlib.suppress(OSError):
        return Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    return None


def _may_answer(address: str) -> bool:
    """Whether anything listens at HOST:PORT; what is no such thing is for Ray to judge."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError):
        return False
    return True


def _no_answer(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"No Ray cluster answers at {address}: {reason}.",
        "Start one with `ray start --head`, or leave out --ray-address and RAY_ADDRESS to have one started; one that "
        "asks for a token needs RAY_AUTH_MODE=token.",
    )


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Keep standard output clean: whatever it is told, Ray prints there when a worker or a node ends."""
    if os.environ.get("SFVQA_DEBUG", "") not in ("", "0"):
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray sets its own in place of."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
