"""The Ray cluster: what is asked of it, how many workers of which size it has room for, and the connection to it."""

import contextlib
import importlib.util
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfvqa.errors import ClusterError, UsageError
from sfvqa.wording import plural

_ROUNDING = 1e-6  # three workers with a third of a GPU each fill one
_SECONDS_TO_ANSWER = 5.0
_LONGEST_REASON = 200
_OWN = "local"  # Ray's word for a new cluster


@dataclass(frozen=True)
class ClusterOptions:
    """How many workers run where; UsageError for what cannot be.

    - `address` None is the cluster that Ray finds (RAY_ADDRESS, else one on this machine), else one of our own.
    - `num_workers` None: as many as fit; `gpus_per_worker` None: one where the cluster has any. Below 1 they share.
    - `device` is the one asked for: `cpu` and `mps` use none of the GPUs that Ray counts.
    """

    address: str | None = None
    num_workers: int | None = None
    gpus_per_worker: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UsageError(f"{self.num_workers} workers are asked for.", "Ask for at least 1 (--workers).")
        gpus = self.gpus_per_worker
        if gpus is not None and (not 0 <= gpus < 1e6 or (gpus > 1 and gpus != int(gpus))):
            raise UsageError(
                f"A worker cannot have {gpus:g} GPUs.", "--gpus-per-worker is a part of one, such as 0.5, or whole."
            )
        if gpus == 0 and self.device.startswith("cuda"):
            raise UsageError(f"--device {self.device} needs a GPU.", "Leave out --gpus-per-worker 0.")
        if gpus and self.device in ("cpu", "mps"):
            raise UsageError(f"--device {self.device} needs no GPUs of Ray.", "Leave out --gpus-per-worker.")
        if ":" in self.device:
            raise UsageError("Ray decides which GPU a worker gets.", f"Use --device cuda, not {self.device}.")
        if (self.address or "").startswith("ray://"):
            raise UsageError(
                "Ray Client (ray://) does not stream what workers yield.",
                "Run this on a node of the cluster, with --ray-address HOST:PORT or auto.",
            )


@dataclass(frozen=True)
class Resources:
    """What Ray counts on one machine, or what one worker has to itself."""

    num_cpus: float
    num_gpus: float

    def num_on(self, node: "Resources") -> int:
        """How many workers of this size a node has room for, if nothing else runs there."""
        rooms = [
            math.floor(there / needed + _ROUNDING)
            for there, needed in ((node.num_cpus, self.num_cpus), (node.num_gpus, self.num_gpus))
            if needed
        ]
        return min(rooms, default=0)


@dataclass(frozen=True)
class Placement:
    """`num_workers` of a size, of which `num_fitting` have room on the nodes that there are now."""

    size: Resources
    num_workers: int
    num_fitting: int


