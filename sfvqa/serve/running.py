"""A server from its first request to its last: listening on a port and on the user's socket, and stopping in order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.app import Server, build_app
from sfvqa.serve.guard import Guard
from sfvqa.serve.local import LocalServer
from sfvqa.serve.service import Service, ServiceOptions
from sfvqa.serve.sources import Folders, Uploads
from sfvqa.serve.status import ServerStatus

_LOOK_SECONDS = 0.05
_LAST_SECONDS = 5  # for responses to be sent once every answer is whole or cut
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, who may ask, and what it takes.

    Any host but loopback needs an `api_key`. `grace_seconds` is what running answers have to end once it is told to
    stop.
    """

    host: str = "127.0.0.1"
    port: int = 8484
    api_key: str | None = None
    folders: Sequence[Path] = ()
    largest_video_bytes: int = 256 << 20
    uploads_bytes: int = 4 << 30
    grace_seconds: float = 30.0
    service: ServiceOptions = field(default_factory=ServiceOptions)


class _Listener(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not."""
        yield


def serve(answerer: VideoQA, listening: socket.socket, options: ServeOptions, status: ServerStatus) -> None:
    """Serve until a signal says to stop."""
    with (
        Service(answerer, options.service) as service,
        Uploads(options.largest_video_bytes, options.uploads_bytes) as uploads,
    ):
        server = Server(service, Folders(options.folders), uploads)
        limit = options.largest_video_bytes * 4 // 3 + (1 << 20)
        hosts = None if options.api_key else _LOOPBACK
        public = Guard(build_app(server), key=options.api_key, hosts=hosts, largest_body_bytes=limit)
        asyncio.run(_run(service, public, listening, options, status))


async def _run(
    service: Service, app: ASGIApp, listening: socket.socket, options: ServeOptions, status: ServerStatus
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_LAST_SECONDS)
    listener = _Listener(config)
    local = LocalServer(service, status.id, status.token)
    with status.announced():
        async with local.listening(status.socket):
            public = asyncio.create_task(listener.serve(sockets=[listening]))
            while not stop.is_set() and service.failure is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1)
            service.stop_accepting()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.grace_seconds):
                    while service.num_requests:
                        await asyncio.sleep(_LOOK_SECONDS)
            service.cut()
            listener.should_exit = True
            await public


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. OSError where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening
