"""What every request passes before it is looked at: is it meant for here, may it ask, and how much may it send."""

import asyncio
import hmac
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfvqa.serve.wire import error_response

_PATIENCE_SECONDS = 30.0
"""Without a byte of a body that was announced."""
_OPEN_PATHS = frozenset(("/health", "/", "/page.js", "/page.css"))
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
    None allows any, for a server with a key.
    """

    def __init__(
        self, app: ASGIApp, *, key: str | None, hosts: Collection[str] | None, largest_body_bytes: int
    ) -> None:
        self._app, self._key, self._hosts, self._largest_body_bytes = app, key, hosts, largest_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if (refusal := self._refuse(scope["path"], headers)) is not None:
            status, message = refusal
            await error_response(status, message)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS.items()]
            await send(message)

        await self._app(scope, self._within_limits(receive), send_with_headers)

    def _refuse(self, path: str, headers: MutableMapping[bytes, str]) -> tuple[int, str] | None:
        host = urlsplit(f"//{headers.get(b'host', '')}").hostname
        if self._hosts is not None and host not in self._hosts:
            return 421, "This server does not answer under that name."
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != headers.get(b"host"):
            return 403, "Pages of other servers may not ask here."
        given = headers.get(b"authorization", "").removeprefix("Bearer ").strip()
        needs_key = self._key is not None and path not in _OPEN_PATHS
        if needs_key and not hmac.compare_digest(given.encode("utf-8", "replace"), str(self._key).encode()):
            return 401, "The API key is missing or wrong. Send it as “Authorization: Bearer KEY”."
        return None

    def _within_limits(self, receive: Receive) -> Receive:
        """The same, with an end where the body is too large or does not come."""
        num_bytes, is_whole = 0, False

        async def limited() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    message: dict[str, Any] = dict(await receive())
            except TimeoutError:
                raise HTTPException(408, "The body of the request did not come.") from None
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._largest_body_bytes:
                raise HTTPException(413, "The body of the request is too large for this server.")
            is_whole = not message.get("more_body", False)
            return message

        return limited
