"""Errors in OpenAI's form, with the status of each, and events on their way from the model's thread to a response."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from sfvqa.errors import (
    ExitCode,
    OutOfMemoryError,
    SchemaNotMetError,
    ServerBusyError,
    ServerStoppingError,
    SfvqaError,
    UsageError,
    VideoNotFoundError,
)
from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodeProgress
from sfvqa.serve.request import Event, Request, to_be_told
from sfvqa.serve.service import Service

Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")

RETRY_AFTER_SECONDS = 5
_TRIED_AT_ONCE, _MOST_TRIED = 2, 16  # schemas, with those that wait
_MOST_PARTS = 200_000  # of a body; base64, which makes one large, has none


class AsciiResponse(JSONResponse):
    """JSON with all but ASCII escaped, which can also hold the name of a file that is no UTF-8."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


_STATUS_OF_KIND: tuple[tuple[type[SfvqaError], int], ...] = (
    (ServerBusyError, 429),
    (ServerStoppingError, 503),
    (OutOfMemoryError, 507),
    (VideoNotFoundError, 404),
    (SchemaNotMetError, 422),
)
_STATUS_OF_EXIT_CODE = {ExitCode.USAGE: 400, ExitCode.VIDEO: 422, ExitCode.MODEL: 404}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def parsed(kind: type[Body], body: bytes) -> Body:
    """A body as JSON, while which nothing else is answered: UsageError for one of more parts than are soon read."""
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_PARTS:
        raise UsageError(f"The request has more than {_MOST_PARTS:,} commas and brackets.", "Ask for less at once.")
    return kind.model_validate_json(body)


def status_of(error: SfvqaError) -> int:
    """The HTTP status of an error: 4xx for what the caller can change, else 5xx."""
    for kind, status in _STATUS_OF_KIND:
        if isinstance(error, kind):
            return status
    return _STATUS_OF_EXIT_CODE.get(error.exit_code, 500)


def error_object(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """`{"error": {…}}` as OpenAI writes it; `code` is the name of our error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the object of an error; of one that was not raised on purpose only that there was one."""
    told = error if isinstance(error, SfvqaError) else to_be_told(error)
    status = status_of(told)
    return status, error_object(status, told.with_flags, type(told).__name__)


def error_response(status: int, message: str, code: str | None = None) -> AsciiResponse:
    """A response that says what is wrong."""
    return _response(status, error_object(status, message, code))


def response_to(error: Exception) -> AsciiResponse:
    """The same of an error."""
    return _response(*describe(error))


def _response(status: int, content: dict[str, Any]) -> AsciiResponse:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return AsciiResponse(content, status, headers)


class Trials:
    """Tries what requests bring along, two at once: each may take a process, seconds and gigabytes.

    `what` it is stands in the error where too many wait.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._threads = ThreadPoolExecutor(_TRIED_AT_ONCE, f"{what}-trials")
        self._trials: set[Future[Any]] = set()

    async def run(self, attempt: Callable[[], T], http: HttpRequest) -> T:
        """What an attempt gives.

        Raises what it raises, ServerBusyError where too many wait, ClientDisconnect once the caller is gone, whose
        attempt does not begin.
        """
        if len(self._trials) >= _MOST_TRIED:
            raise ServerBusyError(f"The server is trying enough {self._what} already.", "Ask again later.")
        trial = self._threads.submit(attempt)
        self._trials.add(trial)
        trial.add_done_callback(self._trials.discard)
        result, gone = asyncio.wrap_future(trial), asyncio.create_task(_until_gone(http))
        try:
            await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise ClientDisconnect
            return await result
        finally:
            gone.cancel()
            result.cancel()


async def _until_gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def is_gone_within(http: HttpRequest, seconds: float) -> bool:
    """Wait so long for the caller to go, and say whether it has."""
    try:
        await asyncio.wait_for(_until_gone(http), seconds)
    except TimeoutError:
        return False
    return True


async def events_of(
    service: Service, ask: Callable[[], Request], http: HttpRequest, *, wanted: tuple[type, ...] = (str, EncodeProgress)
) -> AsyncGenerator[Event]:
    """Submit what `ask` gives, in a thread; yield the `wanted` events, and the answer as the last.

    Raises what goes wrong. A caller that is gone ends them without an answer: the request is dropped.
    """
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

    def tell(event: Event) -> None:
        if isinstance(event, (*wanted, Answer, Exception)):
            loop.call_soon_threadsafe(events.put_nowait, event)

    job = await run_in_threadpool(lambda: service.submit(ask(), tell))

    async def wait_until_gone() -> None:
        await _until_gone(http)
        service.room.drop(job)
        events.put_nowait(None)

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
        service.room.drop(job)
