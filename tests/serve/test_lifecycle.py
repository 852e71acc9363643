"""A server in a process of its own, from its first request to its last signal."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.serving import PATIENCE_SECONDS, SHAPES, Process, about, served_by_process, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

_LONG = {"temperature": 50, "seed": 0, "max_tokens": 900}  # an answer that does not end before that


def ask(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS)


def begin(url: str, body: dict[str, Any]) -> "concurrent.futures.Future[list[str]]":
    """Ask for a stream in a thread; the lines of it, once its first piece has come."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    has_begun = concurrent.futures.Future[None]()

    def read() -> list[str]:
        lines = []
        body["stream"] = True
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS) as response:
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) > 4 and not has_begun.done():
                    has_begun.set_result(None)
        return lines

    future = pool.submit(read)
    pool.shutdown(wait=False)
    has_begun.result(timeout=PATIENCE_SECONDS)
    return future


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("sfvqa-uploads")] + [
        path.name for path in (folder / "run").iterdir()
    ]


def readers_of(process: int) -> list[int]:
    """The processes that read videos for it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == process and fields[0] != "Z" and b"isolated" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def folder_of_pictures(folder: Path, number: int = 400) -> Path:
    """A video that takes long to read."""
    from PIL import Image

    folder.mkdir()
    for count in range(number):
        Image.effect_noise((640, 480), 50 + count % 50).save(folder / f"{count}.png")
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_what_was_begun_is_answered(tmp_path: Path, number: signal.Signals) -> None:
    with served_by_process(tmp_path, "--folder", str(SHAPES.parent)) as server:
        upload = {"file": ("clip.mp4", SHAPES.read_bytes())}
        assert httpx.post(f"{server.url}/v1/files", files=upload).status_code == 200
        stream = begin(server.url, about(SHAPES, "Describe the video.", **_LONG | {"max_tokens": 300}))
        server.process.send_signal(number)
        until(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        refused = ask(server.url, about(SHAPES, "Which digit is shown?"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert stream.result(timeout=PATIENCE_SECONDS)[-2] == "data: [DONE]"
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert left_in(tmp_path) == []
    assert "Traceback" not in server.log.read_text()


def test_what_takes_longer_than_it_may_is_said_to_be_cut(tmp_path: Path) -> None:
    with served_by_process(tmp_path, "--folder", str(SHAPES.parent), "--grace", "0") as server:
        stream = begin(server.url, about(SHAPES, "Describe the video.", **_LONG))
        assert server.stop() == 0
        lines = stream.result(timeout=PATIENCE_SECONDS)
    assert "the answer is cut" in json.loads(lines[-2].removeprefix("data: "))["error"]["message"]
    assert left_in(tmp_path) == []


def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with served_by_process(tmp_path, "--folder", str(SHAPES.parent), "--grace", "1000") as server:
        begin(server.url, about(SHAPES, "Describe the video.", **_LONG))
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        assert server.stop() == 0
    assert left_in(tmp_path) == []
    assert readers_of(server.process.pid) == []


def test_after_a_kill_the_next_one_starts_and_the_cache_is_whole(tmp_path: Path) -> None:
    for _ in range(2):
        with served_by_process(tmp_path, "--folder", str(SHAPES.parent)) as server:
            until(lambda: list((tmp_path / "run").glob("*.json")))
            assert len(list(tmp_path.glob("sfvqa-uploads*"))) == 1  # its own
            answers = [ask(server.url, about(SHAPES, "Which digit is shown?")).json() for _ in range(2)]
            assert [answer["sfvqa"]["answer"] for answer in answers] == ["The digit 7 is shown."] * 2
            begin(server.url, about(SHAPES, "Describe the video.", **_LONG))
            server.process.kill()
            server.process.wait(PATIENCE_SECONDS)
    assert answers[0]["sfvqa"]["from_video_cache"]
    with served_by_process(tmp_path) as server:
        assert server.stop() == 0
    assert left_in(tmp_path) == []


def test_a_reader_that_is_killed_costs_one_request(tmp_path: Path) -> None:
    pictures = folder_of_pictures(tmp_path / "pictures")
    with served_by_process(tmp_path, "--folder", str(tmp_path), "--folder", str(SHAPES.parent)) as server:
        body = about(pictures, "What is it?", sfvqa={"frames": 128, "progress": True})
        lost = begin(server.url, body)  # some of it is read
        (reader,) = readers_of(server.process.pid)
        beside = concurrent.futures.ThreadPoolExecutor(1).submit(
            ask, server.url, about(SHAPES, "Which digit is shown?")
        )
        os.kill(reader, signal.SIGKILL)
        assert "was ended by signal 9" in lost.result(timeout=PATIENCE_SECONDS)[-2]
        assert beside.result(timeout=PATIENCE_SECONDS).status_code == 200
        assert ask(server.url, body | {"stream": False}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_is_worked_for_no_longer(tmp_path: Path, stream: bool) -> None:
    """While its video is read, and while its answer is written."""
    pictures = folder_of_pictures(tmp_path / "pictures")
    with served_by_process(tmp_path, "--folder", str(tmp_path), "--folder", str(SHAPES.parent)) as server:
        for video, begun in (
            (pictures, lambda: metric(server, "sfvqa_waiting") == 1),
            (SHAPES, lambda: metric(server, "sfvqa_running") == 1),
        ):
            before = metric(server, "sfvqa_dropped_total")
            body = about(video, "Describe the video.", stream=stream, sfvqa={"frames": 100}, **_LONG)
            with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as caller:
                caller.sendall(bytes_of(body))
                until(begun)
                reading = set(readers_of(server.process.pid)) if video is pictures else set()
            until(lambda before=before: metric(server, "sfvqa_dropped_total") == before + 1)
            until(lambda reading=reading: reading.isdisjoint(readers_of(server.process.pid)))  # another is spare
            until(lambda: metric(server, "sfvqa_running") == metric(server, "sfvqa_waiting") == 0)
        assert ask(server.url, about(SHAPES, "Which digit is shown?")).status_code == 200
    assert "Traceback" not in server.log.read_text()


def bytes_of(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def metric(server: Process, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_taken_port_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    with served_by_process(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        command = [sys.executable, "-m", "sfvqa", "serve", "--model", "tiny", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in done.stderr
