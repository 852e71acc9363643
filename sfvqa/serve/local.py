"""The user's own socket: what `ask` and `chat` would do themselves, done with the model that is loaded here.

A connection is a line of JSON a message: first the token, then what is wanted, one thing after the other. It answers
with progress, the video as it was seen, pieces, answers, or an error, each with the number of what it answers. A number
that is dropped leaves all as it was before. Ending the connection drops what is being done.
"""

import asyncio
import contextlib
import hmac
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sfvqa.errors import SfvqaError
from sfvqa.inference.answer import AnswerStream
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.chat import Chat, ChatTurn
from sfvqa.inference.encode import EncodedVideo, EncodeProgress
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions, check_looks
from sfvqa.inference.schema import JsonSchema
from sfvqa.serve.request import Event, Job, Message, Request
from sfvqa.serve.service import Service
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName, ReadOptions, open_video
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.video.subtitles import SubtitleLine, Subtitles

_MOST_BYTES = 64 << 20  # of a message: subtitles of days
_TOKEN_SECONDS = 10.0
_MOST_KEPT_CHATS = 4
"""Conversations that stay prefilled, the last ones that were asked something."""

Tell = Callable[[Event], None]


def listen_locally(path: str) -> socket.socket:
    """A socket that this user alone can connect to. OSError."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


class LocalServer:
    """Talks to those who connect and know the token; `name` is what it answers to that."""

    def __init__(self, service: Service, name: str, token: str) -> None:
        self.service = service
        self._name, self._token = name, token
        self._chats: list[Chat] = []
        self._mutex = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, path: str) -> AsyncIterator[None]:
        """Take connections while the block runs; those that are left are ended. Nothing without a path. OSError."""
        if not path:
            yield
            return
        server = await asyncio.start_unix_server(self._connected, sock=listen_locally(path), limit=_MOST_BYTES)
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def keep_prefilled(self, chat: Chat) -> None:
        """Note that a conversation was asked something; on the model's thread, as it may free another one's memory."""
        with self._mutex:
            if chat in self._chats:
                self._chats.remove(chat)
            self._chats.append(chat)
            if len(self._chats) > _MOST_KEPT_CHATS:
                self._chats.pop(0).release()

    def forget(self, chat: Chat) -> None:
        """A conversation is over."""
        with self._mutex:
            if chat in self._chats:
                self._chats.remove(chat)

    async def _connected(self, lines: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Of a caller that is gone or none of ours, or where the server ends.
            with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
                async with asyncio.timeout(_TOKEN_SECONDS):
                    first = await _next_message(lines)
                if first and hmac.compare_digest(str(first.get("token")).encode(), self._token.encode()):
                    await _send(out, {"hello": self._name})
                    await self._talk(lines, out)
        finally:
            self._tasks.discard(task)
            out.close()

    async def _talk(self, lines: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        session, wanted = Session(self), asyncio.Queue[Message | None]()

        async def listen() -> None:
            """Take what the other end says, also while something is done for it."""
            try:
                with contextlib.suppress(OSError, ValueError):
                    while (message := await _next_message(lines)) is not None:
                        session.is_stopped = "stop" in message or (session.is_stopped and "turn" not in message)
                        if "drop" in message:
                            session.drop(message["drop"])
                        elif "stop" not in message:
                            wanted.put_nowait(message)
            finally:
                session.is_gone = True
                wanted.put_nowait(None)
                session.events.put_nowait(None)

        listening = asyncio.create_task(listen())
        try:
            while (message := await wanted.get()) is not None:
                await self._do(session, message, out)
        finally:
            listening.cancel()
            session.close()

    async def _do(self, session: "Session", wanted: Message, out: asyncio.StreamWriter) -> None:
        loop, job, number = asyncio.get_running_loop(), None, wanted.get("number")
        session.doing, session.events = number, (events := asyncio.Queue[Event]())

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        if session.is_unwanted(number):
            return
        try:
            job = await asyncio.to_thread(session.begin, wanted, tell)
        except Exception as error:  # noqa: BLE001  the other end raises it
            events.put_nowait(error)
        try:
            while not session.is_unwanted(number) and (event := await events.get()) is not None:
                if message := _as_message(event):
                    await _send(out, {**message, "number": number})
                if isinstance(event, Exception):
                    return
        finally:
            if job is not None:
                self.service.room.drop(job)


@dataclass(eq=False)
class Session:
    """What one connection is at: a video, and the conversation about it with what was `said` last.

    `chats` are known by the number of the message that opened them; which one the other end goes on with, its next
    message says, and the others end. `doing` is the number of what is being done, and `events` are what comes of it.
    `last` is the number of the last message that could change a conversation, and `before` how that stood then.
    `is_stopped` ends an answer of a conversation, which keeps what came of it; `is_gone` says that nobody waits.
    """

    server: LocalServer
    chats: dict[int, Chat] = field(default_factory=dict)
    said: Message | None = None
    doing: int | None = None
    events: "asyncio.Queue[Event]" = field(default_factory=asyncio.Queue)
    dropped: set[int] = field(default_factory=set)
    last: int | None = None
    before: tuple[tuple[ChatTurn, ...], int] = ((), 0)
    is_stopped: bool = False
    is_gone: bool = False

    def is_unwanted(self, number: int | None) -> bool:
        """Whether nobody waits for what answers this message."""
        return self.is_gone or number in self.dropped

    def drop(self, number: int) -> None:
        """Nobody waits for what answers this message any longer; it need not have begun, and may be over."""
        self.dropped.add(number)
        if number == self.doing:
            self.events.put_nowait(None)

    def begin(self, wanted: Message, tell: Tell) -> Job:
        """Have it done. Raises what is wrong with it at first sight."""
        service = self.server.service
        if "video" not in wanted:
            return service.submit(Request(""), tell, lambda _: self._go_on(wanted))
        video = wanted["video"]
        request = _request(video, wanted["generation"], service.answerer.default_crop)
        if request.generation.evidence:
            checkpoint = service.answerer.checkpoint
            check_looks(checkpoint.location.name, checkpoint.model.config.hybrid_layers)
        if video["own_subtitles"]:
            request = _with_own_subtitles(request, video["subtitle_tokens"])
        return service.submit(request, tell, lambda encoded: self._see(request, wanted, encoded))

    def close(self) -> None:
        """Keep nothing for it any longer."""
        for chat in self.chats.values():
            self.server.forget(chat)

    def _see(self, request: Request, wanted: Message, encoded: EncodedVideo | None) -> Generator[Message, None, None]:
        assert encoded is not None
        assert request.shown_as is not None
        encoded = encoded.lying_at(request.shown_as)
        yield {"seen": _facts(encoded)}
        if "context_tokens" in wanted:
            answerer, limit = self.server.service.answerer, wanted["context_tokens"]
            chat = answerer.chat(encoded, request.generation, prompt=request.prompt, context_tokens=limit)
            self.chats[wanted["number"]] = chat
            yield {"chat": _state(chat)}
        else:
            choices = None if wanted["choices"] is None else tuple(wanted["choices"])
            yield from self._answer(request, encoded, wanted["questions"], choices, wanted["batch_size"])

    def _answer(
        self,
        request: Request,
        encoded: EncodedVideo,
        questions: list[str],
        choices: tuple[str, ...] | None,
        batch_size: int,
    ) -> Generator[Message, None, None]:
        answerer, options = self.server.service.answerer, request.generation
        if batch_size == 1:
            for stream in answerer.stream_all(encoded, questions, options, prompt=request.prompt, choices=choices):
                with stream:
                    yield {"begun": True}
                    yield from _told(stream)
            return
        for start in range(0, len(questions), batch_size):
            seen = encoded if start == 0 else encoded.paid()
            batch = [Asked(seen, question) for question in questions[start : start + batch_size]]
            run = AnswerRun(answerer.checkpoint, batch, options, prompt=request.prompt, choices=choices)
            for _ in run.steps():
                yield {}
            for stream in map(AnswerStream.of, run.answers()):
                yield {"begun": True}
                yield from _told(stream)

    def _go_on(self, wanted: Message) -> Generator[Message, None, None]:
        """Go on with the conversation that is meant, from before what was dropped."""
        chat = self._end_others(wanted["chat"])
        if self.last in self.dropped:
            chat.restore(*self.before)
            self.last = None
        if "state" not in wanted:
            self.last, self.before = wanted["number"], (chat.turns, chat.num_dropped)
        if "turn" in wanted:
            yield from self._turn(chat, wanted["turn"])
            return
        if "reset" in wanted:
            chat.reset()
        yield {"chat": _state(chat), "answer": self.said}

    def _end_others(self, number: int) -> Chat:
        """The conversation of this number; the other end has left those before it, or never came to go on with it."""
        for other in [other for other in self.chats if other != number]:
            self.server.forget(self.chats.pop(other))
            self.last = None
        return self.chats[number]

    def _turn(self, chat: Chat, question: str) -> Generator[Message, None, None]:
        self.server.keep_prefilled(chat)
        stream = chat.stream(question)
        self.said = stream.answer.to_dict()
        try:
            with stream:
                yield {"begun": self.said, "chat": _state(chat)}
                for piece in stream:
                    if self.is_stopped:
                        break
                    yield {"piece": piece}
        finally:
            self.said = stream.answer.to_dict()
        yield {"answer": self.said, "chat": _state(chat)}


def _told(stream: AnswerStream) -> Generator[Message, None, None]:
    for piece in stream:
        yield {"piece": piece}
    yield {"answer": stream.answer.to_dict()}


async def _next_message(lines: asyncio.StreamReader) -> dict[str, Any] | None:
    """None at the end. ValueError for what is no message."""
    line = await lines.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return message


async def _send(out: asyncio.StreamWriter, message: Message) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    await out.drain()


def _as_message(event: Event) -> Message:
    if isinstance(event, EncodeProgress):
        return {"progress": [event.stage.value, event.done, event.total]}
    if isinstance(event, Mapping):
        return event
    assert isinstance(event, Exception)
    parts = [event.message, event.remedy] if isinstance(event, SfvqaError) else event.args
    plain = [part if isinstance(part, str | int | float | None) else str(part) for part in parts]
    return {"error": {"type": type(event).__name__, "args": plain}}


def _request(video: Message, generation: Message, crop: CropMode) -> Request:
    """What the other end wants to know of a video, as it sent it."""
    sampling, reading, prompt = video["sampling"], video["reading"], video["prompt"]
    times = sampling["timestamps_seconds"]
    return Request(
        question="",
        video=Path(video["path"]),
        shown_as=Path(video["shown_as"]),
        sampling=SamplingOptions(
            **sampling
            | {
                "strategy": SamplingStrategy(sampling["strategy"]),
                "timestamps_seconds": None if times is None else tuple(times),
            }
        ),
        crop=crop if video["crop"] is None else CropMode(video["crop"]),
        reading=ReadOptions(**reading | {"reader": ReaderName(reading["reader"])}),
        prompt=PromptOptions(**prompt | {"subtitles": _subtitles(prompt["subtitles"])}),
        generation=_generation(**generation),
    )


def _generation(schema: str | None, stop: Sequence[str] = (), **fields: Any) -> GenerationOptions:
    return GenerationOptions(**fields, stop=tuple(stop), schema=None if schema is None else JsonSchema(schema))


def _subtitles(given: Message | None) -> Subtitles | None:
    if given is None:
        return None
    lines = tuple(SubtitleLine(**line) for line in given["lines"])
    return Subtitles(lines, given["source"], tuple(given["warnings"]))


def _with_own_subtitles(request: Request, subtitle_tokens: int | None) -> Request:
    """With the video's own text track in the prompt. Raises VideoError."""
    assert request.video is not None
    with open_video(request.video, request.reading) as reader:
        subtitles = reader.subtitles()
    prompt = replace(request.prompt, subtitles=subtitles, subtitle_tokens=subtitle_tokens)
    return replace(request, prompt=prompt)


def _facts(encoded: EncodedVideo) -> Message:
    return {
        "video": asdict(encoded.video) | {"path": str(encoded.video.path)},
        "timestamps_seconds": encoded.timestamps_seconds,
        "crop": encoded.crop,
        "num_slow_tokens": encoded.num_slow_tokens,
        "num_fast_tokens": encoded.num_fast_tokens,
        "is_from_cache": encoded.is_from_cache,
        "warnings": encoded.warnings,
    }


def _state(chat: Chat) -> Message:
    use = chat.context
    return {
        "num_turns": chat.num_turns,
        "num_dropped": chat.num_dropped,
        "context": [use.num_tokens, use.limit],
        "will_drop": chat.will_drop,
    }
