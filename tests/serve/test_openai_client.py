"""The real openai client against the server: what it sends is understood, and what it gets, too."""

import base64
import contextlib
import errno
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, Literal, cast

import httpx
import openai
import pydantic
import pytest
from starlette.datastructures import UploadFile

from sfvqa.inference import schema
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve import wire
from tests.serve.hostile import request
from tests.serve.serving import FLASH, PATIENCE_SECONDS, SHAPES, Served, about, ask_json, serving, until

FLASHES, DIGIT = "What colour does the screen flash?", "Which digit is shown?"


def ask(client: openai.OpenAI, body: dict[str, Any]) -> Any:
    """Ask, with our own fields as the client has it for those it does not know."""
    own = body.pop("sfvqa", None)
    return client.chat.completions.create(**body, extra_body={"sfvqa": own} if own else None)


def text_of(completion: Any) -> str:
    return cast("str", completion.choices[0].message.content)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "sfvqa"
    with pytest.raises(openai.NotFoundError, match=r"“other” is not served here; tiny is"):
        client.models.retrieve("other")


def test_a_question_without_a_video(client: openai.OpenAI) -> None:
    completion = ask(client, about(None, "What is the weather like?"))
    assert "synthetic videos" in text_of(completion)
    assert completion.choices[0].finish_reason == "stop"


def test_a_video_in_a_folder_as_data_and_as_upload(client: openai.OpenAI) -> None:
    """The same answer, whichever way the video comes."""
    data = f"data:video/mp4;base64,{base64.b64encode(SHAPES.read_bytes()).decode()}"
    with SHAPES.open("rb") as file:
        upload = client.files.create(file=file, purpose="user_data")
    assert (upload.bytes, upload.filename) == (SHAPES.stat().st_size, "shapes.mp4")
    assert upload.id in [each.id for each in client.files.list()]
    said = [ask(client, about(video, FLASHES)) for video in (SHAPES, data, upload.id)]
    assert [text_of(each) for each in said] == ["The screen flashes green."] * 3
    assert [each.sfvqa["video"] for each in said] == [str(SHAPES), "video.mp4", "shapes.mp4"]
    part: Any = {"type": "file", "file": {"file_id": upload.id}}
    by_part: Any = {"role": "user", "content": [part, {"type": "text", "text": DIGIT}]}
    assert text_of(client.chat.completions.create(model="tiny", messages=[by_part])) == "The digit 7 is shown."
    assert client.files.delete(upload.id).deleted
    with pytest.raises(openai.NotFoundError, match="Upload the video again"):
        ask(client, about(upload.id, FLASHES))


