"""Windows of a video in one request: a line and an object each, and nothing of it alters what a range gives."""

import base64
import json
import shutil
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from sfvqa.errors import ServerBusyError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.sight import OpenVideo
from sfvqa.serve.waiting_room import ServiceOptions
from sfvqa.serve.windows import ask_of_each
from sfvqa.video.fitting import FitWithin
from sfvqa.video.readers import VideoBeingOpened, VideoReader, open_video
from sfvqa.video.windows import WindowsReader
from tests.serve.conftest import client_of
from tests.serve.serving import PATIENCE_SECONDS, SHAPES, Served, about, serving, until
from tests.serve.test_openai_client import DIGIT, ask, text_of
from tests.video.readers.test_damaged import wipe_group
from tests.video.videos import Recipe, constant_rate, write_video

SEVEN, NONE = "The digit 7 is shown.", "No digit is shown."
LINES = [f"0:00–0:02  {SEVEN}", f"0:02–0:04  {NONE}", f"0:04–0:05  {NONE}"]


def test_a_line_and_an_object_a_window(client: openai.OpenAI) -> None:
    completion = ask(client, {**about(SHAPES, DIGIT), "sfvqa": {"window": "2s"}})
    assert text_of(completion).split("\n") == LINES
    records = completion.sfvqa["windows"]
    assert [record["window"]["start_seconds"] for record in records] == [0.0, 2.0, 4.0]
    assert [record["answer"] for record in records] == [SEVEN, NONE, NONE]
    assert completion.usage.completion_tokens == sum(record["tokens"]["new"] for record in records)
    alone = ask(client, {**about(SHAPES, DIGIT), "sfvqa": {"start": 2, "end": 4}}).sfvqa
    for name in ("answer", "frames", "video", "settings"):
        assert records[1][name] == alone[name]
    assert alone["window"] is None


@pytest.mark.parametrize("has_place", [True, False])
def test_the_video_is_opened_once_for_all_windows(
    tiny: VideoQA, monkeypatch: pytest.MonkeyPatch, has_place: bool
) -> None:
    """Each window opened it: of two hours that took longer than to look at the window."""
    opened: list[Path] = []

    class Noted(VideoBeingOpened):
        def reader(self) -> VideoReader:
            opened.append(SHAPES)
            return super().reader()

    monkeypatch.setattr("sfvqa.serve.sight.VideoBeingOpened", Noted)
    with serving(tiny, SHAPES.parent, options=ServiceOptions(num_readers=1)) as served:
        places = served.server.open_videos
        assert has_place or places.acquire(blocking=False)
        completion = ask(client_of(served), {**about(SHAPES, DIGIT), "sfvqa": {"window": "2s"}})
        assert text_of(completion).split("\n") == LINES
        read = [record["timings"]["read_seconds"] for record in completion.sfvqa["windows"]]
        assert len(opened) == (0 if has_place else 3)
        assert min(read) > 0
        until(lambda: not has_place or places._value == 1)
        with httpx.stream(
            "POST",
            f"{served.url}/v1/chat/completions",
            json={**about(SHAPES, DIGIT), "stream": True, "sfvqa": {"window": 0.2}},
            timeout=PATIENCE_SECONDS,
        ) as response:
            next(response.iter_lines())
        until(lambda: places._value == (1 if has_place else 0))


