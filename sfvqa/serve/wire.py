"""Errors in OpenAI's form, with the status of each, and events on their way from the model's thread to a response."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from sfvqa.errors import (
    ExitCode,
    OutOfMemoryError,
    ServerBusyError,
    ServerStoppingError,
    SfvqaError,
    VideoNotFoundError,
)
from sfvqa.inference.answer import Answer
from sfvqa.serve.request import Event, Request
from sfvqa.serve.service import Service

RETRY_AFTER_SECONDS = 5

_STATUS_OF_KIND: tuple[tuple[type[SfvqaError], int], ...] = (
    (ServerBusyError, 429),
    (ServerStoppingError, 503),
    (OutOfMemoryError, 507),
    (VideoNotFoundError, 404),
)
_STATUS_OF_EXIT_CODE = {ExitCode.USAGE: 400, ExitCode.VIDEO: 422, ExitCode.MODEL: 404}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def status_of(error: Exception) -> int:
    """The HTTP status of an error: 4xx for what the caller can change, else 5xx."""
    if not isinstance(error, SfvqaError):
        return 500
    for kind, status in _STATUS_OF_KIND:
        if isinstance(error, kind):
            return status
    return _STATUS_OF_EXIT_CODE.get(error.exit_code, 500)


def error_object(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """`{"error": {…}}` as OpenAI writes it; `code` is the name of our error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def describe(error: Exception) -> dict[str, Any]:
    """The object of an error; of one that was not raised on purpose only that there was one."""
    message = error.with_flags if isinstance(error, SfvqaError) else "The server failed with this request."
    return error_object(status_of(error), message, type(error).__name__)


def error_response(status: int, message: str, code: str | None = None) -> JSONResponse:
    """A response that says what is wrong."""
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    return JSONResponse(error_object(status, message, code), status, headers)


def response_to(error: Exception) -> JSONResponse:
    """The same of an error."""
    status = status_of(error)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    return JSONResponse(describe(error), status, headers)


async def events_of(service: Service, request: Request, http: HttpRequest) -> AsyncIterator[Event]:
    """Submit a request and yield its events; the last is the answer. Raises what goes wrong.

    A caller that is gone ends them without one: the request is dropped.
    """
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    async def wait_until_gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        events.put_nowait(None)

    job = await run_in_threadpool(service.submit, request, tell)
    watching = asyncio.create_task(wait_until_gone())
    try:
        while (event := await events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Answer):
                return
    finally:
        watching.cancel()
        service.drop(job)
