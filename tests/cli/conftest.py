"""Runs the command line in this process: captured, or on a pseudo-terminal; with a scripted model, no configuration."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.__main__ import main
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.screen import Notices
from sfvqa.cli.video import VideoFile
from sfvqa.video import ReadOptions, SamplingOptions, VideoReader, open_video
from tests.cli.fake import ScriptedVideoQA

_PATIENCE_SECONDS = 20  # with what a terminal is awaited to say, on a machine that is busy
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
    """No variables or config file of whoever runs the tests; and nothing of ours is left to other tests."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("SFVQA_") or name in _LEFT_TO_RICH:
            del os.environ[name]
    os.environ.update(SFVQA_CONFIG=str(tmp_path / "absent.toml"), SFVQA_MODELS=os.devnull)
    os.environ.update(SFVQA_REVISIONS=str(tmp_path / "revisions.json"), TERM="xterm", COLUMNS="100")
    os.environ.update(SFVQA_CACHE_DIR=str(tmp_path / "cache"), SFVQA_HISTORY=str(tmp_path / "history"))
    os.environ.update(SFVQA_RUNTIME_DIR=str(tmp_path / "run"))
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, interrupt)  # a command that was interrupted keeps its own until the process ends
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

    class Unopened(VideoFile):
        """Nothing of it is wanted but its path."""

        def __init__(self, path: Path, frames: FrameOptions, *_: object) -> None:
            super().__init__(path, frames, None, Notices(quiet=True))
            scripted.read_with.append(frames.read_options())

        def _begin_to_open(self) -> None:  # type: ignore[override]
            return None

    def plan(_model: ModelOptions, frames: FrameOptions, *_: object, **__: object) -> tuple[object, SamplingOptions]:
        settings = ModelSettings("scripted", quantization="none")
        sizes = SimpleNamespace(name="scripted", spec=None, sizes=SimpleNamespace(hybrid_layers=(0,)))
        device = SimpleNamespace(type="cuda")
        planned = SimpleNamespace(settings=settings, sizes=sizes, device=device, notices=(), check=lambda: ())
        return planned, frames.resolve(scripted.default_sampling)

    monkeypatch.setattr("sfvqa.cli.video.VideoFile", Unopened)
    monkeypatch.setattr("sfvqa.cli.video.plan_question", plan)
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: scripted)
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
    """Run `sfvqa ARGS…` here with all three streams on a pseudo-terminal; give the exit code and all that was sent.

    `typing` are pairs: what to wait for, after the last keys, and the keys to press then.
    """

    def run(*args: str, typing: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
        pty = pytest.importorskip("pty", reason="needs a pseudo-terminal, as Windows has none for Python")
        ours, theirs = pty.openpty()
        sent = bytearray()
        to_type = list(typing)
        typist = threading.Thread(target=_type_and_read, args=(ours, sent, to_type))
        typist.start()
        with (
            os.fdopen(theirs, "w", encoding="utf-8") as terminal,
            os.fdopen(os.dup(theirs), encoding="utf-8") as keyboard,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            if typing:
                patch.setattr(sys, "stdin", keyboard)
            exit_code = main(args)
        typist.join()
        os.close(ours)
        assert not to_type, f"{to_type[0][0]!r} was never said in {sent.decode()!r}"
        return exit_code, sent.decode("utf-8").replace("\r\n", "\n")

    return run


def videos_opened_by(module: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that a module opens from now on, as they are opened."""
    opened: list[str] = []

    def counting(path: Path, reading: ReadOptions) -> VideoReader:
        opened.append(path.name)
        return open_video(path, reading)

    monkeypatch.setattr(f"{module}.open_video", counting)
    return opened


def _type_and_read(terminal: int, sent: bytearray, typing: list[tuple[str, str]]) -> None:
    seen = 0
    while True:
        while typing and (found := sent.find(typing[0][0].encode(), seen)) >= 0:
            awaited, keys = typing.pop(0)
            seen = found + len(awaited.encode())
            os.write(terminal, keys.encode())
        if typing and not select.select([terminal], [], [], _PATIENCE_SECONDS)[0]:
            os.write(terminal, b"\x04")  # what is waited for does not come: end it, the test will fail
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            return
        if not data:  # macOS says nothing more
            return
        sent += data
