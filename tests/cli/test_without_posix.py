"""Commands run without what Python has not got on Windows: its modules, names and sockets."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import RunCli

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="is without them")]
SHAPES = Path("sfvqa/assets/demo/shapes.mp4").absolute()
_PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SFVQA_CACHE_DIR", str(tmp_path / "cache"))


@contextmanager
def running(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-m", "tests.without_posix", *arguments]
    folder = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def output_of(*arguments: str) -> str:
    with running(*arguments) as process:
        said, told = process.communicate(timeout=_PATIENCE_SECONDS)
        assert process.returncode == 0, told
    return said


def test_a_video_is_read_in_its_own_process_and_asked_about() -> None:
    """Every module is imported first, so that none needs at import what is missing."""
    said = output_of("ask", str(SHAPES), "Which way does the circle move?", "--json")
    assert json.loads(said)["answer"]


def test_a_batch_is_written_and_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"item_id": "a", "status": "error"}\n')
    output_of("batch", str(SHAPES.parent), "--question", "What moves?", "-o", str(out), "--overwrite")
    assert len(out.read_text().splitlines()) == 3
    assert out.with_name("out.jsonl.old").exists()


def test_a_server_listens_on_its_port_alone_and_is_found(run_cli: RunCli) -> None:
    with running("serve", "--model", "tiny", "--port", "0") as server:
        assert server.stderr is not None
        killer = threading.Timer(_PATIENCE_SECONDS, server.kill)
        killer.start()
        assert any("answers at http" in line for line in server.stderr)
        threading.Thread(target=server.stderr.read, daemon=True).start()
        while not (found := run_cli("serve", "--status", "--json").stdout):
            assert server.poll() is None
        told = json.loads(found)
        assert (told["pid"], told["socket"], told["is_running"]) == (server.pid, None, True)
        assert run_cli("ask", str(SHAPES), "What moves?").exit_code == 0  # by a model of its own: it has no other way
        server.send_signal(signal.SIGTERM)
        assert server.wait(_PATIENCE_SECONDS) == 0
        killer.cancel()
    assert run_cli("serve", "--status").stdout == ""
