"""An MCP client calls the tools: answers are those of the library, and nothing is read outside the folders."""

import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

pytest.importorskip("mcp")

from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

from sfvqa.errors import OutOfMemoryError
from sfvqa.inference.answering import AnswerRun
from sfvqa.inference.find import FindProgress, FindStage, sampling_for
from sfvqa.inference.moments import FindOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.mcp import VideoServer, VideoTools
from sfvqa.serve.service import Service
from sfvqa.serve.sources import Folders
from sfvqa.serve.waiting_room import ServiceOptions
from sfvqa.video.readers import VideoReader, open_video
from sfvqa.video.reading import ReadProgress, read_clip
from sfvqa.video.sampling import format_time
from sfvqa.video.windows import Window
from tests.readme import README
from tests.serve.serving import DEMO, FLASH, ORDER, PATIENCE_SECONDS, SHAPES, until
from tests.windows import needs_links, needs_names

COLOUR = "What colour does the screen flash?"


@dataclass
class Tried:
    """A server in this process, what a client of it is told, and how often a model was loaded for it."""

    tools: VideoTools
    num_loaded: int = 0
    progress: list[tuple[float, str]] = field(default_factory=list)

    @property
    def service(self) -> Service:
        assert self.tools._service is not None
        return self.tools._service

    def talk(self, talk: Callable[[Client], Awaitable[Any]]) -> Any:
        """What comes of a talk with the server."""

        async def connected() -> Any:
            async with Client(VideoServer(self.tools)) as client:
                return await asyncio.wait_for(talk(client), PATIENCE_SECONDS)

        return asyncio.run(connected())

    def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """What one call gives."""

        async def told(progress: float, total: float | None, message: str | None) -> None:
            assert total is None
            self.progress.append((progress, message or ""))

        result: CallToolResult = self.talk(lambda client: client.call_tool(tool, arguments, progress_callback=told))
        return result


@pytest.fixture
def tried(tiny: VideoQA) -> Iterator[Tried]:
    with ExitStack() as ending:
        found = Tried(VideoTools(Folders([DEMO]), lambda: load(), tiny.trained_with, ending))

        def load() -> tuple[VideoQA, ServiceOptions]:
            found.num_loaded += 1
            return tiny, ServiceOptions()

        yield found


def texts(result: CallToolResult) -> list[str]:
    return [part.text for part in result.content if isinstance(part, TextContent)]


def test_the_tools_say_what_they_take(tried: Tried) -> None:
    """Before a model is loaded."""
    tools = {tool.name: tool for tool in tried.talk(lambda client: client.list_tools()).tools}
    assert tools.keys() == {"ask", "frames", "find"}
    assert tools["ask"].input_schema["required"] == ["video", "question"]
    for tool in tools.values():
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False
        assert all(field["description"] for field in tool.input_schema["properties"].values())
    assert tried.num_loaded == 0


def test_answers_are_those_of_the_library_and_the_model_stays(tried: Tried, tiny: VideoQA) -> None:
    assert texts(tried.call("ask", video="shapes.mp4", question=COLOUR)) == [tiny.ask(SHAPES, COLOUR).text]
    assert tried.progress[0] == (0, "Loading the model")
    assert "read: 32 of 32" in [message for _, message in tried.progress]
    rising = [progress for progress, _ in tried.progress]
    assert rising == sorted(set(rising))
    for name in (str(FLASH), FLASH.as_uri(), f"{DEMO}/../demo/flash.mp4"):
        assert texts(tried.call("ask", video=name, question=COLOUR)) == ["The screen flashes purple."]
    assert tried.num_loaded == 1


def test_two_ask_at_once(tried: Tried) -> None:
    async def both(client: Client) -> list[CallToolResult]:
        wanted = [{"video": name, "question": COLOUR} for name in ("shapes.mp4", "flash.mp4")]
        return await asyncio.gather(*(client.call_tool("ask", arguments) for arguments in wanted))

    answers = [texts(each) for each in tried.talk(both)]
    assert answers == [["The screen flashes green."], ["The screen flashes purple."]]
    assert tried.num_loaded == 1


def test_a_part_is_asked_about_and_a_departure_from_training_is_said(tried: Tried) -> None:
    asked = {"num_frames": 8, "start_seconds": 1.0, "end_seconds": 2.0, "max_new_tokens": 2}
    said, *warnings = texts(tried.call("ask", video="shapes.mp4", question=COLOUR, **asked))
    assert len(said) < len("The screen flashes")
    assert any("here 8" in warning for warning in warnings)
    assert all(warning.startswith("Warning: ") for warning in warnings)


