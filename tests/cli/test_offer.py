"""Whoever has only the bundled model is told of one for any video, and asked about it where somebody can answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import connected
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.inference.conftest import write_video
from tests.model.families.published import save_whole

SUGGESTED = "`sfvqa models pull smolvlm2-500m` (2.0 GB, Apache-2.0)"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """It has the suggested model, by the name of a small one."""
    monkeypatch.setattr("sfvqa.cli.models.SUGGESTED_MODEL", "small")
    with connected(tmp_path, monkeypatch) as hub:
        save_whole("smolvlm", tmp_path / "published")
        hub.publish_folder(tmp_path / "published")
        yield hub


@pytest.fixture
def own_video(tmp_path: Path) -> str:
    write_video(tmp_path / "own.mp4", num_frames=40, colour=(200, 30, 60))
    return str(tmp_path / "own.mp4")


def test_who_agrees_is_answered_by_what_was_downloaded(
    hub: FakeHub, run_on_terminal: RunOnTerminal, own_video: str
) -> None:
    typing = [("Download small, for any video (4.0 MB, licence CC BY-NC 4.0)?", "y\n")]
    exit_code, sent = run_on_terminal("ask", own_video, "Why?", "--max-new-tokens", "4", typing=typing)
    assert exit_code == 0, sent
    assert hub.of("/storage/")
    assert "· small" in sent
    assert "tiny" not in sent
    again, sent = run_on_terminal("ask", own_video, "Why?", "--max-new-tokens", "4", typing=[("· small", "")])
    assert (again, "[y/N]" in sent) == (0, False), "it was asked once"


def test_who_declines_is_answered_by_the_bundled_one(
    hub: FakeHub, run_on_terminal: RunOnTerminal, own_video: str
) -> None:
    exit_code, sent = run_on_terminal("ask", own_video, "What flashes?", typing=[("[y/N]", "\n")])
    assert exit_code == 0, sent
    assert not hub.of("/storage/")
    assert sent.count("models pull") == 1
    assert "· tiny" in sent


@pytest.mark.parametrize("options", [(), ("--json",), ("--dry-run",)])
def test_without_a_terminal_nobody_is_asked_and_nothing_downloaded(
    hub: FakeHub, run_cli: RunCli, own_video: str, options: tuple[str, ...]
) -> None:
    run = run_cli("ask", own_video, "What flashes?", *options)
    assert run.exit_code == 0
    assert " ".join(run.stderr.split()).count(SUGGESTED) == 1
    assert not hub.requests


@pytest.mark.parametrize("options", [("--json",), ("--dry-run",), ("--model", "tiny"), ("-q",), ("--evidence",)])
def test_on_a_terminal_too_nobody_is_asked_who_said_what_is_wanted(
    hub: FakeHub, run_on_terminal: RunOnTerminal, own_video: str, options: tuple[str, ...]
) -> None:
    exit_code, sent = run_on_terminal("ask", own_video, "What flashes?", *options, typing=[("", "")])
    assert (exit_code, "[y/N]" in sent) == (0, False)
    assert not hub.requests


@pytest.mark.parametrize("spoilt", ["video", "range", "memory"])
def test_nothing_is_offered_that_would_come_to_nothing(
    hub: FakeHub, run_on_terminal: RunOnTerminal, own_video: str, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """Two gigabytes came, and then the video could not be read."""
    options = ["--start", "1:00:00"] if spoilt == "range" else []
    if spoilt == "video":
        Path(own_video).write_bytes(b"no video")
    if spoilt == "memory":
        monkeypatch.setattr("sfvqa.checkpoints.host.free_host_bytes", lambda: 1000)
    _, sent = run_on_terminal("ask", own_video, "What flashes?", *options, typing=[("", "")])
    assert "[y/N]" not in sent
    assert not hub.requests


def test_a_bundled_video_needs_no_other_model(hub: FakeHub, run_on_terminal: RunOnTerminal) -> None:
    exit_code, sent = run_on_terminal("ask", "shapes.mp4", "What flashes?", typing=[("", "")])
    assert (exit_code, "[y/N]" in sent) == (0, False)
    assert not hub.requests
