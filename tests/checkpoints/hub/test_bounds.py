"""Every wait for a hub has an end: for headers, for the bytes behind them, for a download that keeps breaking off."""

import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sfvqa.checkpoints.download import plan_pull, pull
from sfvqa.errors import DownloadError
from sfvqa.registry import ModelSpec
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import SHARDS, checkpoint_of_numbers
from tests.inference.steps import run

DOWNLOAD = "sfvqa.checkpoints.download"


@pytest.fixture(autouse=True)
def _ends_soon(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(f"{DOWNLOAD}._SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(f"{DOWNLOAD}.LISTING_SECONDS", 1.0)
    monkeypatch.setattr(f"{DOWNLOAD}.STALL_SECONDS", 1.0)
    began = time.monotonic()
    yield
    hub.drips.clear()
    assert time.monotonic() - began < 10


def test_a_server_without_ranges_that_breaks_at_varying_places_is_given_up(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub tries for ever as long as any byte comes; what came before does not count twice here."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    # It waits a second before each try, and each is a call deeper: without any wait the stack would end it first.
    short = SimpleNamespace(time=time.time, sleep=lambda _seconds: time.sleep(0.05))
    monkeypatch.setattr("huggingface_hub.file_download.time", short)
    hub.ignores_range = True
    hub.cuts[SHARDS[0]] = [300_000, 200_000, 300_000, 200_000, 300_000, 250_000] * 10_000
    with pytest.raises(DownloadError, match="did not answer in time"):
        run(pull(plan_pull(spec)))
    asked = len(hub.requests)
    time.sleep(0.2)
    assert len(hub.requests) == asked, "it is given up for good"
    hub.cuts.clear()
    run(pull(plan_pull(spec)))


@pytest.mark.parametrize("part", ["/api/models/", "/tree/", "/resolve/", "/storage/"])
def test_headers_that_have_no_end_are_given_up(hub: FakeHub, spec: ModelSpec, part: str) -> None:
    """Every byte of them comes in time, so that no time-out of a read ever ends it."""
    hub.drips.add(part)
    with pytest.raises(DownloadError, match="did not answer in time"):
        run(pull(plan_pull(spec)))
    hub.drips.clear()
    run(pull(plan_pull(spec)))


def test_a_hub_that_is_silent_is_given_up(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DownloadError, match="did not answer in time"):
            plan_pull(spec)


def test_a_listing_without_end_is_given_up(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(f"{DOWNLOAD}.LISTING_BYTES", 500)
        with pytest.raises(DownloadError, match="does not answer like a Hugging Face hub"):
            plan_pull(spec)
    hub.endless_pages = True
    with pytest.raises(DownloadError, match="did not answer in time"):
        plan_pull(spec)


def test_progress_does_not_go_back_where_a_server_sends_all_again(hub: FakeHub, spec: ModelSpec) -> None:
    hub.ignores_range = True
    hub.cuts[SHARDS[0]] = [300_000, 100_000]
    seen, _ = run(pull(plan_pull(spec)))
    done = [step.done_bytes for step in seen if step.stage == "download"]
    assert done == sorted(done)
    assert len(hub.of(f"/storage/{hub.head}/{SHARDS[0]}")) == 3
    assert len(checkpoint_of_numbers()[SHARDS[0]]) < done[-1]
