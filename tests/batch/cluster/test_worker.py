"""A worker by itself: what it refuses to load, and what it yields of a share."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest

import sfvqa
from sfvqa.batch.cluster.connection import Resources
from sfvqa.batch.cluster.worker import Ready, Worker
from sfvqa.batch.identify import identify
from sfvqa.batch.item import Item, group_items
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.tally import ItemFinished, Tally
from sfvqa.errors import ModelNotDownloadedError, UsageError
from tests.batch.cluster.fakes import FakeLoader
from tests.batch.conftest import HERE
from tests.batch.made import item_of

OPTIONS = BatchOptions(reading=HERE, settings={"model": "scripted"})
SIZE = Resources(1, 0)


def load(
    loader: FakeLoader, done: dict[str, str] | None = None, version: str = sfvqa.__version__
) -> tuple[Worker, Ready]:
    worker = Worker()
    return worker, worker.load(loader, OPTIONS, SIZE, done or {}, version)


def test_what_was_done_before_is_skipped_and_all_else_comes_with_the_summary_last(
    items: list[Item], tmp_path: Path
) -> None:
    first = identify(group_items(items)[0], OPTIONS, RecordKeeper()).questions[0]
    worker, ready = load(FakeLoader(tmp_path), {first.item_id: "ok", "another": "error"})
    assert ready.host == platform.node()
    *events, summary = worker.answer(items)
    assert isinstance(summary, Tally)
    assert (summary.num_answered, summary.before["ok"]) == (7, 1)
    finished = [event.item for event in events if isinstance(event, ItemFinished)]
    assert sorted(map(items.index, finished)) == [1, 2, 3, 4, 5, 6, 7]


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"On {platform.node()}: sfvqa is {sfvqa.__version__} there, and 0.0.1"):
        load(FakeLoader(tmp_path), version="0.0.1")


def test_what_loading_raises_stays_what_it_is_and_names_the_host(tmp_path: Path) -> None:
    with pytest.raises(ModelNotDownloadedError, match=rf"On {platform.node()}: .* Fetch it"):
        load(FakeLoader(tmp_path, is_missing=True))


def test_a_video_that_cannot_be_read_costs_only_itself(items: list[Item], tmp_path: Path) -> None:
    worker, _ = load(FakeLoader(tmp_path))
    absent = replace(item_of(1), video=tmp_path / "absent.mp4")
    *_, summary = worker.answer([absent, *items])
    assert isinstance(summary, Tally)
    assert (summary.num_answered, summary.errors) == (8, {"VideoNotFoundError": 1})
