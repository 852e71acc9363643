"""What goes over the user's socket: several callers at once, those that leave, and conversations that are put aside."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.errors import OutOfMemoryError, PromptTooLongError, ServerError, VideoNotFoundError
from sfvqa.inference.answer import Answer
from sfvqa.inference.answering import AnswerRun
from sfvqa.inference.chat import Chat
from sfvqa.inference.question import PromptOptions
from sfvqa.serve import local
from sfvqa.serve.client import Connection, SeenVideo, ServedChat, VideoToSee
from sfvqa.serve.request import Event, Request
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from tests.serve.serving import PATIENCE_SECONDS, ServedLocally, serving_locally, until
from tests.windows import needs_sockets

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
SHAPES, FLASH = DEMO / "shapes.mp4", DEMO / "flash.mp4"
COLOUR, DIGIT = "What colour does the screen flash?", "Which digit is shown?"
GENERATION = {"schema": None, "max_new_tokens": 32}

pytestmark = needs_sockets


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedLocally]:
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SFVQA_CACHE_DIR", str(tmp_path / "cache"))
    with serving_locally() as server:
        yield server


def see(connection: Connection, path: Path = SHAPES, **wanted: Any) -> SeenVideo:
    """Have a video seen."""
    video = VideoToSee(path, SamplingOptions(32), None, ReadOptions(), PromptOptions(), False, None)
    steps = connection.see(video, {"generation": GENERATION, **wanted})
    while True:
        try:
            next(steps)
        except StopIteration as end:
            seen: SeenVideo = end.value
            return seen


def ask(connection: Connection, *questions: str, path: Path = SHAPES) -> list[str]:
    see(connection, path, questions=questions, choices=None, batch_size=1)
    return ["".join(stream) for stream in connection.answers(len(questions))]


def chat(connection: Connection, path: Path = SHAPES) -> ServedChat:
    return ServedChat(connection, see(connection, path, context_tokens=None))


def test_a_connection_answers_one_thing_after_the_other(server: ServedLocally) -> None:
    """Also after an error."""
    with Connection(server.status) as connection:
        seen = see(connection, questions=[DIGIT], choices=None, batch_size=1)
        assert (seen.num_fast_tokens, seen.num_slow_tokens, len(seen.timestamps_seconds)) == (64, 512, 32)
        assert ["".join(stream) for stream in connection.answers(1)] == ["The digit 7 is shown."]
        with pytest.raises(VideoNotFoundError, match=r"absent\.mp4"):
            ask(connection, DIGIT, path=Path("absent.mp4"))
        assert ask(connection, COLOUR, DIGIT) == ["The screen flashes green.", "The digit 7 is shown."]


def test_many_are_answered_at_once(server: ServedLocally) -> None:
    """Each its own, and with its own video."""
    said: dict[int, list[str]] = {}

    def caller(number: int) -> None:
        with Connection(server.status) as connection:
            said[number] = ask(connection, DIGIT, COLOUR, path=(SHAPES, FLASH)[number % 2])

    threads = [threading.Thread(target=caller, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert said[0][0] == "The digit 7 is shown."
    assert [said[number] == said[number % 2] for number in range(6)] == [True] * 6


def test_whoever_leaves_is_worked_for_no_longer(server: ServedLocally, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has no end, and the next caller is answered all the same."""
    steps, is_closed = AnswerRun.steps, threading.Event()

    def endless(_: AnswerRun) -> Iterator[list[str]]:
        try:
            while True:
                yield ["on and "]
        finally:
            is_closed.set()

    monkeypatch.setattr(AnswerRun, "steps", endless)
    with Connection(server.status) as connection:
        see(connection, questions=[DIGIT], choices=None, batch_size=1)
        assert next(next(connection.answers(1))) == "on and "
    assert is_closed.wait(PATIENCE_SECONDS)
    monkeypatch.setattr(AnswerRun, "steps", steps)
    with Connection(server.status) as connection:
        assert ask(connection, DIGIT) == ["The digit 7 is shown."]


def test_a_chat_goes_on_from_what_was_prefilled(server: ServedLocally) -> None:
    with Connection(server.status) as connection:
        talk = chat(connection)
        first = talk.stream(COLOUR)
        assert "".join(first) == "The screen flashes green."
        second = talk.stream(DIGIT)
        assert "".join(second) == "The digit 7 is shown."
        assert first.answer.tokens.reused == 0
        assert second.answer.tokens.reused >= first.answer.tokens.prompt
        assert (talk.num_turns, talk.num_dropped, talk.will_drop) == (2, 0, False)
        with pytest.raises(PromptTooLongError):
            talk.stream("so " * 3000)
        assert talk.num_turns == 2
        talk.reset()
        assert talk.num_turns == 0


def test_an_answer_that_is_not_wanted_is_not_written(server: ServedLocally) -> None:
    """A stream that is closed before its first piece tells the server, and the chat goes on."""
    with Connection(server.status) as connection:
        talk = chat(connection)
        with talk.stream(COLOUR):
            pass
        assert "".join(talk.stream(DIGIT)) == "The digit 7 is shown."
        assert talk.num_turns in (1, 2)  # the first may have been whole by then


