"""The other end of the user's socket: has a running server see a video and answer, or hold a conversation.

Gives what the library gives, so that the command line prints both alike. Imports neither torch nor a web framework.
"""

import builtins
import contextlib
import json
import select
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from sfvqa import errors
from sfvqa.errors import ServerBusyError, ServerError, ServerStoppingError, SfvqaError, VideoError
from sfvqa.inference.answer import Answer, AnswerStream, ContextUse
from sfvqa.inference.question import PromptOptions
from sfvqa.serve.status import ServerStatus
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions

_PATIENCE_SECONDS = 2.0  # with a server that may hang
_PIECE_BYTES = 1 << 16
_START_AGAIN = "Start the chat again."  # it was held by the server alone

Refused = (OSError, ServerBusyError, ServerStoppingError)
"""Why a server does not answer, where nothing is wrong with what was asked."""


@dataclass(frozen=True)
class VideoToSee:
    """A video and how it is seen. `own_subtitles` puts its own text track into the prompt."""

    path: Path
    sampling: SamplingOptions
    crop: CropMode | None
    reading: ReadOptions
    prompt: PromptOptions
    own_subtitles: bool
    subtitle_tokens: int | None

    def as_dict(self) -> dict[str, Any]:
        """As it goes over the socket."""
        paths = {"path": str(self.path.absolute()), "shown_as": str(self.path)}
        return {name: getattr(self, name) for name in ("crop", "own_subtitles", "subtitle_tokens")} | {
            **paths,
            **{name: asdict(getattr(self, name)) for name in ("sampling", "reading", "prompt")},
        }


@dataclass(frozen=True)
class SeenVideo:
    """What is known of a video that the server's model has seen: an EncodedVideo without its tokens."""

    video: VideoInfo
    timestamps_seconds: tuple[float, ...]
    crop: CropMode
    num_slow_tokens: int
    num_fast_tokens: int
    is_from_cache: bool
    warnings: tuple[str, ...]


class Connection:
    """One connection to a server; closing it drops what is being answered. OSError for a server that is none.

    Every request has a number, which all that answers it carries: what still comes of an earlier one is passed over.
    """

    def __init__(self, status: ServerStatus) -> None:
        self._named: Callable[[str], str] = str
        self._received = [b""]
        self.number: int | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_PATIENCE_SECONDS)
            self._socket.connect(status.socket)
            self.send({"token": status.token})
            if self.receive(_PATIENCE_SECONDS) != {"hello": status.id}:
                raise ConnectionRefusedError("another server answers")
        except BaseException:
            self.close()
            raise
        self._socket.settimeout(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; harmless when it has ended."""
        self._socket.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. OSError."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def request(self, message: Mapping[str, Any]) -> None:
        """Ask for something; from now on what answers it is received. OSError."""
        self.number = (self.number or 0) + 1
        self.send({**message, "number": self.number})

    @contextlib.contextmanager
    def dropping(self) -> Iterator[None]:
        """Where the block is left early, by Ctrl-C for one, have the server go back to before the last request."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.send({"drop": self.number})
            raise

    def receive(self, timeout_seconds: float | None = None) -> dict[str, Any]:
        """The next message. Raises the server's error if it is one, OSError where none comes any more."""
        message = self.receive_any(timeout_seconds)
        if "error" in message:
            raise self._error(message["error"]["type"], message["error"]["args"])
        return message

    def receive_any(self, timeout_seconds: float | None = None) -> dict[str, Any]:
        """The next message that answers the last request, an error too. OSError where none comes any more."""
        while (message := self._next_message(timeout_seconds)).get("number") != self.number:
            pass
        return message

    def _next_message(self, timeout_seconds: float | None) -> dict[str, Any]:
        while not (found := b"".join(self._received).partition(b"\n"))[1]:
            _wait_for(self._socket, timeout_seconds)
            # Ctrl-C is heard between two steps of Python, and this is one: it never loses what has come.
            self._received.extend(map(self._socket.recv, (_PIECE_BYTES,)))
            if not self._received[-1]:
                raise ConnectionResetError("the server ended the connection")
        line, _, rest = found
        self._received = [rest]
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ConnectionAbortedError("what came is no message")
        return message

    def see(self, video: VideoToSee, wanted: Mapping[str, Any]) -> Generator[Any, None, SeenVideo]:
        """Have a video seen, yielding progress; `wanted` is what is asked of it then. Raises what encoding raises."""
        before, resolved, shown = self._named, f"“{video.path.resolve()}”", f"“{video.path}”"
        self._named = lambda text: text.replace(resolved, shown)  # the server knows it by its full path
        try:
            with self.dropping():
                self.request({"video": video.as_dict(), **wanted})
                while "seen" not in (message := self.receive()):
                    stage, done, total = message["progress"]
                    yield SimpleNamespace(stage=stage, done=done, total=total)
        except BaseException:
            self._named = before
            raise
        seen = message["seen"]
        return SeenVideo(
            video=VideoInfo(**seen["video"] | {"path": video.path}),
            timestamps_seconds=tuple(seen["timestamps_seconds"]),
            crop=CropMode(seen["crop"]),
            num_slow_tokens=seen["num_slow_tokens"],
            num_fast_tokens=seen["num_fast_tokens"],
            is_from_cache=seen["is_from_cache"],
            warnings=tuple(map(self._named, seen["warnings"])),
        )

    def answers(self, num_questions: int) -> Iterator[AnswerStream]:
        """A stream for each question that was asked of the video, in order."""
        for _ in range(num_questions):
            with gone_is_an_error():
                while "begun" not in self.receive():
                    pass
            whole: list[Answer] = []
            yield AnswerStream(self._pieces(whole), partial(whole.__getitem__, 0))

    def _pieces(self, whole: list[Answer]) -> Generator[list[str], None, None]:
        with gone_is_an_error():
            while "answer" not in (message := self.receive()):
                yield [message["piece"]]
        whole.append(self.answer(message["answer"]))

    def answer(self, document: Mapping[str, Any]) -> Answer:
        """The answer that a message holds."""
        answer = Answer.from_dict(document)
        return replace(answer, warnings=tuple(map(self._named, answer.warnings)))

    def _error(self, name: str, args: Sequence[Any]) -> Exception:
        kind = getattr(errors, name, None) or getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, SfvqaError | OSError | MemoryError)):
            kind = type(name, (Exception,), {})  # of a library: known by its name
        if issubclass(kind, VideoError):
            args = [self._named(str(part)) for part in args]
        error: Exception = kind(*args)
        return error


