"""Runs the command line in this process: captured, or on a pseudo-terminal; with a scripted model, no configuration."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.__main__ import main
from sfvqa.cli.frame_request import FrameRequest
from tests.cli.fake import ScriptedVideoQA

_LEFT_TO_RICH = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left behind."""

    exit_code: int
    stdout: str
    stderr: str


RunCli = Callable[..., Outcome]
RunOnTerminal = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path) -> Iterator[None]:
    """No variables of whoever runs the tests, no config file of theirs; and nothing of ours is left to other tests."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("SFVQA_") or name in _LEFT_TO_RICH:
            del os.environ[name]
    os.environ.update(SFVQA_CONFIG=str(tmp_path / "absent.toml"), SFVQA_MODELS=os.devnull)
    os.environ.update(SFVQA_REVISIONS=str(tmp_path / "revisions.json"), TERM="xterm", COLUMNS="100")
    os.environ.update(SFVQA_DATA_DIR=str(tmp_path / "data"), SFVQA_CACHE_DIR=str(tmp_path / "cache"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A file that is there: the scripted model looks no further."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not looked at\0")
    return path


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ScriptedVideoQA:
    """A scripted model in place of every other, and a video that is not opened."""
    scripted = ScriptedVideoQA()

    @contextlib.contextmanager
    def unopened(path: Path, frames: FrameRequest, _cache: object) -> Iterator[SimpleNamespace]:
        scripted.read_with.append(frames.reading())
        yield SimpleNamespace(path=path, to_encode=path, cache=None)

    monkeypatch.setattr("sfvqa.cli.video_file.VideoFile", unopened)
    monkeypatch.setattr(
        "sfvqa.cli.planning.plan_run", lambda asked, frames, *_, **__: SimpleNamespace(model=asked, frames=frames)
    )
    monkeypatch.setattr("sfvqa.cli.planning.check_fit", lambda *_: None)
    monkeypatch.setattr("sfvqa.cli.session.load_model", lambda *_: scripted)
    return scripted


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """Run `sfvqa ARGS…` here, neither stream a terminal."""

    def run(*args: str) -> Outcome:
        capfd.readouterr()
        exit_code = main(args)
        return Outcome(exit_code, *capfd.readouterr())

    return run


@pytest.fixture
def run_on_terminal(monkeypatch: pytest.MonkeyPatch) -> RunOnTerminal:
    """Run `sfvqa ARGS…` here with both streams on a pseudo-terminal; give the exit code and everything it was sent."""

    def run(*args: str) -> tuple[int, str]:
        import pty  # not on Windows

        ours, theirs = pty.openpty()
        sent: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(ours, sent))
        reader.start()
        with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            exit_code = main(args)
        reader.join()
        os.close(ours)
        return exit_code, b"".join(sent).decode("utf-8").replace("\r\n", "\n")

    return run


def _read_all(terminal: int, sent: list[bytes]) -> None:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            return
        if not data:  # macOS says nothing more
            return
        sent.append(data)
