"""What is noticed of a cluster, told by a Ray that is played."""

from types import SimpleNamespace
from typing import Any

import pytest

from sfvqa.batch.cluster.connection import check_own_node
from sfvqa.errors import ClusterError

ray: Any = pytest.importorskip("ray")


@pytest.mark.parametrize(("is_alive", "is_listed"), [(True, True), (False, True), (True, False)])
def test_that_ray_ended_on_this_machine_is_said_while_it_can_be(
    is_alive: bool, is_listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for another worker, Ray would end this process without a word of how to go on."""
    nodes = [{"NodeID": "other", "Alive": True}, {"NodeID": "own" if is_listed else "gone", "Alive": is_alive}]
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "own"))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    if is_alive and is_listed:
        check_own_node()
        return
    with pytest.raises(ClusterError, match="Ray has ended on this machine"):
        check_own_node()
