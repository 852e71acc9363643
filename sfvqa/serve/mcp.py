"""An MCP server on standard streams: tools with which another model asks about videos in the folders it may.

While it runs stdout is the protocol's alone: the SDK has what else is written there go to stderr.
"""

import asyncio
import base64
import inspect
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
from anyio import to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ContentBlock, ImageContent, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import Field

import sfvqa
from sfvqa.checkpoints.device import leave_cores
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.errors import SfvqaError, UsageError, VideoError
from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodedVideo, EncodeProgress
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.find import FindProgress, find_progressively, sampling_for
from sfvqa.inference.moments import FindOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.request import Event, Message, Request, Work
from sfvqa.serve.service import Service
from sfvqa.serve.sight import OpenVideo
from sfvqa.serve.sources import Folders
from sfvqa.serve.waiting_room import ServiceOptions
from sfvqa.serve.windows import plan
from sfvqa.video.clip import Clip
from sfvqa.video.contact_sheet import cells_of, draw_contact_sheet, fit_for_sheet
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import open_video
from sfvqa.video.reading import ReadProgress, read_clip_progressively
from sfvqa.video.sampling import SamplingOptions, format_time
from sfvqa.video.windows import WindowOptions
from sfvqa.wording import plural

Step = TypeVar("Step")
Result = TypeVar("Result")

_MOST_FRAMES = 256  # of a sheet: more come out too small to be looked at
_READ_AT_ONCE = 2  # videos, to be shown, and as many to find moments in; the service has its own readers
_JPEG_QUALITY = 85

Video = Annotated[str, Field(description="Path of the video, absolute or within one of the folders")]
NumFrames = Annotated[
    int | None, Field(description="How many frames the model looks at, spread over the range (default: as in training)")
]
Start = Annotated[float | None, Field(description="Look at the video from here on, in seconds")]
End = Annotated[float | None, Field(description="Look at the video up to here, in seconds")]


