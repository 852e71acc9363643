"""Batches on a real Ray cluster of two nodes: the records of one machine, whichever of the workers are lost."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfvqa.batch.cluster import crew
from sfvqa.batch.cluster.connection import ClusterOptions
from sfvqa.batch.cluster.runner import run_on_cluster
from sfvqa.batch.cluster.worker import Loader, ModelLoader
from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchModel, BatchOptions
from sfvqa.batch.record import read_records
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import BatchEvent, ItemFinished, Tally, Working
from sfvqa.checkpoints.find import ModelSettings, identify_model
from sfvqa.errors import ClusterError, ExitCode, ModelNotDownloadedError, UsageError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import ReadOptions
from tests.batch.answerer import FakeAnswerer
from tests.batch.broken_files import broken_files, unusual_files
from tests.batch.cluster.conftest import needs_ray
from tests.batch.cluster.fakes import FakeLoader
from tests.batch.conftest import HERE, items_of
from tests.inference.steps import run

pytestmark = [needs_ray, pytest.mark.slow]

OPTIONS = BatchOptions(reading=HERE, settings={"model": "scripted"}, num_readers=1)
VARYING = ("timings", "peak_memory_bytes", "host", "finished")
"""What two runs of the same batch may differ in."""


class Run:
    """A batch on the cluster: its events, records and summary, and what workers said of themselves."""

    def __init__(self, cluster: Any, out: Path) -> None:
        self.options = ClusterOptions(address=cluster.address, num_workers=2)
        self.out = out
        self.events: list[BatchEvent] = []
        self.summary: Tally | None = None

    def __call__(
        self,
        loader: Loader,
        items: list[Item],
        options: BatchOptions = OPTIONS,
        watch: Callable[[], None] = lambda: None,
        **journal: bool,
    ) -> list[dict[str, Any]]:
        """All records that are in the file at the end; `watch` is called after every event."""
        with Journal(self.out, **journal) as kept:
            events = run_on_cluster(loader, items, kept, options, self.options)
            while self.summary is None:
                try:
                    self.events.append(next(events))
                except StopIteration as end:
                    self.summary = end.value
                watch()
        return list(read_records(self.out))

    @property
    def notices(self) -> list[str]:
        return [event.notice for event in self.events if isinstance(event, Working) and event.notice]

    @property
    def has_lost_one(self) -> bool:
        return any("A worker was lost" in notice for notice in self.notices)


@pytest.fixture
def run_on(cluster: Any, tmp_path: Path) -> Run:
    return Run(cluster, tmp_path / "out.jsonl")


def check_all_answered(records: list[dict[str, Any]], items: list[Item]) -> None:
    """Exactly one ok record an item, and nothing else."""
    assert Counter((record["video"], record["question"], record["status"]) for record in records) == {
        (item.name, item.question, "ok"): 1 for item in items
    }


def comparable(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{name: value for name, value in record.items() if name not in VARYING} for record in records]
    return sorted(kept, key=lambda record: (record["video"], record["question"]))


def test_records_are_those_of_a_run_without_ray(run_on: Run, video_folder: Path, tmp_path: Path) -> None:
    """Of a real model, in float32, to the token; the workers keep what they saw in the video cache."""
    weights = identify_model("tiny", random_weights=False)
    items = items_of(video_folder, "abcd", ["Which way does the circle move?", "Describe the video."])
    qa = VideoQA.load("tiny", device="cpu")
    options = replace(
        OPTIONS,
        sampling=qa.default_sampling,
        generation=GenerationOptions(max_new_tokens=24),
        settings={"model": "tiny", "weights": weights},
    )
    with Journal(tmp_path / "alone.jsonl") as journal:
        run(run_batch(qa, items, journal, options))
    records = run_on(loader_of(weights, len(items), num_videos=4), items, options)
    alone = list(read_records(tmp_path / "alone.jsonl"))
    check_all_answered(records, items)
    assert comparable(records) == comparable(alone)
    assert records[0].keys() == alone[0].keys()
    assert run_on.summary is not None
    assert run_on.summary.num_workers_wanted == 2
    assert run_on.summary.exit_code is ExitCode.OK
    finished = [event.record for event in run_on.events if isinstance(event, ItemFinished)]
    assert finished == records


def test_records_of_broken_and_unusual_files_are_those_of_a_run_without_ray(run_on: Run, tmp_path: Path) -> None:
    """Such files stopped a batch for ever; a budget of 8 frames is less than each of them wants."""
    (tmp_path / "videos").mkdir()
    paths = broken_files(tmp_path / "videos")[::4] + unusual_files(tmp_path / "videos")
    items = [Item(path, path.name, "Describe the video.") for path in paths]
    weights = identify_model("tiny", random_weights=False)
    qa = VideoQA.load("tiny", device="cpu")
    options = replace(
        OPTIONS,
        reading=ReadOptions(),
        sampling=qa.default_sampling,
        generation=GenerationOptions(max_new_tokens=16),
        settings={"model": "tiny", "weights": weights},
        frames_ahead=8,
    )
    with Journal(tmp_path / "alone.jsonl") as journal:
        run(run_batch(qa, items, journal, options))
    records = run_on(loader_of(weights, len(items), num_videos=len(paths)), items, options)
    assert len(records) == len(items)
    assert comparable(records) == comparable(list(read_records(tmp_path / "alone.jsonl")))
    assert not run_on.has_lost_one


def loader_of(weights: str, num_questions: int, num_videos: int) -> ModelLoader:
    """What loads `tiny` in each worker."""
    asked = BatchModel(
        ModelSettings("tiny"),
        fewer_frames=False,
        num_text_tokens=50,
        batch_size=1,
        num_questions=num_questions,
        num_videos=num_videos,
    )
    return ModelLoader(asked, weights, VideoCache, num_readers=1)


def test_two_workers_share_the_videos_and_the_cores(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    loader = FakeLoader(tmp_path, has_gate=True)

    def open_once_both_wait() -> None:
        if len(loader.waiting) == 2:
            loader.open_gate()

    check_all_answered(run_on(loader, items, watch=open_once_both_wait), items)
    assert len(loader.waiting) == 2
    assert sum("1 cores, 1 threads" in notice for notice in run_on.notices) == 1  # both say so, and it is said once
    assert not any("lost" in notice for notice in run_on.notices)


def test_a_killed_worker_is_replaced_and_its_videos_are_answered(
    run_on: Run, items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader, killed = FakeLoader(tmp_path, has_gate=True), list[int]()

    def kill_one_once_both_wait() -> None:
        if len(loader.waiting) == 2 and not killed:
            killed.append(loader.waiting[0])
            os.kill(killed[0], signal.SIGKILL)
        if run_on.has_lost_one:
            loader.open_gate()

    check_all_answered(run_on(loader, items, watch=kill_one_once_both_wait), items)
    assert len(killed) == 1
    assert capsys.readouterr().out == ""  # where Ray tells of it, and records may go
    assert sum("A worker was lost, it is being replaced" in notice for notice in run_on.notices) == 1
    assert run_on.summary is not None
    assert run_on.summary.exit_code is ExitCode.OK


def test_a_worker_whose_gpu_fails_is_replaced(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    check_all_answered(run_on(FakeLoader(tmp_path, loses_gpu=True), items), items)
    assert any("The GPU failed" in notice for notice in run_on.notices)


def test_a_video_that_ends_every_worker_is_an_error_record(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    records = run_on(FakeLoader(tmp_path, deadly="b.mp4"), items)
    failed = [record for record in records if record["status"] == "error"]
    assert {record["video"] for record in failed} == {"b.mp4"}
    assert {record["error"]["type"] for record in failed} == {"WorkerLostError"}
    assert len(failed) == 2
    check_all_answered([record for record in records if record["status"] == "ok"], items[:2] + items[4:])
    assert run_on.summary is not None
    assert run_on.summary.exit_code is ExitCode.BATCH_FAILURES
    assert run_on.summary.errors == {"WorkerLostError": 2}


def test_a_worker_that_lives_and_does_nothing_is_replaced(
    run_on: Run, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray watches that a process lives: nothing was heard of it any more, and it was waited for without end."""
    monkeypatch.setattr(crew, "_GRACE_SECONDS", 4.0)
    records = run_on(FakeLoader(tmp_path, stopping="b.mp4"), items, replace(OPTIONS, item_timeout_seconds=1))
    failed = [record for record in records if record["status"] == "error"]
    assert {record["video"] for record in failed} == {"b.mp4"}
    assert "A worker hung with this video: no message for 6 seconds." in failed[0]["error"]["message"]
    assert len(failed) == 2
    check_all_answered([record for record in records if record["status"] == "ok"], items[:2] + items[4:])
    deadline = time.monotonic() + 20
    while any(is_running(int(path.suffix[1:])) for path in tmp_path.glob("stopped.*")):
        assert time.monotonic() < deadline, "the worker that stood still is still there"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


