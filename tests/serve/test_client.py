"""The client imports nothing heavy, and leaves a server that is none, or hangs, alone."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.errors import ServerError, UsageError
from sfvqa.serve import client
from sfvqa.serve.client import Connection
from sfvqa.serve.status import ServerStatus
from tests.serve.serving import PATIENCE_SECONDS, serving_locally
from tests.serve.test_status import announce
from tests.windows import needs_sockets

pytestmark = needs_sockets


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SFVQA_CACHE_DIR", str(tmp_path / "cache"))


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[ServerStatus]:
    """Something that listens where a server says it does."""
    status = announce()
    with socket.socket(socket.AF_UNIX) as here, status.announced():
        here.bind(status.socket)
        here.listen()
        here.settimeout(PATIENCE_SECONDS)

        def accept() -> None:
            with here.accept()[0] as caller:
                answer(caller)

        thread = threading.Thread(target=accept)
        thread.start()
        yield status
        thread.join()


def test_it_imports_neither_a_model_nor_a_web_framework() -> None:
    program = (
        "import sys, sfvqa.serve.client, sfvqa.serve.status, sfvqa.cli.warm\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'pydantic', 'httpx', 'uvicorn', 'starlette', 'asyncio', 'av'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections, since the system does that for it, and says nothing."""
    monkeypatch.setattr(client, "_PATIENCE_SECONDS", 0.05)
    ended = threading.Event()
    with listening(lambda _: ended.wait(PATIENCE_SECONDS)) as status:
        with pytest.raises(TimeoutError):
            Connection(status)
        ended.set()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"hello": "another"}\n', b"5\n"])
def test_what_is_no_server_is_refused(said: bytes) -> None:
    def answer(caller: socket.socket) -> None:
        caller.recv(9999)
        caller.sendall(said)

    with listening(answer) as status, pytest.raises(OSError):  # noqa: PT011  any of them, by which `ask` goes on without
        Connection(status)


def test_a_socket_that_is_gone_is_refused() -> None:
    with announce().announced() as _, pytest.raises(OSError):  # noqa: PT011
        Connection(announce())


def test_only_the_token_opens_a_server() -> None:
    with serving_locally() as server:
        with pytest.raises(ConnectionError):
            Connection(replace(server.status, token="0" * 64))
        with Connection(server.status) as connection:
            connection.send({"state": True, "turn": "?"})
            with pytest.raises(ServerError):  # there is no conversation; the server goes on
                connection.receive()
        with Connection(server.status):
            pass


def test_errors_arrive_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours with both sentences, the system's with their number, others by their names."""
    with serving_locally() as server, Connection(server.status) as connection:
        foreign = type("TokenizerError", (Exception,), {})
        for error in (UsageError("Wrong.", "Right."), OSError(28, "No space left"), MemoryError(), foreign("a", 1)):

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(server.service, "submit", fail)
            connection.send({"state": True})
            with pytest.raises(Exception) as failed:  # noqa: PT011
                connection.receive()
            assert type(failed.value).__name__ == type(error).__name__
            assert failed.value.args == error.args
