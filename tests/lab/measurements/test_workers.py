"""The command that measures what a Ray cluster costs and a second worker brings, on two short videos."""

import os
import shutil
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.lab.measurements import workers
from sfvqa.lab.measurements.workers import Batch
from tests.batch.cluster.conftest import needs_ray


def test_the_table_is_beside_the_way_without_ray() -> None:
    alone = Batch("tiny", 0, 10, 12.0, 10.0, 2.0, 0.5, 2_000_000_000, ("A.", "B."))
    two = Batch("tiny", 2, 10, 16.0, 5.0, 11.0, 0.25, None, ("A.", "C."))
    assert workers.table([alone, two]).splitlines()[2:] == [
        "| `tiny` | without Ray | 60.0 (1.00 ×) | 12.0 s | 2.0 s | 50% | 2.00 GB | 2 of 2 |",
        "| `tiny` | 2 with Ray | 120.0 (2.00 ×) | 16.0 s | 11.0 s | 25% | unknown | 1 of 2 |",
    ]


@needs_ray
@pytest.mark.slow
def test_both_ways_are_measured_and_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token would be left in the user's home
    for number in range(2):
        shutil.copy(load_demo_videos()[0].path, tmp_path / f"{number}.mp4")
    alone, cluster = (workers.measure("tiny", tmp_path, num_workers, 1, 4) for num_workers in (0, 1))
    assert alone.texts == cluster.texts
    assert alone.num_videos == cluster.num_videos == 2
    assert 0 < cluster.outside_seconds < cluster.wall_seconds
    if Path(f"/proc/{os.getpid()}/smaps_rollup").exists():
        assert cluster.peak_memory_bytes is not None
        assert alone.peak_memory_bytes is not None
        assert cluster.peak_memory_bytes > alone.peak_memory_bytes > 10**8