def test_a_video_is_not_kept_open_for_one_who_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be laid out only then, in a thread."""
    places, video, closed = threading.Semaphore(1), open_video(SHAPES), threading.Event()
    monkeypatch.setattr(video, "close", closed.set)
    reader = WindowsReader(video, [], FitWithin(64, 64))
    kept_open = OpenVideo(places)
    kept_open.close()
    kept_open.keep(video, reader)
    with kept_open.taken() as taken:
        assert taken is None
    assert (closed.is_set(), places._value) == (True, 1)
    monkeypatch.undo()
    video.close()
    copy = shutil.copy(SHAPES, tmp_path / "copy.mp4")
    kept_open, video = OpenVideo(places), open_video(copy)
    kept_open.keep(video, WindowsReader(video, [], FitWithin(64, 64)))
    with kept_open.taken() as taken:
        assert taken is not None
    with Path(copy).open("ab") as file:
        file.write(b"more")
    with kept_open.taken() as taken:
        assert taken is None
    kept_open.close()
    assert places._value == 1


def test_windows_stream_line_by_line(client: openai.OpenAI) -> None:
    own = {"window": 2, "overlap": 0.5, "end": "0:05", "progress": True}
    chunks = list(ask(client, {**about(SHAPES, DIGIT), "stream": True, "sfvqa": own}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) == 3
    assert [piece.split()[0] for piece in pieces] == ["0:00–0:02", "0:01.5–0:03.5", "0:03–0:05"]
    assert [piece.endswith("\n") for piece in pieces] == [True, True, False]
    assert any("progress" in (chunk.model_extra or {}).get("sfvqa", {}) for chunk in chunks)
    last = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert (last.choices[0].finish_reason, len(last.sfvqa["windows"])) == ("stop", 3)


@pytest.mark.parametrize(
    ("own", "more"),
    [
        ({"overlap": 1}, {}),
        ({"window": 1, "overlap": 1}, {}),
        ({"window": "soon"}, {}),
        ({"window": 0.1, "overlap": 0.09}, {}),
        ({"window": 1, "timestamps": [1.0]}, {}),
        ({"window": 1}, {"response_format": {"type": "json_object"}}),
    ],
)
def test_what_cannot_be_is_refused(client: openai.OpenAI, own: dict[str, object], more: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(client, {**about(SHAPES, DIGIT), **more, "sfvqa": own})
    with pytest.raises(openai.BadRequestError, match="no video"):
        ask(client, {**about(None, DIGIT), "sfvqa": {"window": 1}})


def test_a_window_that_cannot_be_read_is_told_in_its_place(tiny: VideoQA, tmp_path: Path) -> None:
    """In words that do not show where the upload lies."""
    whole = write_video(tmp_path / "whole.mp4", Recipe(constant_rate(150), group=30))
    wiped = wipe_group(whole, tmp_path / "wiped.mp4", 2, first=1, count=29)
    with serving(tiny) as served:
        client = client_of(served)
        with wiped.open("rb") as file:
            upload = client.files.create(file=file, purpose="user_data")
        own = {"window": 0.4, "start": 2, "end": 4}
        completion = ask(client, {**about(upload.id, DIGIT), "sfvqa": own})
        lines = text_of(completion).split("\n")
        assert len(lines) == 5
        assert lines[2].startswith("0:02.8–0:03.2  (None of the")
        assert "“wiped.mp4”" in lines[2]
        record = completion.sfvqa["windows"][2]
        assert (record["status"], record["error"]["type"]) == ("error", "UnreadableVideoError")
        assert str(served.server.uploads.find(upload.id)) not in json.dumps(completion.sfvqa)


def test_a_caller_that_goes_ends_the_windows(served: Served) -> None:
    body = {**about(SHAPES, DIGIT), "stream": True, "sfvqa": {"window": 0.2, "overlap": 0.1}}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS) as response:
        next(response.iter_lines())
    until(lambda: served.service.room.num_requests == 0)


def test_a_caller_that_goes_while_there_is_no_place_ends_the_windows(
    tiny: VideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noticed when there was one again: while others ask without end, never."""
    refused, ended = threading.Event(), threading.Event()

    async def noted(*given: Any) -> AsyncGenerator[Any]:
        try:
            async with aclosing(ask_of_each(*given)) as events:
                async for event in events:
                    yield event
        finally:
            ended.set()

    with serving(tiny, SHAPES.parent) as served:
        submit, asked = served.service.submit, list[Any]()

        def busy_after_the_first(request: Any, tell: Any, work: Any = None) -> Any:
            asked.append(request)
            if len(asked) > 1:
                refused.set()
                raise ServerBusyError("The server is busy.")
            return submit(request, tell, work)

        monkeypatch.setattr(served.service, "submit", busy_after_the_first)
        monkeypatch.setattr("sfvqa.serve.app.ask_of_each", noted)
        body = json.dumps({**about(SHAPES, DIGIT), "sfvqa": {"window": 1}}).encode()
        with served.connect() as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert refused.wait(PATIENCE_SECONDS)
            assert not ended.is_set()
        assert ended.wait(PATIENCE_SECONDS)


def test_an_upload_is_given_up_where_the_caller_goes_while_it_is_taken(
    tiny: VideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken in a thread, behind the end of the request: nothing made room for others in its place."""
    begun, closed, go_on = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(OpenVideo, "close", lambda _: closed.set())
    with serving(tiny) as served:
        uploads = served.server.uploads
        add_data = uploads.add_data

        def slow(address: str) -> Any:
            begun.set()
            assert go_on.wait(PATIENCE_SECONDS)
            return add_data(address)

        monkeypatch.setattr(uploads, "add_data", slow)
        address = f"data:video/mp4;base64,{base64.b64encode(SHAPES.read_bytes()).decode()}"
        body = json.dumps({**about(address, DIGIT), "sfvqa": {"window": 1}}).encode()
        with served.connect() as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert begun.wait(PATIENCE_SECONDS)
        closed.wait(0.5)  # which it does only where it is wrong
        go_on.set()
        until(lambda: [upload.num_users for upload in uploads.all()] == [0])