def test_what_fails_in_a_turn_leaves_the_conversation(server: ServedLocally, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how it stands then is known."""
    steps = AnswerRun.steps

    def failing(run: AnswerRun) -> Iterator[list[str]]:
        yield from [next(steps(run))]
        raise MemoryError

    with Connection(server.status) as connection:
        talk = chat(connection)
        monkeypatch.setattr(AnswerRun, "steps", failing)
        with pytest.raises(Exception, match=r"failed|memory|^$"):
            "".join(talk.stream(COLOUR))
        monkeypatch.setattr(AnswerRun, "steps", steps)
        assert "".join(talk.stream(DIGIT)) == "The digit 7 is shown."
        assert talk.num_turns in (1, 2)


@pytest.fixture(params=["at once", "once it is done"])
def interrupted(
    request: pytest.FixtureRequest, server: ServedLocally, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Do something of which Ctrl-C is pressed before the server has answered, or when it has done it."""
    receive = Connection.receive_any

    def pressing(connection: Connection, *_: object) -> None:
        if request.param != "at once":
            receive(connection)
            while server.service.room.num_requests:
                time.sleep(0.001)
        raise KeyboardInterrupt

    def interrupted(do: Callable[[], Any]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "receive_any", pressing)
            with pytest.raises(KeyboardInterrupt):
                do()

    return interrupted


def test_a_question_that_is_taken_back_is_no_turn(server: ServedLocally, interrupted: Callable[..., None]) -> None:
    """Its answer is not taken for that of the next."""
    with Connection(server.status) as connection:
        talk = chat(connection)
        interrupted(lambda: talk.stream(COLOUR))
        assert "".join(talk.stream(DIGIT)) == "The digit 7 is shown."
        assert (talk.num_turns, talk.num_dropped) == (1, 0)
        interrupted(lambda: talk.stream(DIGIT))
        interrupted(talk.reset)
        assert talk.num_turns == 1
        assert "".join(talk.stream(COLOUR)) == "The screen flashes green."
        assert talk.num_turns == 2


def test_a_video_that_is_taken_back_leaves_the_conversation(
    server: ServedLocally, interrupted: Callable[..., None]
) -> None:
    """However far the server has come with it."""
    with Connection(server.status) as connection:
        talk = chat(connection)
        assert "".join(talk.stream(COLOUR)) == "The screen flashes green."
        interrupted(lambda: see(connection, FLASH, context_tokens=None))
        seen = see(connection, FLASH, context_tokens=None)
        interrupted(lambda: ServedChat(connection, seen))
        again = talk.stream(DIGIT)
        assert "".join(again) == "The digit 7 is shown."
        assert (again.answer.video, talk.num_turns) == (str(SHAPES), 2)
        other = chat(connection, FLASH)
        assert "".join(other.stream(COLOUR))
        assert other.num_turns == 1


def test_a_conversation_ends_with_its_server(server: ServedLocally) -> None:
    """The server alone held it: to ask again would not help."""
    with Connection(server.status) as connection:
        talk = chat(connection)
        connection._socket.shutdown(socket.SHUT_RDWR)
        for do in (talk.reset, lambda: talk.stream(DIGIT)):
            with pytest.raises(ServerError) as failed:
                do()
            assert failed.value.remedy == "Start the chat again."


def test_only_some_conversations_stay_prefilled(server: ServedLocally, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked nothing for longest is prefilled anew, to the same answer."""
    released: list[Chat] = []
    release = Chat.release

    def noting(chat: Chat) -> None:
        released.append(chat)
        release(chat)

    monkeypatch.setattr(Chat, "release", noting)
    monkeypatch.setattr(local, "_MOST_KEPT_CHATS", 2)
    connections = [Connection(server.status) for _ in range(3)]
    talks = [chat(connection) for connection in connections]
    for talk in talks:
        "".join(talk.stream(COLOUR))
    assert len(released) == 1
    again = talks[0].stream(DIGIT)
    assert "".join(again) == "The digit 7 is shown."
    assert again.answer.tokens.reused == 0
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("sent", [b"no message\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_message_ends_the_connection(server: ServedLocally, sent: bytes) -> None:
    """Of that caller alone."""
    with Connection(server.status) as connection:
        connection._socket.sendall(sent)
        with pytest.raises(ConnectionError):
            connection.receive()
    with Connection(server.status) as connection:
        assert ask(connection, DIGIT) == ["The digit 7 is shown."]


def test_where_memory_runs_out_what_is_kept_makes_room_and_all_is_done_again(
    server: ServedLocally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is told twice."""
    request = Request(DIGIT, SHAPES, sampling=SamplingOptions(32))
    told: list[Event] = []
    server.service.submit(request, told.append)
    until(lambda: told and isinstance(told[-1], Answer))
    stream, errors = AnswerRun.steps, [OutOfMemoryError("Memory ran out.")]

    def run_out(run: AnswerRun) -> Iterator[list[str]]:
        for number, pieces in enumerate(stream(run)):
            if number == 3 and errors:
                raise errors.pop()
            yield pieces

    monkeypatch.setattr(AnswerRun, "steps", run_out)
    with Connection(server.status) as connection:
        assert ask(connection, COLOUR, DIGIT) == ["The screen flashes green.", "The digit 7 is shown."]
    assert not errors
    errors.append(OutOfMemoryError("Memory ran out."))
    with Connection(server.status) as connection, pytest.raises(OutOfMemoryError, match="Memory"):
        ask(connection, COLOUR)  # nothing is kept by now that could make room
