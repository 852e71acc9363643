"""How a server ends that runs in this process."""

import asyncio
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from sfvqa.errors import ServerError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve import page, running
from sfvqa.serve.running import ServeOptions, listen, serve
from sfvqa.serve.status import ServerStatus, servers
from tests.serve.hostile import request
from tests.serve.serving import PATIENCE_SECONDS, SHAPES
from tests.serve.test_status import served
from tests.windows import needs_sockets

pytestmark = needs_sockets


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerStatus]:
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    yield ServerStatus.new("http://127.0.0.1:1", served(), 1.0)
    assert list(servers()) == []


def test_a_server_that_listens_no_more_ends(
    tiny: VideoQA, status: ServerStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "serve", end)
    for_it_to_fail = threading.Timer(PATIENCE_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    for_it_to_fail.start()
    try:
        with listen("127.0.0.1", 0) as listening, pytest.raises(ServerError, match="does not listen any more"):
            serve(tiny, listening, ServeOptions(), status)
    finally:
        for_it_to_fail.cancel()


def test_the_second_signal_waits_for_no_thread(
    tiny: VideoQA, status: ServerStatus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of those that read pictures, or do anything else for a request."""
    reads, runs, go_on = threading.Event(), threading.Event(), threading.Event()
    ended: list[threading.Event] = []

    def wait(begun: threading.Event) -> None:
        begun.set()
        go_on.wait(PATIENCE_SECONDS)
        ended.append(begun)

    async def until(condition: Callable[[], bool], own: Any = running._until) -> None:
        asyncio.get_running_loop().run_in_executor(None, wait, runs)
        await own(condition)

    monkeypatch.setattr(running, "_until", until)
    monkeypatch.setattr(page, "read_filmstrip", lambda *_: wait(reads))
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", False)
    with listen("127.0.0.1", 0) as listening:

        def ask_and_stop() -> None:
            with socket.create_connection(listening.getsockname()[:2]) as caller:
                body = json.dumps({"video": SHAPES.as_uri()}).encode()
                caller.sendall(request(target="/sfvqa/filmstrip", body=body))
                assert reads.wait(PATIENCE_SECONDS)
                assert runs.wait(PATIENCE_SECONDS)
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(0.5)  # signals that come at once are one

        asking = threading.Thread(target=ask_and_stop)
        asking.start()
        try:
            assert not serve(tiny, listening, ServeOptions(folders=[SHAPES.parent], grace_seconds=1000), status)
            assert ended == []
        finally:
            go_on.set()
            asking.join()
    assert not caplog.records


def test_a_port_that_is_in_use_is_not_taken_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, the option by which others take a port at once that was just left gives them one that is in use."""
    for system, is_reused in (("posix", True), ("nt", False)):
        monkeypatch.setattr("sfvqa.serve.running.os", SimpleNamespace(name=system))
        with listen("127.0.0.1", 0) as listening:
            assert bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is is_reused
