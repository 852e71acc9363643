"""A server on the user's socket alone, in a thread of this process: `tiny`, announced in SFVQA_RUNTIME_DIR."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import CacheOptions, OutputOptions
from sfvqa.cli.serve import ServerOptions, load_to_serve
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.local import LocalServer
from sfvqa.serve.service import Service
from sfvqa.serve.status import ServerStatus
from sfvqa.serve.waiting_room import ServiceOptions

PATIENCE_SECONDS = 60  # for what is sure to come, on a machine that is busy


@dataclass(frozen=True)
class Running:
    """A server that runs, and what stands behind it."""

    status: ServerStatus
    service: Service

    @property
    def answerer(self) -> VideoQA:
        """Its model."""
        return self.service.answerer


@contextlib.contextmanager
def running(model: ModelOptions | None = None, options: ServiceOptions | None = None) -> Iterator[Running]:
    """Serve while the block runs."""
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
                yield Running(status, service)
            finally:
                loop.call_soon_threadsafe(stop.set)
                thread.join()
                loop.close()
