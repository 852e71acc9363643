"""Every wait for a hub has an end: for headers, for the bytes behind them, for a download that keeps breaking off."""

import itertools
import time
from collections.abc import Iterator

import pytest

from sfvqa.errors import DownloadError
from sfvqa.inference.hub import disk
from sfvqa.inference.hub.pull import plan_pull, pull
from sfvqa.registry import ModelSpec
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import SHARDS, checkpoint_of_numbers
from tests.inference.steps import run

ASKING, LISTING = "sfvqa.inference.hub.asking", "sfvqa.inference.hub.listing"


@pytest.fixture(autouse=True)
def _ends_soon(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(f"{ASKING}.ANSWER_SECONDS", 0.3)
    began = time.monotonic()
    yield
    hub.drips.clear()
    assert time.monotonic() - began < 10


def test_a_server_without_ranges_that_breaks_at_varying_places_is_given_up(hub: FakeHub, spec: ModelSpec) -> None:
    """Progress was counted against the last try, which such a server starts from nothing: 300 kB after 200 kB was
    called progress for ever. What is here stays here now, and only what comes beyond it counts.
    """
    hub.ignores_range = True
    hub.cuts[SHARDS[0]] = [300_000, 200_000, 300_000, 200_000, 300_000, 250_000] * 100
    with pytest.raises(DownloadError, match="broke off"):
        run(pull(plan_pull(spec)))
    assert len(hub.of(f"/storage/{hub.head}/{SHARDS[0]}")) == 1 + 3  # the first brings 300 kB, and then a row of three
    (partial,) = disk.cache_folder().rglob("*.incomplete")
    assert 200_000 < partial.stat().st_size <= 300_000, "what came is kept"
    hub.cuts.clear()
    _, pulled = run(pull(plan_pull(spec)))
    assert (pulled.location.folder / SHARDS[0]).read_bytes() == checkpoint_of_numbers()[SHARDS[0]]


def test_progress_does_not_go_back_where_a_server_sends_all_again(hub: FakeHub, spec: ModelSpec) -> None:
    hub.ignores_range = True
    hub.cuts[SHARDS[0]] = [300_000, 100_000]
    seen, _ = run(pull(plan_pull(spec)))
    done = [step.done_bytes for step in seen if step.file == SHARDS[0] and step.stage == "download"]
    assert all(earlier <= later for earlier, later in itertools.pairwise(done))


def test_a_download_that_only_drips_is_given_up(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read gives a little before its time-out: 10 bytes in as many seconds would take a model's lifetime."""
    monkeypatch.setattr(f"{ASKING}.PACE_SECONDS", 0.1)
    plan = plan_pull(spec)
    hub.pause_seconds = 0.15
    with pytest.raises(DownloadError, match="does not answer in time"):
        run(pull(plan))


@pytest.mark.parametrize("part", ["/api/models/", "/resolve/", "/storage/"])
def test_headers_that_have_no_end_are_given_up(hub: FakeHub, spec: ModelSpec, part: str) -> None:
    """Every byte of them comes in time, so that no time-out of a read ever ends it."""
    hub.drips.add(part)
    with pytest.raises(DownloadError, match="does not answer in time"):
        run(pull(plan_pull(spec)))


def test_a_listing_without_end_is_given_up(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(f"{LISTING}.LISTING_BYTES", 500)
        with pytest.raises(DownloadError, match="does not answer as a Hugging Face hub does"):
            plan_pull(spec)
    monkeypatch.setattr(f"{LISTING}.LISTING_SECONDS", 0.0)
    with pytest.raises(DownloadError, match="does not answer in time"):
        plan_pull(spec)


def test_a_pull_asks_for_the_listing_and_each_file_and_nothing_else(hub: FakeHub, spec: ModelSpec) -> None:
    """Putting a file in its place asked the hub about it once more, and waited for locks of other programs."""
    plan = plan_pull(spec)
    run(pull(plan))
    num_redirects = len(SHARDS)
    assert len(hub.requests) == 1 + len(plan.listing.files) + num_redirects
