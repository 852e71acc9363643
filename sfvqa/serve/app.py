"""The HTTP side of `sfvqa serve`: routes over a Service and the videos that a request may name."""

import json
import os
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sfvqa.errors import ServerError, ServerStoppingError, SfvqaError, UsageError
from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodeProgress
from sfvqa.inference.question import PromptOptions
from sfvqa.serve import openai
from sfvqa.serve.metrics import CONTENT_TYPE
from sfvqa.serve.openai import ChatRequest, SchemaFormat
from sfvqa.serve.page import add_page
from sfvqa.serve.request import Event
from sfvqa.serve.request import Request as Asked
from sfvqa.serve.service import Service
from sfvqa.serve.sight import OpenVideo
from sfvqa.serve.sources import Folders, Upload, Uploads, or_no_room
from sfvqa.serve.windows import WindowsAnswer, ask_of_each, lay_out
from sfvqa.serve.wire import (
    AsciiResponse,
    Trials,
    describe,
    error_response,
    events_of,
    is_gone_within,
    parsed,
    response_to,
)
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.windows import WindowOptions

GONE = 499
"""The status, known from nginx, of what nobody is there to read."""
_PIECE_BYTES = 1 << 20
_LONGEST_NAME = 100  # of an upload
_LONGEST_PLACE = 100  # of what is wrong in a request: it may be the caller's own words


@dataclass(frozen=True)
class Server:
    """What the routes work on: the model's service, the videos that can be named, and how these are read."""

    service: Service
    folders: Folders
    uploads: Uploads
    reading: ReadOptions = field(default_factory=ReadOptions)
    schema_trials: Trials = field(default_factory=partial(Trials, "schemas"))
    window_trials: Trials = field(default_factory=partial(Trials, "windows"))

    @cached_property
    def open_videos(self) -> threading.Semaphore:
        """Places for videos that stay open while one window after the other is asked about."""
        return threading.Semaphore(self.service.options.num_readers)

    @property
    def model_name(self) -> str:
        """The only model there is."""
        return self.service.answerer.checkpoint.location.name

    def find(self, address: str, using: ExitStack) -> Path | Upload:
        """The video that an address names; an upload stays while `using` is open. UsageError, VideoNotFoundError."""
        scheme = address[:5].lower()
        if scheme == "file:":
            return self.folders.find(address)
        if scheme == "data:":
            upload = self.uploads.add_data(address)
        elif address.startswith("file-"):
            upload = self.uploads.use(address)
        else:
            raise UsageError(
                "The video is at an address that this server does not fetch.",
                "Send it as data:, upload it to /v1/files, or name it by file:// in a folder of the server.",
            )
        using.callback(self.uploads.release, upload)
        return upload

    def asked(self, chat: ChatRequest, using: ExitStack) -> Asked:
        """What a chat request asks of the model. UsageError, VideoError."""
        answerer, own = self.service.answerer, chat.sfvqa
        said = openai.read_conversation(chat.messages)
        source = None if said.video is None else self.find(said.video, using)
        return Asked(
            question=said.question,
            video=source.path if isinstance(source, Upload) else source,
            sampling=own.sampling_options(answerer.default_sampling, self.service.options.most_frames),
            crop=CropMode(own.crop) if own.crop else answerer.default_crop,
            reading=self.reading,
            history=said.history,
            prompt=PromptOptions(said.system, own.template),
            generation=chat.generation(),
            choices=None if own.choices is None else tuple(own.choices),
            shown_as=Path(source.name) if isinstance(source, Upload) else None,
        )


