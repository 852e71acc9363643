"""How large workers are and how many: every core and GPU has one, and none is counted twice."""

import pytest

from sfvqa.batch.cluster.connection import ClusterOptions, Placement, Resources, place_workers
from sfvqa.errors import UsageError

HEAD = Resources(0, 0)  # a head that is to do no work


def placed(nodes: list[Resources], **asked: object) -> tuple[float, float, int, int]:
    placement = place_workers(nodes, ClusterOptions(**asked))  # type: ignore[arg-type]
    return placement.size.num_cpus, placement.size.num_gpus, placement.num_workers, placement.num_fitting


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([Resources(2, 0)], {}, (2, 0, 1, 1)),
        ([HEAD, Resources(8, 0), Resources(8, 0)], {}, (8, 0, 2, 2)),
        ([Resources(8, 0), Resources(4, 0)], {}, (4, 0, 2, 2)),
        ([Resources(2, 0)], {"num_workers": 2}, (1, 0, 2, 2)),
        ([Resources(8, 0), Resources(8, 0)], {"num_workers": 3}, (4, 0, 3, 3)),
        ([Resources(2, 0)], {"num_workers": 5}, (1, 0, 5, 2)),
        ([Resources(32, 8), Resources(64, 0)], {}, (4, 1, 8, 8)),
        ([Resources(32, 8), Resources(4, 4)], {}, (1, 1, 12, 12)),
        ([Resources(2, 8)], {}, (0, 1, 8, 8)),  # cores must not keep a GPU idle
        ([Resources(8, 1)], {"gpus_per_worker": 0.5}, (4, 0.5, 2, 2)),
        ([Resources(8, 1)], {"gpus_per_worker": 1 / 3}, (2, 1 / 3, 3, 3)),
        ([Resources(8, 3)], {"gpus_per_worker": 2}, (8, 2, 1, 1)),
        ([Resources(8, 2)], {"num_workers": 9}, (4, 1, 9, 2)),
        ([Resources(8, 2)], {"gpus_per_worker": 0}, (8, 0, 1, 1)),
        ([Resources(8, 2)], {"device": "cpu"}, (8, 0, 1, 1)),
    ],
)
def test_workers_share_what_there_is(
    nodes: list[Resources], asked: dict[str, object], expected: tuple[int, float, int, int]
) -> None:
    assert placed(nodes, **asked) == expected


@pytest.mark.parametrize(
    ("nodes", "asked"),
    [
        ([], {}),
        ([HEAD], {}),
        ([Resources(8, 0)], {"device": "cuda"}),
        ([Resources(8, 0)], {"gpus_per_worker": 0.5}),
        ([Resources(8, 1), Resources(8, 1)], {"gpus_per_worker": 2}),
    ],
)
def test_where_none_fits_the_error_says_what_there_is(nodes: list[Resources], asked: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"No worker fits the cluster: each needs .* (GPUs|nothing)"):
        placed(nodes, **asked)


def test_a_worker_needs_all_that_it_is_sized_for() -> None:
    assert Resources(4, 1).num_on(Resources(4, 8)) == 1
    assert Resources(4, 1).num_on(Resources(64, 0)) == 0
    assert place_workers([Resources(4, 1)], ClusterOptions()) == Placement(Resources(4, 1.0), 1, 1)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"num_workers": 0}, "0 workers"),
        ({"gpus_per_worker": -1}, "-1 GPUs"),
        ({"gpus_per_worker": 1.5}, "1.5 GPUs"),
        ({"gpus_per_worker": float("nan")}, "nan GPUs"),
        ({"gpus_per_worker": 1, "device": "cpu"}, "device='cpu'"),
        ({"gpus_per_worker": 0, "device": "cuda"}, "device='cuda'"),
        ({"device": "cuda:1"}, "Ray decides"),
        ({"address": "ray://host:10001"}, "Ray Client"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ClusterOptions(**asked)  # type: ignore[arg-type]


def test_a_single_node_is_not_spoken_of_as_several() -> None:
    with pytest.raises(UsageError, match="and its only node has 2 CPUs and 0 GPUs"):
        place_workers([Resources(2, 0)], ClusterOptions(gpus_per_worker=1))
