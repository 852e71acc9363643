"""uvicorn's connections, bounded: in number, and in how long one may stay open on which nothing is asked."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from sfvqa.serve.guard import PATIENCE_SECONDS

MOST_CONNECTIONS = 256
"""That are served at a time; as many more are told that there are too many, and what is beyond that is closed."""


class Connection(H11Protocol):
    """Closed when the headers of a request do not come: uvicorn itself waits for ever for the first byte of one."""

    patience_seconds = PATIENCE_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch it."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > 2 * MOST_CONNECTIONS:
            self.transport.abort()
        else:
            self._watch(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End that."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self, last: RequestResponseCycle | None) -> None:
        """Look in a while whether anything was asked since the request before, which is over."""
        self._timer = self.loop.call_later(self.patience_seconds, self._look, last)

    def _look(self, last: RequestResponseCycle | None) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.abort()
        else:
            self._watch(self.cycle if is_idle else None)


def config_of(app: Any, *, last_seconds: int) -> uvicorn.Config:
    """How uvicorn serves an app here: silently, for HTTP alone; `last_seconds` are for responses to be sent at last."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=last_seconds,
    )