def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    body = about(FLASH, "Describe the video.", sfvqa={"progress": True})
    whole = ask(client, about(FLASH, "Describe the video."))
    chunks = list(ask(client, {**body, "stream": True, "stream_options": {"include_usage": True}}))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 5
    assert "".join(pieces) == text_of(whole)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    usage = [chunk.usage for chunk in chunks if chunk.usage]
    assert (usage[0].prompt_tokens, usage[0].completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    own = [chunk.sfvqa for chunk in chunks if hasattr(chunk, "sfvqa")]
    assert own[-1]["answer"] == text_of(whole)


def test_progress_is_told_where_it_is_wanted(client: openai.OpenAI) -> None:
    wanted = {"progress": True, "frames": 9}
    chunks = list(ask(client, about(SHAPES, DIGIT, stream=True, sfvqa=wanted)))
    stages = [chunk.sfvqa["progress"]["stage"] for chunk in chunks if "progress" in getattr(chunk, "sfvqa", {})]
    assert {"read", "encode"} <= set(stages)
    unwanted = list(ask(client, about(SHAPES, DIGIT, stream=True, sfvqa={"frames": 10})))
    assert not any("progress" in getattr(chunk, "sfvqa", {}) for chunk in unwanted)


def test_several_turns(client: openai.OpenAI) -> None:
    """A message that came from the server goes back as the client has it, nulls and all."""
    messages: list[Any] = about(SHAPES, FLASHES)["messages"]
    first = client.chat.completions.create(model="tiny", messages=messages).choices[0].message
    messages += [first, {"role": "user", "content": DIGIT}]
    second: Any = client.chat.completions.create(model="tiny", messages=messages)
    assert text_of(second) == "The digit 7 is shown."
    assert second.usage.prompt_tokens_details.cached_tokens > 60  # the video, at least


def test_own_fields(client: openai.OpenAI) -> None:
    choices = ["The circle moves left.", "The circle moves right."]
    chosen = ask(client, about(SHAPES, "Which way does the circle move?", sfvqa={"choices": choices}))
    assert text_of(chosen) == choices[0]
    assert chosen.sfvqa["choices"][0]["probability"] > 0.9
    looked = ask(client, about(SHAPES, FLASHES, sfvqa={"evidence": True, "frames": 16, "start": "0:01", "end": 4}))
    assert looked.sfvqa["frames"]["count"] == len(looked.sfvqa["evidence"]) == 16
    assert looked.sfvqa["frames"]["timestamps_seconds"][0] >= 0.9
    assert looked.sfvqa["timings"]["ttft_seconds"] > 0


def test_how_the_answer_is_written(client: openai.OpenAI) -> None:
    cut = ask(client, about(SHAPES, "Describe the video.", max_tokens=4))
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 4
    stopped = ask(client, about(SHAPES, "Describe the video.", stop=[" circle", "never"]))
    assert text_of(stopped) == "A red"
    assert stopped.choices[0].finish_reason == "stop"
    drawn = [
        ask(client, about(SHAPES, "Describe the video.", temperature=9, top_p=0.99, seed=seed)) for seed in (1, 1, 2)
    ]
    assert text_of(drawn[0]) == text_of(drawn[1]) != text_of(drawn[2])
    assert drawn[0].sfvqa["settings"]["temperature"] == 9


def test_log_probabilities_come_in_the_client_s_form(client: openai.OpenAI) -> None:
    """Whole and streamed; of windows they stand in the object of each."""
    completion = ask(client, about(SHAPES, FLASHES, logprobs=True, top_logprobs=0))
    tokens: Any = completion.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == text_of(completion)
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == text_of(completion)
    assert [token.logprob for token in tokens] == [
        token["log_probability"] for token in completion.sfvqa["log_probabilities"]
    ]
    assert all(-1 < token.logprob <= 0 for token in tokens)
    chunks = list(ask(client, about(SHAPES, FLASHES, logprobs=True, stream=True)))
    streamed = [
        token for chunk in chunks for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content
    ]
    assert streamed == tokens
    windows = ask(client, about(SHAPES, FLASHES, logprobs=True, sfvqa={"window": 3}))
    assert windows.choices[0].logprobs is None
    assert all(each["log_probabilities"] for each in windows.sfvqa["windows"])
    assert ask(client, about(SHAPES, FLASHES)).choices[0].logprobs is None


def test_top_k_is_an_own_field(client: openai.OpenAI) -> None:
    drawn = ask(client, about(SHAPES, FLASHES, temperature=9, sfvqa={"top_k": 1}))
    assert text_of(drawn) == "The screen flashes green."
    assert drawn.sfvqa["settings"]["top_k"] == 1


def test_answers_as_json(client: openai.OpenAI) -> None:
    """By a schema, by the client's own class, and as any object."""
    schema: dict[str, Any] = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}}
    schema |= {"required": ["colour"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "flash", "schema": schema, "strict": True}}
    completion = ask(client, about(SHAPES, FLASHES, response_format=wanted))
    assert json.loads(text_of(completion)) == completion.sfvqa["fields"]
    assert completion.sfvqa["fields"]["colour"] in ("red", "green")

    class Flash(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        colour: Literal["red", "green"]

    messages: Any = about(SHAPES, FLASHES)["messages"]
    parsed = client.chat.completions.parse(model="tiny", messages=messages, response_format=Flash)
    assert parsed.choices[0].message.parsed is not None
    assert parsed.choices[0].message.parsed.colour == completion.sfvqa["fields"]["colour"]
    with pytest.raises(openai.UnprocessableEntityError, match="before it was whole"):
        ask(client, about(SHAPES, FLASHES, response_format={"type": "json_object"}, max_tokens=1))


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature is -1"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}}},
            openai.BadRequestError,
            "No answer can be written",
        ),
        ({"n": 2}, openai.BadRequestError, "at n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "at tools"),
        ({"logprobs": True, "top_logprobs": 3}, openai.BadRequestError, "at top_logprobs"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, openai.BadRequestError, "contradict"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "positions"),
        ({"sfvqa": {"frames": 129}}, openai.BadRequestError, "at most"),
        ({"sfvqa": {"colour": "red"}}, openai.BadRequestError, "sfvqa.colour"),
        ({"sfvqa": {"start": 4, "end": 2}}, openai.BadRequestError, "not after its start"),
        ({"sfvqa": {"start": 100}}, openai.UnprocessableEntityError, "beyond the last frame"),
        ({"sfvqa": {"choices": ["one"]}}, openai.BadRequestError, "nothing to choose from"),
        ({"sfvqa": {"choices": ["a", "b"]}, "temperature": 1}, openai.BadRequestError, "choices are compared"),
        ({"model": "gpt-4o"}, openai.NotFoundError, "is not served here"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(client: openai.OpenAI, more: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        ask(client, {**about(SHAPES, DIGIT), **more})


@pytest.mark.parametrize(
    ("video", "error", "says"),
    [
        ("https://example.com/clip.mp4", openai.BadRequestError, "does not fetch"),
        ("file:///etc/passwd", openai.NotFoundError, "no video in the folders"),
        ("data:video/mp4;base64,AAAA", openai.UnprocessableEntityError, "video.mp4"),
        ("data:video/mp4;base64,%%%", openai.BadRequestError, "no valid base64"),
        ("data:video/mp4,raw", openai.BadRequestError, "holds no base64"),
        ("file-0", openai.NotFoundError, "no upload"),
    ],
)
def test_videos_that_cannot_be_asked_about(client: openai.OpenAI, video: str, error: Any, says: str) -> None:
    """What is said of them shows no folder of the server."""
    with pytest.raises(error, match=says) as caught:
        ask(client, about(video, DIGIT))
    assert "sfvqa-uploads" not in str(caught.value)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": "Yes."}],
        [{"role": "user", "content": "One?"}, {"role": "user", "content": "Two?"}],
        [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Yes."}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [{"role": "tool", "content": "42", "tool_call_id": "1"}],
        [{"role": "user", "content": "One?", "name": "Ann"}],
        [
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///a.mp4"}}]},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///b.mp4"}}]},
        ],
    ],
)
def test_what_is_no_conversation_is_refused(client: openai.OpenAI, messages: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=messages)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/sfvqa/filmstrip"])
@pytest.mark.parametrize("mark", ["[],", '{"a":{},', '"",'])
def test_what_has_too_many_parts_is_not_read(served: Served, path: str, mark: str) -> None:
    response = httpx.post(f"{served.url}{path}", content=mark * 200_001, timeout=PATIENCE_SECONDS)
    assert response.status_code == 400
    assert "more than 200,000 commas and brackets" in response.json()["error"]["message"]


def test_a_disk_that_is_full_while_a_form_comes_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", fail)
    response = httpx.post(f"{served.url}/v1/files", files={"file": ("clip.mp4", b"video")}, timeout=PATIENCE_SECONDS)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "ServerBusyError")


def test_schemas_wait_in_a_queue_that_is_bounded_and_left_with_the_caller(
    tiny: VideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, tried = threading.Event(), list[str]()

    def attempt(text: str) -> str:
        tried.append(text)
        assert go_on.wait(PATIENCE_SECONDS)
        return ""

    def body(number: int) -> dict[str, Any]:
        return about(None, "Hello?", response_format=by_schema({"const": number}), max_tokens=1)

    monkeypatch.setattr(schema, "_why_impossible", attempt)
    monkeypatch.setattr(wire, "_MOST_TRIED", 3)
    with serving(tiny) as served:
        trials, url = served.server.schema_trials, f"{served.url}/v1/chat/completions"
        with contextlib.ExitStack() as leaving:
            try:
                for number in range(3):
                    caller = leaving.enter_context(served.connect())
                    caller.sendall(request(body=json.dumps(body(number)).encode()))
                    until(lambda number=number: len(trials._trials) == number + 1)
                assert httpx.post(url, json=body(3)).status_code == 429
                text = about(None, "Hello?", response_format={"type": "text"}, max_tokens=1)
                assert httpx.post(url, json=text, timeout=PATIENCE_SECONDS).status_code == 200
                caller.close()
                until(lambda: len(trials._trials) == 2)
            finally:
                go_on.set()
        until(lambda: not trials._trials)
        assert not any('"const":2' in text for text in tried)


def by_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def test_an_error_in_a_stream_comes_with_its_status(client: openai.OpenAI) -> None:
    """Nothing was sent yet when a video turns out to be none."""
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, about(f"data:video/mp4;base64,{base64.b64encode(b'no video' * 99).decode()}", DIGIT, stream=True))


@pytest.mark.slow
def test_the_same_answers_as_on_the_command_line(client: openai.OpenAI) -> None:
    """Token for token, with everything but the time it took."""
    questions = ["Describe the video.", FLASHES, "What is the weather like?"]
    for video in (SHAPES, FLASH):
        for expected in ask_json(video, *questions, "--frames", "24", "--evidence"):
            body = about(video, expected["question"], sfvqa={"frames": 24, "evidence": True})
            got = ask(client, body).sfvqa
            for changing in ("timings", "peak_memory_bytes", "from_video_cache"):
                del expected[changing], got[changing]
            del expected["tokens"]["reused"], got["tokens"]["reused"]
            weights = [[round(frame.pop("weight"), 4) for frame in each["evidence"]] for each in (expected, got)]
            assert weights[0] == weights[1]
            assert got == expected


def test_prompt_in_own_words(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "You see shapes."}, *about(SHAPES, DIGIT)["messages"]]
    completion: Any = client.chat.completions.create(
        model="tiny", messages=messages, extra_body={"sfvqa": {"template": "{question} Answer."}}
    )
    assert completion.sfvqa["settings"]["system"] == "You see shapes."
    assert completion.sfvqa["settings"]["template"] == "{question} Answer."


def test_a_folder_lists_its_videos(served: Served) -> None:
    videos = httpx.get(f"{served.url}/sfvqa/videos").json()["videos"]
    assert [video["name"] for video in videos] == ["flash.mp4", "order.mp4", "shapes.mp4"]
    assert videos[0]["url"] == FLASH.as_uri()


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes")
def test_a_name_that_is_no_utf8_is_listed_and_asked_about(tiny: VideoQA, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(SHAPES, tmp_path / name)
    with serving(tiny, tmp_path) as served:
        (video,) = httpx.get(f"{served.url}/sfvqa/videos").json()["videos"]
        assert video["name"] == "caf\N{REPLACEMENT CHARACTER}.mp4"
        body = about(video["url"], "Which digit is shown?")
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS).json()
        strip = httpx.post(f"{served.url}/sfvqa/filmstrip", json={"video": video["url"]}, timeout=PATIENCE_SECONDS)
        assert strip.status_code == 200
    assert answer["sfvqa"]["answer"] == "The digit 7 is shown."
    assert answer["sfvqa"]["video"].endswith(name)