class ServedChat:
    """A conversation that a server holds, as `inference.chat.Chat` is one here."""

    def __init__(self, connection: Connection, encoded: SeenVideo) -> None:
        self.encoded = encoded
        self._connection = connection
        self._number = connection.number  # by which the server knows it
        with connection.dropping():
            self._state = connection.receive()["chat"]

    @property
    def num_dropped(self) -> int:
        """Turns that are not in the conversation any more."""
        return int(self._state["num_dropped"])

    @property
    def num_turns(self) -> int:
        """Turns that are."""
        return int(self._state["num_turns"])

    @property
    def context(self) -> ContextUse:
        """How full the conversation is."""
        return ContextUse(*self._state["context"])

    @property
    def will_drop(self) -> bool:
        """Whether a further turn would push the oldest one out."""
        return bool(self._state["will_drop"])

    def reset(self) -> None:
        """Forget what was said."""
        with gone_is_an_error(_START_AGAIN), self._connection.dropping():
            self._request({"reset": True})
            state = self._connection.receive()["chat"]
        self._state = state

    def stream(self, question: str) -> AnswerStream:
        """Answer one more question; what must drop has dropped when this returns."""
        with gone_is_an_error(_START_AGAIN), self._connection.dropping():
            self._request({"turn": question})
            begun = self._connection.receive()
            so_far = [self._connection.answer(begun["begun"])]
            pieces = self._pieces(so_far)
            next(pieces)  # from here on, closing it tells the server
        self._state = begun["chat"]
        return AnswerStream(pieces, lambda: so_far[-1])

    def _request(self, message: Mapping[str, Any]) -> None:
        self._connection.request({**message, "chat": self._number})

    def _pieces(self, so_far: list[Answer]) -> Generator[list[str], None, None]:
        with gone_is_an_error(_START_AGAIN):
            try:
                yield [""]
                while "answer" not in (message := self._connection.receive()):
                    yield [message["piece"]]
            except (GeneratorExit, KeyboardInterrupt):
                self._connection.send({"stop": True})
                self._look_again(so_far)
                raise
            except OSError:
                raise
            except Exception:  # of the answer; the conversation goes on
                self._look_again(so_far)
                raise
        self._take(message, so_far)

    def _look_again(self, so_far: list[Answer]) -> None:
        """Ask how things stand; what comes of the turn before that is passed over, and may have been missed."""
        self._request({"state": True})
        self._take(self._connection.receive(), so_far)

    def _take(self, message: Mapping[str, Any], so_far: list[Answer]) -> None:
        so_far.append(self._connection.answer(message["answer"]))
        self._state = message["chat"]


@contextlib.contextmanager
def gone_is_an_error(remedy: str = "Ask again.") -> Iterator[None]:
    """ServerError for a server that ends while it answers."""
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise ServerError("The server has ended, and the answer with it.", remedy) from error


def _wait_for(source: socket.socket, timeout_seconds: float | None) -> None:
    """Until there is something to receive; Ctrl-C may end it."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    if not poll.poll(None if timeout_seconds is None else timeout_seconds * 1000):
        raise TimeoutError("the server says nothing")
