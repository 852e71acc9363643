"""How a server ends that runs in this process."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from sfvqa.errors import ServerError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.running import ServeOptions, listen, serve
from sfvqa.serve.status import ServerStatus, servers
from tests.serve.serving import PATIENCE_SECONDS
from tests.serve.test_status import served

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets")


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
