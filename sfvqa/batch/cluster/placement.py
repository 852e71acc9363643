"""How large a worker is and how many there are, by what the nodes of a cluster have. Pure arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfvqa.batch.cluster.options import ClusterOptions
from sfvqa.errors import UsageError
from sfvqa.wording import plural

_ROUNDING = 1e-6  # three GPUs of a third each are one


@dataclass(frozen=True)
class Node:
    """What Ray counts on one machine."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class WorkerSize:
    """What one worker has to itself."""

    num_cpus: int
    num_gpus: float

    def num_on(self, node: Node) -> int:
        """How many the node has room for, if nothing else runs there."""
        rooms = [
            math.floor(there / needed + _ROUNDING)
            for there, needed in ((node.num_cpus, self.num_cpus), (node.num_gpus, self.num_gpus))
            if needed
        ]
        return min(rooms, default=0)


@dataclass(frozen=True)
class Placement:
    """So many workers of a size, of which `num_fitting` have room on the nodes that are there now."""

    size: WorkerSize
    num_workers: int
    num_fitting: int


def place_workers(nodes: Sequence[Node], options: ClusterOptions) -> Placement:
    """What was left open: a GPU a worker and as many workers as there are GPUs, else a worker a node with its cores.

    The cores of a node with GPUs are shared evenly among its workers. UsageError where not even one worker fits.

    >>> place_workers([Node(16, 4), Node(8, 0)], ClusterOptions())
    Placement(size=WorkerSize(num_cpus=4, num_gpus=1.0), num_workers=4, num_fitting=4)
    >>> place_workers([Node(2, 0), Node(2, 0)], ClusterOptions(num_workers=4))
    Placement(size=WorkerSize(num_cpus=1, num_gpus=0.0), num_workers=4, num_fitting=4)
    """
    num_gpus = _num_gpus(nodes, options)
    size = WorkerSize(_cores_beside(nodes, num_gpus) if num_gpus else _cores_alone(nodes, options), num_gpus)
    num_fitting = sum(size.num_on(node) for node in nodes)
    if num_fitting == 0:
        raise _does_not_fit(nodes, size)
    num_workers = options.num_workers or num_fitting
    if not num_gpus and options.num_workers is None:
        num_workers = _num_with_cores(nodes)
    return Placement(size, num_workers, min(num_fitting, num_workers))


def _num_gpus(nodes: Sequence[Node], options: ClusterOptions) -> float:
    if options.gpus_per_worker is not None:
        return float(options.gpus_per_worker)
    if options.device in ("cpu", "mps"):
        return 0.0
    return 1.0 if options.device == "cuda" or any(node.num_gpus >= 1 for node in nodes) else 0.0


def _cores_beside(nodes: Sequence[Node], num_gpus: float) -> int:
    """Cores for each worker that has GPUs: what the node with the fewest a worker can give."""
    on_gpus = WorkerSize(0, num_gpus)
    return min((int(node.num_cpus // count) for node in nodes if (count := on_gpus.num_on(node))), default=0)


def _cores_alone(nodes: Sequence[Node], options: ClusterOptions) -> int:
    """Cores for each of the workers that have nothing else: as many as let all of them fit, at least one."""
    wanted = options.num_workers or _num_with_cores(nodes)
    most = int(max((node.num_cpus for node in nodes), default=1))
    fitting = (cores for cores in range(most, 0, -1) if sum(int(node.num_cpus // cores) for node in nodes) >= wanted)
    return next(fitting, 1)


def _num_with_cores(nodes: Sequence[Node]) -> int:
    return max(1, sum(node.num_cpus >= 1 for node in nodes))


def _does_not_fit(nodes: Sequence[Node], size: WorkerSize) -> UsageError:
    has = "; ".join(f"{plural(node.num_cpus, 'CPU')} and {plural(node.num_gpus, 'GPU')}" for node in nodes)
    needs = plural(size.num_gpus, "GPU") if size.num_gpus else plural(size.num_cpus, "CPU")
    whose = "its only node has" if len(nodes) == 1 else f"its {len(nodes)} nodes have"
    return UsageError(
        f"No worker fits the cluster: each needs {needs}, and {whose} {has or 'nothing'}.",
        "Ask for less with --gpus-per-worker or --device cpu, or add a node with `ray start`.",
    )
