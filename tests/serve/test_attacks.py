"""Hostile requests: none reads what is closed, none hangs, none makes the server fail, and it answers afterwards."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve import guard
from sfvqa.serve.connection import Connection
from tests.serve.hostile import CANARY, Attack, attacks
from tests.serve.serving import PATIENCE_SECONDS, SHAPES, Served, about, serving, until
from tests.windows import needs_links

_EVERY = 7  # is tried each time


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that is open, with links that lead out of it, and the closed one beside it."""
    root = tmp_path_factory.mktemp("attacked")
    opened, closed = root / "open", root / CANARY
    for folder in (opened / "deep", opened / "album", closed):
        folder.mkdir(parents=True)
    shutil.copy(SHAPES, closed / "clip.mp4")
    shutil.copy(SHAPES, opened / "clip.mp4")
    Image.new("RGB", (64, 64)).save(closed / "picture.png")
    for link, target in (
        ("link.mp4", closed / "clip.mp4"), ("folder-link", closed), ("deep/link.mp4", closed / "clip.mp4"),
        ("loop.mp4", opened / "loop.mp4"), ("album/picture.png", closed / "picture.png"),
    ):  # fmt: skip
        (opened / link).symlink_to(target)
    return opened, closed


@pytest.fixture(scope="module")
def attacked(tiny: VideoQA, folders: tuple[Path, Path]) -> Iterator[Served]:
    with serving(tiny, folders[0], SHAPES.parent, largest_body_bytes=1 << 20, largest_video_bytes=1 << 20) as running:
        yield running


def send(served: Served, attack: Attack) -> bytes:
    """All that comes back until the server closes the connection."""
    received = b""
    with served.connect() as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(attack.sent)
        with contextlib.suppress(ConnectionError):
            while piece := raw.recv(65536):
                received += piece
    return received


def attack_all(
    served: Served, chosen: list[Attack], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(Connection, "patience_seconds", 0.5)
    caplog.set_level(logging.ERROR)
    for attack in chosen:
        got = send(served, attack)
        statuses = [line.split()[1] for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        assert all(status[:1] in b"1234" or status == b"501" for status in statuses), (attack.name, got[:500])
        assert b"Traceback" not in got, attack.name
        assert b"200" not in statuses or CANARY.encode() not in got, attack.name  # errors say what was asked for
    assert not caplog.records, caplog.text
    monkeypatch.undo()
    good = httpx.post(
        f"{served.url}/v1/chat/completions", json=about(SHAPES, "Which digit is shown?"), timeout=PATIENCE_SECONDS
    )
    assert good.json()["choices"][0]["message"]["content"] == "The digit 7 is shown."
    until(lambda: served.service.room.num_requests == 0)


@needs_links
def test_some_attacks(
    attacked: Served,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = attacks(*folders)
    assert len(found) > 500
    attack_all(attacked, found[::_EVERY], monkeypatch, caplog)


@pytest.mark.slow
def test_all_attacks(
    attacked: Served,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attack_all(attacked, attacks(*folders), monkeypatch, caplog)


@needs_links
def test_the_closed_folder_could_be_read(tiny: VideoQA, folders: tuple[Path, Path]) -> None:
    """Else nothing would be shown by its not being read."""
    with serving(tiny, folders[1]) as served:
        body = about(folders[1] / "clip.mp4", "Which digit is shown?")
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS)
    assert answer.json()["sfvqa"]["answer"] == "The digit 7 is shown."