def build_app(server: Server) -> FastAPI:
    """The app without its guard."""
    app = FastAPI(title="sfvqa", docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _add_chat(app, server)  # first: routes are tried in order
    _add_facts(app, server)
    _add_files(app, server)
    add_page(app, server)
    return app


def _add_facts(app: FastAPI, server: Server) -> None:
    service = server.service
    service.metrics.show("sfvqa_upload_bytes", "Uploads on disk.", lambda: server.uploads.num_bytes)

    @app.get("/health")
    async def health() -> Response:
        if service.room.failure is not None:
            return response_to(service.room.failure)
        if not service.room.is_accepting:
            return response_to(ServerStoppingError("The server is stopping."))
        return AsciiResponse({"status": "ok", "model": server.model_name})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(server)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        _check_model(name, server)
        return _model(server)


def _add_chat(app: FastAPI, server: Server) -> None:
    async def chat_completions(http: Request) -> Response:
        chat = parsed(ChatRequest, await http.body())
        _check_model(chat.model, server)
        events = _events(server, chat, http)
        first = await anext(events, None)  # an error before it has a status of its own
        if chat.stream:
            return StreamingResponse(_as_stream(first, events, chat, server), media_type="text/event-stream")
        async with aclosing(events):
            if isinstance(first, Answer | WindowsAnswer):
                return AsciiResponse(openai.completion(first, _new_id(), int(time.time())))
        return Response(status_code=GONE)

    app.add_route("/v1/chat/completions", chat_completions, methods=["POST"])  # with nothing for FastAPI to solve


def _add_files(app: FastAPI, server: Server) -> None:
    uploads = server.uploads

    @app.post("/v1/files")
    async def upload(http: Request) -> dict[str, Any]:
        with or_no_room():  # the form is written to the disk while it comes
            async with http.form(max_files=1, max_fields=10) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise UsageError("The form has no file.", "Send the video as the field “file”.")
                return _file(await run_in_threadpool(_store, uploads, file))

    @app.get("/v1/files")
    async def uploaded() -> dict[str, Any]:
        return {"object": "list", "data": [_file(each) for each in uploads.all()], "has_more": False}

    @app.get("/v1/files/{upload_id}")
    async def one_upload(upload_id: str) -> dict[str, Any]:
        return _file(uploads.find(upload_id))

    @app.delete("/v1/files/{upload_id}")
    async def delete(upload_id: str) -> dict[str, Any]:
        uploads.remove(upload_id)
        return {"id": upload_id, "object": "file", "deleted": True}

    @app.get("/sfvqa/videos")
    def videos() -> dict[str, Any]:
        found = [{"url": path.as_uri(), "name": _readable(path.name)} for path in server.folders.videos()]
        return {"videos": found}


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(SfvqaError)
    async def on_purpose(_: Request, error: SfvqaError) -> Response:
        return response_to(error)

    @app.exception_handler(ValidationError)
    async def invalid(_: Request, error: ValidationError) -> Response:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:_LONGEST_PLACE]
        return error_response(400, f"The request is not valid{f' at {place}' if place else ''}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, str(error.detail))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> Response:  # which uvicorn logs
        return error_response(500, "The server failed with this request.", ServerError.__name__)


async def _events(server: Server, chat: ChatRequest, http: Request) -> AsyncGenerator[Event | WindowsAnswer]:
    """What happens to a request, as far as it wants to know. Raises what goes wrong, in words that show no path."""
    wanted = (*((str,) if chat.stream else ()), *((EncodeProgress,) if chat.stream and chat.sfvqa.progress else ()))
    if isinstance(chat.response_format, SchemaFormat):
        await server.schema_trials.run(chat.response_format.schema_to_write_by, http)
    asked: Asked | None = None

    def ask() -> Asked:
        nonlocal asked
        asked = server.asked(chat, using)
        return asked

    with ExitStack() as using:
        events: AsyncGenerator[Event | WindowsAnswer] = (
            events_of(server.service, ask, http, wanted=wanted)
            if (windows := chat.sfvqa.windows()) is None
            else _window_events(server, windows, ask, http, wanted, using)
        )
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except SfvqaError as error:
            raise _as_named(error, asked) from None


async def _window_events(
    server: Server,
    windows: WindowOptions,
    ask: Callable[[], Asked],
    http: Request,
    wanted: tuple[type, ...],
    using: ExitStack,
) -> AsyncGenerator[Event | WindowsAnswer]:
    """The same of a request about windows: the text comes by the line, not by the piece."""
    kept_open = OpenVideo(server.open_videos)
    using.callback(threading.Thread(target=kept_open.close, daemon=True).start)  # somebody may be reading it

    # Waited for even where the caller goes, unlike a trial: or an upload could be taken after `using` gave up all.
    asked = replace(await run_in_threadpool(ask), kept_open=kept_open)
    fit = server.service.answerer.fit(asked.crop)
    planned = await server.window_trials.run(lambda: lay_out(asked, windows, fit, kept_open), http)

    async def ask_one(request: Asked) -> AsyncGenerator[Event]:
        unwritten = tuple(kind for kind in wanted if kind is not str)
        try:
            async with aclosing(events_of(server.service, lambda: request, http, wanted=unwritten)) as events:
                async for event in events:
                    yield event
        except SfvqaError as error:
            raise _as_named(error, asked) from None

    answered = ask_of_each(asked, planned, ask_one, server.model_name, partial(is_gone_within, http))
    async with aclosing(answered) as events:
        async for event in events:
            if not isinstance(event, str) or str in wanted:
                yield event


def _as_named(error: SfvqaError, asked: Asked | None) -> SfvqaError:
    """The error in words that show no path but the one that the caller gave."""
    if asked is None or asked.shown_as is None:
        return error
    return type(error)(error.message.replace(str(asked.video), str(asked.shown_as)), error.remedy)


async def _as_stream(
    first: Event | WindowsAnswer, events: AsyncGenerator[Event | WindowsAnswer], chat: ChatRequest, server: Server
) -> AsyncIterator[str]:
    """Server-sent events: a chunk a piece, then why it ended, what was asked for beside, and the end mark."""
    completion_id, created = _new_id(), int(time.time())

    def line(**more: Any) -> str:
        return f"data: {json.dumps(openai.chunk(completion_id, created, server.model_name, **more))}\n\n"

    async with aclosing(events):
        yield line(delta={"role": "assistant", "content": ""})
        event = first
        try:
            while event is not None:
                if isinstance(event, str):
                    yield line(delta={"content": event})
                elif isinstance(event, EncodeProgress):
                    yield line(sfvqa={"progress": {"stage": event.stage, "done": event.done, "total": event.total}})
                elif isinstance(event, Answer | WindowsAnswer):
                    ending = {"logprobs": openai.logprobs(event), "finish_reason": openai.finish_reason(event)}
                    yield line(delta={}, **ending, sfvqa=event.to_dict())
                    if chat.stream_options and chat.stream_options.include_usage:
                        yield line(usage=openai.usage(event))
                    yield "data: [DONE]\n\n"
                event = await anext(events, None)
        except Exception as error:  # noqa: BLE001  the status is sent; the stream says what went wrong
            yield f"data: {json.dumps(describe(error)[1])}\n\n"


def _store(uploads: Uploads, file: UploadFile) -> Upload:
    name = Path(file.filename or "").name[-_LONGEST_NAME:]
    with uploads.writing(name or "video") as writing:
        while piece := file.file.read(_PIECE_BYTES):
            writing.write(piece)
    assert writing.upload is not None
    uploads.release(writing.upload)
    return writing.upload


def _check_model(name: str, server: Server) -> None:
    if name != server.model_name:
        raise HTTPException(404, f"The model “{name[:80]}” is not served here; {server.model_name} is.")


def _model(server: Server) -> dict[str, Any]:
    return {"id": server.model_name, "object": "model", "created": 0, "owned_by": "sfvqa"}


def _file(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.num_bytes,
        "created_at": upload.created_at,
        "filename": upload.name,
        "purpose": "user_data",
        "status": "processed",
    }


def _readable(name: str) -> str:
    """The name of a file, with replacement characters for bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"
