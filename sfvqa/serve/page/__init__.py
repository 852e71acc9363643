"""The page at `/`: its files, what it has to know of the model, and the pictures it shows."""

import asyncio
import base64
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from sfvqa.errors import ServerBusyError, VideoError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.serve.filmstrip import LARGEST_SIDE, MOST_FRAMES, Filmstrip, read_filmstrip
from sfvqa.serve.sources import Upload
from sfvqa.serve.wire import parsed

if TYPE_CHECKING:
    from sfvqa.serve.app import Server

PAGE_FILES = {"/": "index.html", **{f"/{name}": name for name in ("page.js", "server.js", "page.css", "icon.svg")}}
"""What anybody may fetch, by its address: it holds nothing of the user's."""
_READ_AT_ONCE, _MOST_WAITING = 2, 16
_LONGEST_SECONDS = 60.0  # of reading, however long a question may wait for it


class _Wanted(BaseModel):
    """The body of `/sfvqa/filmstrip`: frames by their places in the file, or `count` of them, evenly spread."""

    model_config = ConfigDict(extra="forbid", strict=True)
    video: str
    indices: Annotated[list[Annotated[int, Field(ge=0)]] | None, Field(min_length=1, max_length=MOST_FRAMES)] = None
    count: Annotated[int, Field(ge=1, le=MOST_FRAMES)] = 8
    side: Annotated[int, Field(ge=16, le=LARGEST_SIDE)] = 160


def add_page(app: FastAPI, server: "Server") -> None:
    """Add the routes of the page to an app."""
    turn, waiting = asyncio.Semaphore(_READ_AT_ONCE), 0

    for address, name in PAGE_FILES.items():
        app.add_api_route(address, _sender_of(Path(__file__).with_name(name)), methods=["GET"])

    @app.get("/sfvqa/model")
    async def model() -> dict[str, Any]:
        return _facts(server)

    @app.post("/sfvqa/filmstrip")
    async def filmstrip(http: Request) -> dict[str, Any]:
        nonlocal waiting
        wanted = parsed(_Wanted, await http.body())
        if waiting >= _MOST_WAITING:
            raise ServerBusyError("The server is reading enough pictures already.", "Ask again later.")
        waiting += 1
        try:
            async with turn:
                return await run_in_threadpool(_read, server, wanted)
        finally:
            waiting -= 1


def _sender_of(file: Path) -> Any:
    async def send() -> FileResponse:
        return FileResponse(file, headers={"cache-control": "no-cache"})

    return send


def _facts(server: "Server") -> dict[str, Any]:
    """What the settings begin with, and whether there is evidence of where an answer looked."""
    answerer, sampling = server.service.answerer, server.service.answerer.default_sampling
    return {
        "name": server.model_name,
        "gives_evidence": bool(answerer.checkpoint.model.config.hybrid_layers),
        "num_frames": sampling.num_frames,
        "max_tokens": GenerationOptions().max_new_tokens,
        "largest_video_bytes": server.uploads.largest_bytes,
    }


def _read(server: "Server", wanted: _Wanted) -> dict[str, Any]:
    reading = replace(server.reading, timeout_seconds=min(server.reading.timeout_seconds, _LONGEST_SECONDS))
    with ExitStack() as using:
        source = server.find(wanted.video, using)
        path = source.path if isinstance(source, Upload) else source
        try:
            return _described(read_filmstrip(path, wanted.indices or wanted.count, wanted.side, reading))
        except VideoError as error:
            raise type(error)(error.message.replace(str(path), source.name), error.remedy) from None


def _described(strip: Filmstrip) -> dict[str, Any]:
    video = strip.video
    return {
        "duration_seconds": video.duration_seconds,
        "width": video.width,
        "height": video.height,
        "indices": strip.indices,
        "timestamps_seconds": strip.timestamps_seconds,
        "missing": strip.missing,
        "columns": strip.columns,
        "jpeg": base64.b64encode(strip.jpeg).decode(),
    }