def test_where_memory_is_short_fewer_frames_are_looked_at(tried: Tried, tiny: VideoQA) -> None:
    """As of `sfvqa serve`; and the same are shown."""
    tried.tools.load = lambda: (tiny, ServiceOptions(most_frames=8))
    warning = "Warning: The model was trained with 32 frames (here 8)."
    assert texts(tried.call("ask", video="shapes.mp4", question=COLOUR))[1:] == [warning]
    shown = texts(tried.call("frames", video="shapes.mp4"))
    assert shown[0].startswith("8 frames of ")
    assert shown[1:] == [warning]


def test_frames_are_shown_as_a_picture_without_a_model(tried: Tried, tiny: VideoQA) -> None:
    result = tried.call("frames", video="shapes.mp4")
    picture, *_ = result.content
    assert isinstance(picture, ImageContent)
    assert picture.mime_type == "image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width > 1000
    clip = read_clip(SHAPES, tiny.default_sampling)
    times = ", ".join(map(format_time, clip.timestamps_seconds))
    assert texts(result) == [f"32 frames of shapes.mp4, by row, shown at {times}."]
    assert tried.num_loaded == 0
    part, warning = texts(tried.call("frames", video="shapes.mp4", num_frames=4, start_seconds=1, end_seconds=2))
    assert part.startswith("4 frames of shapes.mp4, by row, shown at 0:01")
    assert "here 4" in warning


def test_moments_are_those_of_the_library(tried: Tried, tiny: VideoQA) -> None:
    found = tiny.find(FLASH, "a heart").to_dict()
    result = tried.call("find", video="flash.mp4", text="a heart")
    assert found["moments"]
    assert result.structured_content == json.loads(json.dumps(found))
    assert json.loads(texts(result)[0])["moments"] == result.structured_content["moments"]
    part = {"end_seconds": 3.0, "every_seconds": 1.0, "top": 2}
    told = tried.call("find", video="flash.mp4", text="a heart", **part).structured_content
    options = FindOptions(every_seconds=1.0, top=2)
    sampling = replace(sampling_for(tiny.default_sampling, options), end_seconds=3.0)
    assert told == json.loads(json.dumps(tiny.find(FLASH, "a heart", options, sampling=sampling).to_dict()))
    assert "Looking over the video: 3 of 3" in [message for _, message in tried.progress]