def place_workers(nodes: Sequence[Resources], options: ClusterOptions) -> Placement:
    """Decide what was left open: a worker a GPU, or else a worker a node, with the node's cores.

    The cores of a node with GPUs are shared evenly among its workers. UsageError if not even one worker fits.

    >>> place_workers([Resources(16, 4), Resources(8, 0)], ClusterOptions())
    Placement(size=Resources(num_cpus=4, num_gpus=1.0), num_workers=4, num_fitting=4)
    >>> place_workers([Resources(2, 0), Resources(2, 0)], ClusterOptions(num_workers=4))
    Placement(size=Resources(num_cpus=1, num_gpus=0.0), num_workers=4, num_fitting=4)
    """
    uses_gpus = options.device == "cuda" or (options.device == "auto" and any(node.num_gpus >= 1 for node in nodes))
    num_gpus = float(uses_gpus) if options.gpus_per_worker is None else float(options.gpus_per_worker)
    num_with_cores = max(1, sum(node.num_cpus >= 1 for node in nodes))
    if num_gpus:
        counts = [(node, Resources(0, num_gpus).num_on(node)) for node in nodes]
        num_cpus = min((int(node.num_cpus // count) for node, count in counts if count), default=0)
    else:
        num_cpus = _cores_alone(nodes, options.num_workers or num_with_cores)
    size = Resources(num_cpus, num_gpus)
    num_fitting = sum(size.num_on(node) for node in nodes)
    if num_fitting == 0:
        has = "; ".join(f"{plural(node.num_cpus, 'CPU')} and {plural(node.num_gpus, 'GPU')}" for node in nodes)
        needs = plural(num_gpus, "GPU") if num_gpus else plural(num_cpus, "CPU")
        whose = "its only node has" if len(nodes) == 1 else f"its {len(nodes)} nodes have"
        raise UsageError(
            f"No worker fits the cluster: each needs {needs}, and {whose} {has or 'nothing'}.",
            "Ask for less with --gpus-per-worker or --device cpu, or add a node with `ray start`.",
        )
    num_workers = options.num_workers or (num_fitting if num_gpus else num_with_cores)
    return Placement(size, num_workers, min(num_fitting, num_workers))


def _cores_alone(nodes: Sequence[Resources], num_workers: int) -> int:
    """Cores for each worker without GPUs: as many as let all workers fit, at least one."""
    most = int(max((node.num_cpus for node in nodes), default=1))
    return next(
        (cores for cores in range(most, 0, -1) if sum(int(node.num_cpus // cores) for node in nodes) >= num_workers), 1
    )


def check_installed() -> None:
    """UsageError where Ray, which is an extra, is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("Ray is not installed.", 'Install it with pip install "sfvqa[ray]", or leave out --ray.')


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, else to one that Ray finds, else to one that is started here.

    One that was started ends with the block, with its workers; on another, only what this process put there.
    Raises ClusterError if nothing answers at the address.
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


def alive_nodes() -> list[Resources]:
    """What each node has that is alive, in use or not."""
    import ray

    return [_resources(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def free_resources() -> Resources:
    """What is free now, on all nodes together."""
    import ray

    return _resources(ray.available_resources())


def _resources(counted: Mapping[str, float]) -> Resources:
    return Resources(float(counted.get("CPU", 0)), float(counted.get("GPU", 0)))


def check_own_node() -> None:
    """ClusterError if Ray has ended on this machine: the next call to Ray would end this process too."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own):
        raise ClusterError(
            "Ray has ended on this machine (killed, crashed, or out of memory).",
            "Rerun the command to resume, after `ray start` if it was you who started Ray.",
        )


def _connect(asked: str | None) -> None:
    """Connect as ray.init does, but refuse at once an address where nothing listens, which takes Ray minutes."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "include_dashboard": False}
    said = asked or os.environ.get("RAY_ADDRESS")
    address = said or _current_cluster()
    if address is None or not (said or _may_answer(address)):  # the current cluster may have been killed
        address = said = _OWN
    try:
        if said and not _may_answer(said):
            raise ConnectionError("nothing listens there")
        ray.init(said, **quiet)  # without an address Ray finds the cluster itself, and uses its token
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON].rstrip(".")
        raise ClusterError(
            f"No Ray cluster answers at {address}: {reason}.",
            "Start one with `ray start --head`, or leave out --ray-address and RAY_ADDRESS to have one started; one "
            "that asks for a token needs RAY_AUTH_MODE=token.",
        ) from error


def _current_cluster() -> str | None:
    """The address of the cluster that `ray start` began on this machine, from the file it leaves."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray has it
    with contextlib.suppress(OSError):
        return Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    return None


def _may_answer(address: str) -> bool:
    """Whether anything listens at HOST:PORT; anything else is for Ray to judge."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Keep standard output clean: Ray prints there when a worker or a node ends, whatever its settings."""
    if os.environ.get("SFVQA_DEBUG", "") not in ("", "0"):
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by its own."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
