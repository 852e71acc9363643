"""The server behind a page, in this process: `tiny` answers, as slowly as a test wants."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

import sfvqa
from sfvqa.inference.answering import AnswerRun
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.app import Server, build_app
from sfvqa.serve.guard import Guard
from sfvqa.serve.service import Service
from sfvqa.serve.sources import Folders, Uploads

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
_LONGEST_WAIT_SECONDS = 60


@dataclass
class PageServer:
    """A running server: its address, and what it serves with."""

    url: str
    service: Service
    listener: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        """Take no connection any more."""
        self.listener.should_exit = True
        self.thread.join(_LONGEST_WAIT_SECONDS)


@contextlib.contextmanager
def page_server(
    answerer: VideoQA,
    *,
    key: str | None = None,
    folders: Sequence[Path] = (DEMO,),
    largest_bytes: int = 1 << 24,
) -> Iterator[PageServer]:
    """Serve at a port that is free."""
    with Service(answerer) as service, Uploads(largest_bytes, largest_bytes * 4) as uploads:
        app = Guard(
            build_app(Server(service, Folders(folders), uploads)),
            service.metrics,
            key=key,
            hosts=("127.0.0.1",),
            largest_body_bytes=largest_bytes * 2,
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listener = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=listener.run, args=([listening],), daemon=True)
            thread.start()
            server = PageServer(f"http://127.0.0.1:{listening.getsockname()[1]}/", service, listener, thread)
            try:
                yield server
            finally:
                server.stop()


@dataclass
class Pace:
    """Lets answers be written one step for every `allow`."""

    _steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def allow(self, steps: int) -> None:
        """Let so many more steps be taken."""
        self._steps.release(steps)

    def steps_of(self, run: AnswerRun) -> Iterator[list[str]]:
        """What `AnswerRun.steps` does, slowly."""
        for pieces in _STEPS(run):
            assert self._steps.acquire(timeout=_LONGEST_WAIT_SECONDS)
            yield pieces


_STEPS = AnswerRun.steps