def test_a_model_that_is_nowhere_ends_it_and_names_the_host(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    with pytest.raises(ModelNotDownloadedError, match=rf"On {os.uname().nodename}: The model is not on this machine"):
        run_on(FakeLoader(tmp_path, is_missing=True), items)


def test_what_is_done_is_not_asked_again(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    with Journal(run_on.out) as journal:
        run(run_batch(FakeAnswerer(), items[:3], journal, OPTIONS))
    check_all_answered(run_on(FakeLoader(tmp_path), items), items)
    assert run_on.summary is not None
    tally = run_on.summary
    assert (tally.num_answered, tally.before["ok"], tally.num_left) == (5, 3, 0)


def test_too_many_failures_end_it(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    """Also with more workers than there is room for, which is said."""
    run_on.options = replace(run_on.options, num_workers=3)
    records = run_on(FakeLoader(tmp_path, fails=True), items, replace(OPTIONS, max_failures=3))
    assert [record["error"]["type"] for record in records] == ["ValueError"] * 3
    assert run_on.summary is not None
    assert run_on.summary.stopped == "Stopped after 3 failures."
    assert run_on.summary.num_left == 5
    assert "2 of the 3 workers fit the cluster; others start as nodes join." in run_on.notices


def test_gpus_that_no_node_has_are_refused(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    run_on.options = replace(run_on.options, gpus_per_worker=1)
    with pytest.raises(UsageError, match=r"each needs 1 GPU, and its 2 nodes have 1 CPU and 0 GPUs"):
        run_on(FakeLoader(tmp_path), items)


def test_where_no_cluster_answers_is_said_at_once(run_on: Run, items: list[Item], tmp_path: Path) -> None:
    run_on.options = ClusterOptions(address="127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"No Ray cluster answers at 127.0.0.1:1"):
        run_on(FakeLoader(tmp_path), items)


def test_a_killed_node_loses_nothing(run_on: Run, cluster: Any, items: list[Item], tmp_path: Path) -> None:
    """While both nodes work; the last test here, for Ray counts the node for some seconds more."""
    loader, killed = FakeLoader(tmp_path, has_gate=True), list[bool]()

    def kill_once_both_wait() -> None:
        if len(loader.waiting) == 2 and not killed:
            killed.append(True)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        if run_on.has_lost_one:  # until then what runs there could still answer
            loader.open_gate()

    check_all_answered(run_on(loader, items, watch=kill_once_both_wait), items)
    assert killed
    assert run_on.has_lost_one