@dataclass(eq=False)
class VideoTools:
    """The tools. Each raises what goes wrong; one that is cancelled computes nothing more.

    The model is loaded when it is first needed, not at once: a client waits for a server that begins, and may never
    ask it anything. `expected` says until then how it was trained. The service around it ends with `ending`.
    """

    folders: Folders
    load: Callable[[], tuple[VideoQA, ServiceOptions]]
    expected: TrainedWith
    ending: ExitStack
    _service: Service | None = None
    _loading: anyio.Lock = field(default_factory=anyio.Lock)
    _reading: anyio.Semaphore = field(default_factory=partial(anyio.Semaphore, _READ_AT_ONCE))
    _finding: anyio.Semaphore = field(default_factory=partial(anyio.Semaphore, _READ_AT_ONCE))

    @property
    def has_ended(self) -> bool:
        """Whether no thread of the service is left, in the middle of a step of the model, say."""
        return self._service is None or self._service.has_ended

    def end_at_once(self) -> None:
        """Have reading processes end, and wait for no thread."""
        if self._service is not None:
            self._service.last_wait_seconds = 0.0
        self.ending.close()

    async def ask(
        self,
        context: Context[Any, Any],
        video: Video,
        question: Annotated[str, Field(description="The question; no other question is known when it is answered")],
        num_frames: NumFrames = None,
        start_seconds: Start = None,
        end_seconds: End = None,
        max_new_tokens: Annotated[int, Field(description="Longest answer, in tokens")] = 256,
    ) -> list[TextContent]:
        """Ask a video model on this machine about a video, or a part of one: it sees some frames, and hears nothing."""
        path = await to_thread.run_sync(self.folders.find_by_path, video)
        service = await self._started(context)
        request = Request(
            question=question,
            video=path,
            sampling=_sampling(self._default_sampling, num_frames, start_seconds, end_seconds),
            crop=service.answerer.default_crop,
            generation=GenerationOptions(max_new_tokens=max_new_tokens),
        )
        answer = await _last_event(service, request, None, context)
        assert isinstance(answer, Answer)
        return _texts(answer.text, answer.warnings)

    async def frames(
        self,
        context: Context[Any, Any],
        video: Video,
        num_frames: NumFrames = None,
        start_seconds: Start = None,
        end_seconds: End = None,
    ) -> list[ContentBlock]:
        """Show the frames that the video model would look at, as one picture with the time under each."""
        path = await to_thread.run_sync(self.folders.find_by_path, video)
        trained = self._trained
        sampling = _sampling(self._default_sampling, num_frames, start_seconds, end_seconds)
        if sampling.num_frames > _MOST_FRAMES:
            raise UsageError(
                f"{sampling.num_frames:,} frames were asked for, and a picture shows {_MOST_FRAMES}.",
                "Ask for fewer, or for a part of the video.",
            )
        async with self._reading:
            clip = await _run(read_clip_progressively(path, sampling, fit=fit_for_sheet(sampling.num_frames)), context)
        jpeg = await to_thread.run_sync(_sheet, clip, trained.crop)
        times = ", ".join(map(format_time, clip.timestamps_seconds))
        said = f"{plural(len(clip.indices), 'frame')} of {path.name}, by row, shown at {times}."
        num_chosen = len(clip.indices) + len(clip.missing)
        return [
            ImageContent(type="image", data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg"),
            *_texts(said, [*clip.warnings, *trained.warnings(sampling, num_chosen, trained.crop)]),
        ]

    async def find(
        self,
        context: Context[Any, Any],
        video: Video,
        text: Annotated[str, Field(description="What the moment shows, or a question that it answers with yes")],
        start_seconds: Start = None,
        end_seconds: End = None,
        top: Annotated[int, Field(description="The most moments to give")] = 10,
        every_seconds: Annotated[
            float, Field(description="Length of the windows of the first look; longer events need longer windows")
        ] = 8.0,
    ) -> dict[str, Any]:
        """Find the moments of a video that show something: `moments`, the likeliest first, with their probabilities.

        `best_seconds` is the time of the frame that counts most. Without moments, `windows` says how likely the
        likeliest part is. The whole video, or range, is looked at, which may take minutes for one of hours; it may have
        1,000 windows.
        """
        path = await to_thread.run_sync(self.folders.find_by_path, video)
        options = FindOptions(every_seconds=every_seconds, top=top)
        service = await self._started(context)
        answerer = service.answerer
        sampling = _sampling(sampling_for(answerer.default_sampling, options), None, start_seconds, end_seconds)

        opened = OpenVideo(threading.Semaphore())

        def look(_: EncodedVideo | None) -> Generator[Message, None, None]:
            with opened.taken() as reader:
                if reader is None:
                    raise VideoError(f"{path.name} has changed since it was opened.", "Look again.")
                with closing(find_progressively(answerer, reader, text, options, sampling=sampling)) as steps:
                    while isinstance(step := _next(steps), FindProgress):
                        yield {"progress": step}
            yield {"found": step.to_dict()}

        async with self._finding:
            try:
                await to_thread.run_sync(_open, path, options, sampling, opened, abandon_on_cancel=True)
                found = await _last_event(service, Request(text), look, context)
            finally:
                threading.Thread(target=opened.close, daemon=True).start()  # a step of the model may be reading it
        assert isinstance(found, Mapping)
        document: dict[str, Any] = json.loads(_sendable(json.dumps(found["found"], ensure_ascii=False)))
        return document

    @property
    def _trained(self) -> TrainedWith:
        return self.expected if self._service is None else self._service.answerer.trained_with

    @property
    def _default_sampling(self) -> SamplingOptions:
        """Of `ask`: as many frames as in training, or as memory allows."""
        default = self._trained.sampling
        most = default.num_frames if self._service is None else self._service.options.most_frames
        return replace(default, num_frames=min(default.num_frames, most))

    async def _started(self, context: Context[Any, Any]) -> Service:
        """The service around the model. Raises what loading raises, and tries again when it is next needed."""
        async with self._loading:
            if self._service is None:
                await context.report_progress(0, message="Loading the model")
                self._service = await to_thread.run_sync(self._start)
            return self._service

    def _start(self) -> Service:
        answerer, options = self.load()
        leave_cores(answerer.checkpoint.model)
        return self.ending.enter_context(Service(answerer, options))


def _open(path: Path, options: FindOptions, sampling: SamplingOptions, opened: OpenVideo) -> None:
    """Open a video to find moments in. Raises VideoError, and UsageError for more windows than a request may have."""
    with ExitStack() as using:
        video = using.enter_context(open_video(path))
        plan(video, WindowOptions(options.every_seconds), sampling)
        using.pop_all()
        opened.keep(video, video)


def _sampling(
    default: SamplingOptions, num_frames: int | None, start_seconds: float | None, end_seconds: float | None
) -> SamplingOptions:
    return replace(
        default,
        num_frames=default.num_frames if num_frames is None else num_frames,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )


def _texts(said: str, warnings: Sequence[str] = ()) -> list[TextContent]:
    texts = (said, *(f"Warning: {each}" for each in warnings))
    return [TextContent(type="text", text=_sendable(text)) for text in texts]


def _sendable(text: str) -> str:
    """The text with question marks for what is no UTF-8: one name of a file must not end the connection."""
    return text.encode("utf-8", "replace").decode()


def _sheet(clip: Clip, crop: CropMode) -> bytes:
    """The frames as a JPEG picture, what the centre crop cuts off dark."""
    times = f"{plural(len(clip.indices), 'frame')}, {clip.strategy}"
    sheet = draw_contact_sheet(cells_of(clip), titles=[clip.video.path.name], facts=times, crop=crop)
    jpeg = io.BytesIO()
    sheet.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    return jpeg.getvalue()


async def _last_event(service: Service, request: Request, work: Work | None, context: Context[Any, Any]) -> Event:
    """The answer, or the last message of work, once it is there; progress is reported meanwhile. Raises its error."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    job = await to_thread.run_sync(service.submit, request, tell, work)
    try:
        last: Event = None
        count = 0
        while True:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            if event is None or isinstance(event, Answer):
                return event or last
            last, count = event, count + 1
            step = event.get("progress") if isinstance(event, Mapping) else event
            if isinstance(step, EncodeProgress | FindProgress):
                await _report(context, count, step)
    finally:
        service.room.drop(job)


async def _run(steps: Generator[ReadProgress, None, Clip], context: Context[Any, Any]) -> Clip:
    """Run steps to the end, each in a thread, so that they can be left between two; give what they return."""
    count = 0
    try:
        while isinstance(step := await to_thread.run_sync(_next, steps), ReadProgress):
            count += 1
            await _report(context, count, step)
        return step
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(steps.close)


def _next(steps: Generator[Step, None, Result]) -> Step | Result:
    """The next step, or what the steps return at their end."""
    try:
        return next(steps)
    except StopIteration as end:
        result: Result = end.value
        return result


async def _report(context: Context[Any, Any], count: int, step: EncodeProgress | FindProgress | ReadProgress) -> None:
    """Tell how far it is: as the number of steps, since a progress has to rise, and stages begin anew."""
    await context.report_progress(count, message=f"{step.stage.value}: {step.done} of {step.total}")


class VideoServer(MCPServer[Any]):
    """The server of the tools. An error that we raise on purpose is told in its two sentences."""

    def __init__(self, tools: VideoTools) -> None:
        super().__init__(
            "sfvqa",
            version=sfvqa.__version__,
            instructions=_sendable(f"A video model that can see the videos in: {', '.join(tools.folders.names)}."),
            tools=[_tool(function) for function in (tools.ask, tools.frames, tools.find)],
            log_level="WARNING",
        )

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; see MCPServer."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, SfvqaError):
                return CallToolResult(content=list(_texts(str(error.__cause__))), is_error=True)
            raise


def _tool(function: Callable[..., Any]) -> Tool:
    """A tool that refuses arguments it does not have, where the SDK would ignore them."""
    harmless = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    tool = Tool.from_function(function, description=inspect.getdoc(function), annotations=harmless)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


def serve(folders: Folders, load: Callable[[], tuple[VideoQA, ServiceOptions]], expected: TrainedWith) -> bool:
    """Serve until standard input ends; whether everything has ended then, that may not be left in the middle."""
    with ExitStack() as ending:
        tools = VideoTools(folders, load, expected, ending)
        with _ended_by_signals(tools):
            anyio.run(VideoServer(tools).run_stdio_async)
    return tools.has_ended


@contextmanager
def _ended_by_signals(tools: VideoTools) -> Iterator[None]:
    """End the process at Ctrl-C and SIGTERM: a thread of the SDK waits for standard input, and nothing wakes it."""

    def end(number: int, _: object) -> None:
        try:
            tools.end_at_once()
        finally:
            os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