def test_others_are_answered_while_a_video_is_opened_to_find_moments_in(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited: the model's thread opened it."""
    is_opening, may_open, is_closed = threading.Event(), threading.Event(), threading.Event()

    def slowly(path: Path) -> VideoReader:
        is_opening.set()
        assert may_open.wait(PATIENCE_SECONDS)
        video = open_video(path)
        close = video.close

        def note_and_close() -> None:
            close()
            is_closed.set()

        monkeypatch.setattr(video, "close", note_and_close)
        return video

    async def both(client: Client) -> list[CallToolResult]:
        finding = asyncio.create_task(client.call_tool("find", {"video": "flash.mp4", "text": "a heart"}))
        assert await asyncio.to_thread(is_opening.wait, PATIENCE_SECONDS)
        answer = await client.call_tool("ask", {"video": "shapes.mp4", "question": COLOUR})
        assert not finding.done()
        may_open.set()
        return [answer, await finding]

    monkeypatch.setattr("sfvqa.serve.mcp.open_video", slowly)
    answer, found = tried.talk(both)
    assert texts(answer) == ["The screen flashes green."]
    assert found.structured_content["moments"]
    assert is_closed.wait(PATIENCE_SECONDS)


def test_a_video_that_changes_once_it_is_open_is_said_to(
    tried: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "flash.mp4"
    copy.write_bytes(FLASH.read_bytes())
    tried.tools.folders = Folders([tmp_path])

    def change(video: VideoReader, *_: Any) -> tuple[Window, ...]:
        with video.info.path.open("ab") as file:
            file.write(b"more")
        return ()

    monkeypatch.setattr("sfvqa.serve.mcp.plan", change)
    result = tried.call("find", video="flash.mp4", text="a heart")
    assert texts(result) == ["flash.mp4 has changed since it was opened. Look again."]


def test_there_is_a_most_of_windows(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second each would take hours for a video of hours."""
    monkeypatch.setattr("sfvqa.serve.windows._MOST_WINDOWS", 3)
    asked = {"video": "shapes.mp4", "text": "a star", "every_seconds": 1.0}
    says = "The video has 5 windows, and a request may have 3. Make them longer, or ask about a part of the video."
    assert texts(tried.call("find", **asked)) == [says]
    assert not tried.call("find", **asked, end_seconds=3.0).is_error


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("ask", {"question": " "}, "A question is empty. Ask something"),
        ("ask", {"num_frames": 0}, "0 frames were asked for. Ask for a whole number, at least one."),
        ("ask", {"num_frames": 129}, "129 frames are asked for. This server looks at 128 at most."),
        ("ask", {"max_new_tokens": 0}, "max_new_tokens is 0. It must be a whole number, at least 1."),
        ("ask", {"start_seconds": 90}, "The range from 1:30 lies beyond the last frame"),
        ("ask", {"video": "demo.json"}, "cannot be read as a video: it is text. Give the path"),
        ("frames", {"video": "demo.json"}, "cannot be read as a video: it is text. Give the path"),
        ("frames", {"num_frames": 257}, "257 frames were asked for, and a picture shows 256. Ask for fewer"),
        ("find", {"text": ""}, "A text to look for is empty. Say what the moment shows"),
        ("find", {"every_seconds": 0}, "Windows of 0 s are not possible. Give every_seconds=0.1 s or more."),
        ("find", {"top": 0}, "Give top a number above 0."),
        ("ask", {"video": "https://example.org/clip.mp4"}, "is no video in the folders of this server. Ask about one"),
        ("ask", {"frames": 8}, "Extra inputs are not permitted"),
    ],
)
def test_errors_are_those_of_the_tool_in_two_sentences(
    tried: Tried, tool: str, arguments: dict[str, Any], says: str
) -> None:
    usual = {"video": "shapes.mp4", **{"ask": {"question": COLOUR}, "frames": {}, "find": {"text": "a star"}}[tool]}
    result = tried.call(tool, **usual | arguments)
    (said,) = texts(result)
    assert result.is_error
    assert says in said
    assert "Traceback" not in said
    assert "Extra inputs" in said or "executing tool" not in said


@needs_links
@pytest.mark.parametrize("tool", ["ask", "frames", "find"])
@pytest.mark.parametrize(
    "name",
    ["{tree}/secret.mp4", "../secret.mp4", "link.mp4", "file://{tree}/secret.mp4", "/dev/zero", "\0", "~", "loop"],
)
def test_nothing_is_read_outside_the_folders(
    tried: Tried, tmp_path: Path, tool: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what there is, is named, without what would be refused in turn."""
    opened = tmp_path / "open"
    opened.mkdir()
    (tmp_path / "secret.mp4").write_bytes(SHAPES.read_bytes())
    (opened / "clip.mp4").write_bytes(SHAPES.read_bytes())
    (opened / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (opened / "loop").symlink_to(opened / "loop")
    monkeypatch.chdir(tmp_path)
    tried.tools.folders = Folders([opened])
    more = {"ask": {"question": COLOUR}, "frames": {}, "find": {"text": "a star"}}[tool]
    result = tried.call(tool, video=name.format(tree=tmp_path), **more)
    assert result.is_error
    assert texts(result)[0].endswith(
        f"is no video in the folders of this server. Ask about one that is, such as {opened / 'clip.mp4'}."
    )


def test_what_loading_says_is_told_and_it_is_tried_again(tried: Tried) -> None:
    load = tried.tools.load

    def fail() -> Any:
        raise OutOfMemoryError("tiny needs more than there is.", "Use --quant 4bit.")

    tried.tools.load = fail
    result = tried.call("ask", video="shapes.mp4", question=COLOUR)
    assert result.is_error
    assert texts(result) == ["tiny needs more than there is. Use quantization='4bit'."]
    tried.tools.load = load
    assert texts(tried.call("ask", video="shapes.mp4", question=COLOUR)) == ["The screen flashes green."]


def test_the_transcript_of_the_readme(tried: Tried) -> None:
    (transcript,) = re.findall(r"^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    calls = re.findall(r"^(\w+) (.*)\n((?:    .*\n)+)", transcript, re.MULTILINE)
    assert len(calls) == 2
    for tool, arguments, shown in calls:
        result = tried.call(tool, **json.loads(arguments))
        pictures = ["(a picture)" for part in result.content if isinstance(part, ImageContent)]
        assert [*pictures, *texts(result)] == [line.strip() for line in shown.splitlines()]


@needs_names
def test_a_name_that_is_no_utf8_breaks_nothing(tried: Tried, tmp_path: Path) -> None:
    """All that is said of it can be sent."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/videos-\xff"))
    folder.mkdir()
    video = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp4"))
    video.write_bytes(SHAPES.read_bytes())
    (folder / "link.mp4").symlink_to(video)
    tried.tools.folders = Folders([folder])
    asked = {"ask": {"question": COLOUR}, "find": {"text": "a red circle"}, "frames": {}}
    for tool, arguments in asked.items():
        result = tried.call(tool, video="link.mp4", **arguments)
        assert not result.is_error
        assert result.model_dump_json()
    refused = tried.call("ask", video="absent.mp4", question=COLOUR)
    assert "videos-?/?.mp4" in texts(refused)[0]
    assert "videos-?" in tried.talk(instructions)


async def instructions(client: Client) -> str | None:
    return client.instructions


@pytest.mark.parametrize("tool", ["ask", "find", "frames"])
def test_what_is_cancelled_stops(tried: Tried, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is answered."""
    has_begun, has_ended = threading.Event(), threading.Event()
    progress = {"ask": [""], "find": FindProgress(FindStage.CLOSER, 1, 2), "frames": ReadProgress(1, 2)}

    def endless(run: Any, *_: Any, **__: Any) -> Iterator[Any]:
        try:
            while tool != "ask" or not run.is_over(0):
                yield progress[tool]
                has_begun.set()
        finally:
            has_ended.set()

    async def cancel(client: Client) -> None:
        more = {"ask": {"question": COLOUR}, "find": {"text": "a star"}, "frames": {}}[tool]
        call = asyncio.create_task(client.call_tool(tool, {"video": "order.mp4", **more}))
        await asyncio.to_thread(has_begun.wait, PATIENCE_SECONDS)
        assert not has_ended.is_set()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(has_ended.wait, PATIENCE_SECONDS)

    with monkeypatch.context() as endlessly:
        endlessly.setattr(AnswerRun, "steps", endless)
        endlessly.setattr("sfvqa.serve.mcp.find_progressively", endless)
        endlessly.setattr("sfvqa.serve.mcp.read_clip_progressively", endless)
        tried.talk(cancel)
    assert has_ended.is_set()
    assert texts(tried.call("ask", video="shapes.mp4", question=COLOUR)) == ["The screen flashes green."]
    until(lambda: tried.service.room.num_requests == tried.service.room.num_running == 0)


# --- The command, in a process of its own ---

CHATTY = """
import os, sys
from sfvqa.cli import mcp
load = mcp.load_to_serve
def load_with_noise(*arguments):
    print("noise", flush=True)
    os.write(1, b"noise of a library\\n")
    os.system("echo noise of a child")
    return load(*arguments)
mcp.load_to_serve = load_with_noise
from sfvqa.__main__ import main
sys.exit(main(["mcp", "--model", "tiny"]))
"""


class Session:
    """The command, spoken to by hand, so that every byte of its stdout is seen."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", CHATTY], text=True, **pipes)  # type: ignore[call-overload]
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
        self.send(id=0, method="initialize", params=about)
        self.receive(0)
        self.send(method="notifications/initialized")

    def send(self, **message: Any) -> None:
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        self.send(id=number, method="tools/call", params={"name": tool, "arguments": arguments})

    def receive(self, *numbers: int) -> dict[int, Any]:
        """The answers to requests; each line has to be a message."""
        found: dict[int, Any] = {}
        while found.keys() != set(numbers):
            message = json.loads(self.process.stdout.readline())
            assert message["jsonrpc"] == "2.0"
            if message.get("id") in numbers:
                found[message["id"]] = message["result"]
        return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end of input", "SIGINT", "SIGTERM"])
def test_stdout_is_the_protocols_and_the_process_ends(how: str) -> None:
    """Whatever else writes there; and no process is left."""
    session = Session()
    for number, name in enumerate(("shapes.mp4", "flash.mp4", "absent.mp4"), 1):
        session.call(number, "ask", video=name, question=COLOUR)
    session.call(4, "frames", video="order.mp4")
    found = session.receive(1, 2, 3, 4)
    said = {number: result["content"][-1]["text"] for number, result in found.items()}
    assert (said[1], said[2]) == ("The screen flashes green.", "The screen flashes purple.")
    assert found[3]["isError"]
    assert "is no video in the folders" in said[3]
    assert found[4]["content"][0]["mimeType"] == "image/jpeg"
    process = session.process
    children = psutil.Process(process.pid).children()
    if how == "end of input":
        process.stdin.close()
    else:
        process.send_signal(signal.Signals[how])
    code = {"end of input": 0, "SIGINT": 128 + signal.SIGINT, "SIGTERM": 128 + signal.SIGTERM}[how]
    assert process.wait(PATIENCE_SECONDS) == code
    assert process.stdout.read() == ""
    stderr = process.stderr.read()
    assert all(f"noise{of}" in stderr for of in ("\n", " of a library", " of a child"))
    assert "Traceback" not in stderr
    until(lambda: not any(child.is_running() for child in children))


@pytest.mark.slow
def test_the_sdks_own_client_starts_it_and_asks() -> None:
    from mcp import StdioServerParameters, stdio_client

    arguments = ["-m", "sfvqa", "mcp", "--model", "tiny", "--folder", str(ORDER.parent)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def talk() -> tuple[list[str], list[str]]:
        async with Client(stdio_client(server)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            answer = await client.call_tool("ask", {"video": "shapes.mp4", "question": COLOUR})
            assert isinstance(answer, CallToolResult)
            return tools, texts(answer)

    assert asyncio.run(talk()) == (["ask", "frames", "find"], ["The screen flashes green."])
