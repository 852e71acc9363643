"""A server from its first request to its last: listening on a port and on the user's socket, and stopping in order."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from sfvqa.checkpoints.device import leave_cores
from sfvqa.errors import ServerError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.app import Server, build_app
from sfvqa.serve.connection import config_of
from sfvqa.serve.guard import Guard
from sfvqa.serve.local import LocalServer
from sfvqa.serve.service import Service
from sfvqa.serve.sources import LARGEST_DATA_BYTES, Folders, Uploads
from sfvqa.serve.status import ServerStatus
from sfvqa.serve.waiting_room import ServiceOptions
from sfvqa.video.readers import ReadOptions

_LOOK_SECONDS = 0.05
_LAST_SECONDS = 5  # for responses to be sent once every answer is whole or cut
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BESIDE_BYTES = 1 << 20  # of a body, beside the video in it


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, who may ask, and what it takes.

    Any host but loopback needs an `api_key`. `grace_seconds` is what requests have to be answered once it is told to
    stop. `reading` is how videos are read.
    """

    host: str = "127.0.0.1"
    port: int = 8484
    api_key: str | None = None
    folders: Sequence[Path] = ()
    largest_video_bytes: int = 256 << 20
    uploads_bytes: int = 4 << 30
    grace_seconds: float = 30.0
    reading: ReadOptions = field(default_factory=ReadOptions)
    service: ServiceOptions = field(default_factory=ServiceOptions)


class _Listener(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not."""
        yield


class _Stop:
    """Signals: the first lets answers end, the second nothing."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def is_wanted(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    @property
    def is_urgent(self) -> bool:
        """Whether there was another."""
        return self._count > 1

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Count them while the block runs."""

        def count(*_: object) -> None:
            self._count += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(answerer: VideoQA, listening: socket.socket, options: ServeOptions, status: ServerStatus) -> bool:
    """Serve until a signal says to stop; whether everything has ended, then, that may not be left in the middle.

    Raises ServerError, DeviceLostError where it cannot go on.
    """
    leave_cores(answerer.checkpoint.model)
    stop = _Stop()
    with (
        stop.on_signals(),
        Uploads(options.largest_video_bytes, options.uploads_bytes) as uploads,
        Service(answerer, options.service) as service,
    ):
        server = Server(service, Folders(options.folders), uploads, options.reading)
        public = Guard(
            build_app(server),
            service.metrics,
            key=options.api_key,
            hosts=None if options.api_key else _LOOPBACK,
            largest_body_bytes=min(LARGEST_DATA_BYTES, options.largest_video_bytes) * 4 // 3 + _BESIDE_BYTES,
            largest_upload_bytes=options.largest_video_bytes + _BESIDE_BYTES,
        )
        asyncio.run(_run(service, public, listening, options, status, stop))
        if stop.is_urgent:
            service.last_wait_seconds = 0.0
    if service.room.failure is not None:
        raise service.room.failure
    return service.has_ended and not stop.is_urgent  # other threads may read or try a schema, for a minute


async def _run(
    service: Service,
    app: ASGIApp,
    listening: socket.socket,
    options: ServeOptions,
    status: ServerStatus,
    stop: _Stop,
) -> None:
    listener = _Listener(config_of(app, last_seconds=_LAST_SECONDS))
    local = LocalServer(service, status.id, status.token)
    with status.announced():
        async with local.listening(status.socket):
            public = asyncio.create_task(listener.serve(sockets=[listening]))
            await _until(lambda: stop.is_wanted or service.room.failure is not None or public.done())
            has_broken = public.done()
            service.room.stop_accepting()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.grace_seconds):
                    await _until(lambda: stop.is_urgent or not service.room.num_requests)
            service.room.cut()
            listener.should_exit = True
            await _until(lambda: stop.is_urgent or public.done())
            listener.force_exit = True
            await public
    if stop.is_urgent:
        _leave_threads()
    if has_broken:
        raise ServerError("The server does not listen any more.", "Look into its log, and start it again.")


def _leave_threads() -> None:
    """Let this loop end though threads are still at work, and the requests that wait for them without a word."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # which is what a loop waits for
    logging.getLogger("uvicorn.error").disabled = True


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(_LOOK_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. OSError where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":  # there it would take a port from a server that is listening
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening
