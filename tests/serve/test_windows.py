"""Windows of a video in one request: a line and an object each, and nothing of it alters what a range gives."""

import json
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
from sfvqa.serve.windows import ask_of_each
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
