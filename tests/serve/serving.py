"""A server in a thread of this process, or in a process of its own; real sockets, and `tiny` or a slow stand-in."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

import sfvqa
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import CacheOptions, OutputOptions
from sfvqa.cli.serve import ServerOptions, load_to_serve
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.app import Server, build_app
from sfvqa.serve.connection import config_of
from sfvqa.serve.guard import Guard
from sfvqa.serve.local import LocalServer
from sfvqa.serve.running import listen
from sfvqa.serve.service import Service
from sfvqa.serve.sources import Folders, Uploads
from sfvqa.serve.status import ServerStatus
from sfvqa.serve.waiting_room import ServiceOptions

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
SHAPES, FLASH, ORDER = (DEMO / f"{name}.mp4" for name in ("shapes", "flash", "order"))
PATIENCE_SECONDS = 120  # for what is sure to come, on a machine that is busy


@dataclass(frozen=True)
class Served:
    """A server that runs, and what stands behind it."""

    port: int
    server: Server

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def service(self) -> Service:
        """What answers."""
        return self.server.service

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def serving(
    qa: VideoQA,
    *folders: Path,
    options: ServiceOptions | None = None,
    key: str | None = None,
    largest_body_bytes: int = 4 << 20,
    largest_video_bytes: int = 4 << 20,
    uploads_bytes: int = 16 << 20,
    uploads_in: Path | None = None,
) -> Iterator[Served]:
    """Serve in this process while the block runs."""
    with Uploads(largest_video_bytes, uploads_bytes, uploads_in) as uploads, Service(qa, options) as service:
        server = Server(service, Folders(folders), uploads)
        guard = Guard(
            build_app(server),
            service.metrics,
            key=key,
            hosts=None if key else ("127.0.0.1", "localhost"),
            largest_body_bytes=largest_body_bytes,
            largest_upload_bytes=largest_video_bytes + 4096,
        )
        listening = listen("127.0.0.1", 0)
        running = uvicorn.Server(config_of(guard, last_seconds=1))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield Served(listening.getsockname()[1], server)
        finally:
            service.room.cut()
            running.should_exit = True
            thread.join(PATIENCE_SECONDS)


@dataclass(frozen=True)
class ServedLocally:
    """A server on the user's socket that runs, and what stands behind it."""

    status: ServerStatus
    service: Service

    @property
    def answerer(self) -> VideoQA:
        """Its model."""
        return self.service.answerer


@contextlib.contextmanager
def serving_locally(
    model: ModelOptions | None = None, options: ServiceOptions | None = None
) -> Iterator[ServedLocally]:
    """Serve `tiny` on the user's socket alone, announced in SFVQA_RUNTIME_DIR, while the block runs."""
    output = OutputOptions(quiet=True)
    answerer, served, _ = load_to_serve(ServerOptions(), model or ModelOptions(model="tiny"), CacheOptions(), output)
    status = ServerStatus.new("http://127.0.0.1:1", served, grace_seconds=1.0)
    began, stop = threading.Event(), asyncio.Event()
    with Service(answerer, options) as service:
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            async with LocalServer(service, status.id, status.token).listening(status.socket):
                began.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
        with status.announced():
            thread.start()
            assert began.wait(PATIENCE_SECONDS)
            try:
                yield ServedLocally(status, service)
            finally:
                loop.call_soon_threadsafe(stop.set)
                thread.join()
                loop.close()


@dataclass(frozen=True)
class Process:
    """`sfvqa serve` in a process of its own."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def served_by_process(folder: Path, *arguments: str, **variables: str) -> Iterator[Process]:
    """`sfvqa serve --model tiny` with a configuration of its own in `folder`, killed at the end of the block."""
    with contextlib.closing(listen("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SFVQA_")}
    own |= {
        "SFVQA_CONFIG": str(folder / "absent.toml"),
        "SFVQA_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder),
    }
    own |= {"SFVQA_RUNTIME_DIR": str(folder / "run"), "SFVQA_MODELS": os.devnull, **variables}
    command = [sys.executable, "-m", "sfvqa", "serve", "--model", "tiny", "--port", str(port), *arguments]
    log = folder / "log.txt"
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=own)
    try:
        until(lambda: f"answers at http://127.0.0.1:{port}" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Process(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


def until(condition: Any) -> None:
    """Wait for what is sure to come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def about(video: Path | str | None, question: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if video is not None:
        url = video.as_uri() if isinstance(video, Path) else video
        content.insert(0, {"type": "video_url", "video_url": {"url": url}})
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}


def ask_json(video: Path, *arguments: str) -> list[dict[str, Any]]:
    """What `sfvqa ask --json` prints, an object a question."""
    command = [sys.executable, "-m", "sfvqa", "ask", str(video), *arguments, "--json", "--model", "tiny", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    return [json.loads(line) for line in done.stdout.splitlines()]
