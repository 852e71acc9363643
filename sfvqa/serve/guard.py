"""What every request passes before it is looked at: is it meant for here, may it ask, and how much may it send."""

import asyncio
import hmac
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfvqa.serve.metrics import Metrics
from sfvqa.serve.page import PAGE_FILES
from sfvqa.serve.wire import error_response

PATIENCE_SECONDS = 30.0
"""For a body to begin, beside what sending it takes at the slowest rate that is waited for."""
_SLOWEST_BYTES_A_SECOND = 50_000
_BODIES_AT_ONCE = 4  # of the largest size, in memory or on their way to the disk
_UPLOAD_PATH = "/v1/files"
_OPEN_PATHS = frozenset(("/health", *PAGE_FILES))
"""What anybody may see: that there is a server, and a page that asks for the key."""
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    b"media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """ASGI middleware: Host and Origin must be the server's own, the key right, the body no larger than it may be.

    Without the check of Host a web page elsewhere could reach a server on this machine under a name of its own. `hosts`
    None allows any, for a server with a key. A body may have `largest_body_bytes`, an upload `largest_upload_bytes`,
    and all that are here at a time four times that.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        key: str | None,
        hosts: Collection[str] | None,
        largest_body_bytes: int,
        largest_upload_bytes: int = 0,
    ) -> None:
        self._app, self._metrics, self._key, self._hosts = app, metrics, key, hosts
        self._largest = {False: largest_body_bytes, True: max(largest_upload_bytes, largest_body_bytes)}
        self._num_held = {False: 0, True: 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS.items()]
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if (refusal := self._refuse(scope["path"], headers)) is not None:
                await error_response(*refusal)(scope, receive, send_with_headers)
            else:
                await self._let_through(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.http.labels(route, str(status)).inc()

    def _refuse(self, path: str, headers: Mapping[bytes, str]) -> tuple[int, str] | None:
        host = headers.get(b"host", "")
        if self._hosts is not None and _name_in(f"//{host}") not in self._hosts:
            return 421, "This server does not answer under that name."
        origin = headers.get(b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return 403, "Pages of other servers may not ask here."
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        known = (self._key or "").encode()
        is_right = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), known)
        if self._key is not None and path not in _OPEN_PATHS and not is_right:
            return 401, "The API key is missing or wrong. Send it as “Authorization: Bearer KEY”."
        announced = headers.get(b"content-length", "0")
        if len(announced) > 15 or int(announced) > self._largest[path == _UPLOAD_PATH]:
            return 413, _TOO_LARGE
        return None

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With an end where the body is too large or does not come."""
        is_upload, num_bytes, is_whole = scope["path"] == _UPLOAD_PATH, 0, False
        began = asyncio.get_running_loop().time()

        async def limited() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(began + PATIENCE_SECONDS + num_bytes / _SLOWEST_BYTES_A_SECOND):
                    message: dict[str, Any] = dict(await receive())
            except TimeoutError:
                raise HTTPException(408, "The body of the request did not come in time.") from None
            size = len(message.get("body", b""))
            num_bytes += size
            self._num_held[is_upload] += size
            if num_bytes > self._largest[is_upload]:
                raise HTTPException(413, _TOO_LARGE)
            if self._num_held[is_upload] > _BODIES_AT_ONCE * self._largest[is_upload]:
                raise HTTPException(429, "The server is taking in as much as it can. Send it again later.")
            is_whole = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._num_held[is_upload] -= num_bytes


_TOO_LARGE = "The body of the request is too large for this server; upload videos to /v1/files, larger ones not at all."


def _name_in(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
