"""`sfvqa ask` and `chat` with a server and without: the same on both streams, and what goes the usual way."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.cli.screen import WordWriter
from sfvqa.inference.answer import AnswerStream
from sfvqa.inference.answering import AnswerRun
from sfvqa.serve import local
from sfvqa.serve.client import Connection
from tests.cli.conftest import Outcome, RunCli, RunOnTerminal
from tests.serve.serving import PATIENCE_SECONDS, ServedLocally, serving_locally, until
from tests.video.readers.test_text_tracks import write as write_with_subtitles
from tests.windows import needs_sockets

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
SHAPES, FLASH = str(DEMO / "shapes.mp4"), str(DEMO / "flash.mp4")
COLOUR, DIGIT = "What colour does the screen flash?", "Which digit is shown?"
SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n"

SCHEMA = '{"type": "object", "properties": {"digit": {"type": "integer"}}, "required": ["digit"]}'
PROMPT = "\x1b[?2004h"  # a line is read

pytestmark = needs_sockets


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedLocally]:
    """A server of tiny; the folder of a test is that of its commands."""
    (tmp_path / "talk.srt").write_text(SRT, encoding="utf-8")
    (tmp_path / "questions.txt").write_text(f"{COLOUR}\n{DIGIT}\n", encoding="utf-8")
    (tmp_path / "schema.json").write_text(SCHEMA, encoding="utf-8")
    shutil.copyfile(SHAPES, tmp_path / "own.mp4")
    (tmp_path / "cut.mp4").write_bytes(Path(SHAPES).read_bytes()[:9000])
    write_with_subtitles(tmp_path / "track.mkv", ["subrip"])
    monkeypatch.chdir(tmp_path)
    with serving_locally() as server:
        yield server


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which models the commands of a test loaded themselves."""
    from sfvqa.cli import model

    loaded: list[str] = []
    load = model.load

    def noting(settings: Any, *more: Any) -> Any:
        loaded.append(str(settings.name))
        return load(settings, *more)

    monkeypatch.setattr(model, "load", noting)
    return loaded


def plain(run: Outcome) -> tuple[int, list[str], str]:
    """Without what the clock and the memory say."""
    lines = [re.sub(r'("\w+_seconds|"tokens_per_second|"peak_memory_bytes)": [^,}]+', r"\1: 0", line)
             for line in run.stdout.splitlines()]  # fmt: skip
    told = re.sub(r"\d+\.\d+ (s|MB|GB)\b|\(\d[\d.,]*/s\)", "0", run.stderr)
    return run.exit_code, lines, told


def both_ways(run_cli: RunCli, loaded: list[str], *args: str, fresh: bool = False) -> Outcome:
    """Run with the server and without, with the video in the cache, or in none; the same comes of it."""
    if not fresh:
        run_cli(*args, "--no-server")
        loaded.clear()
    served = run_cli(*args)
    assert not loaded, "no server was used"
    if fresh:
        shutil.rmtree(os.environ["SFVQA_CACHE_DIR"])
    alone = run_cli(*args, "--no-server")
    assert plain(served) == plain(alone)
    return served


@pytest.mark.parametrize("output", [[], ["-q"], ["-v"], ["--json"], ["--json", "-v"]], ids=" ".join)
@pytest.mark.usefixtures("server")
def test_answers_are_printed_alike(run_cli: RunCli, loaded: list[str], output: list[str]) -> None:
    run = both_ways(run_cli, loaded, "ask", SHAPES, COLOUR, DIGIT, "--model", "tiny", *output)
    assert "green" in run.stdout
    assert "7" in run.stdout


@pytest.mark.parametrize(
    "more",
    [
        ["--questions", "questions.txt"],
        ["--choices", "green,blue,red"],
        ["--evidence"],
        ["--choices", "green,blue", "--evidence"],
        ["--subtitles", "talk.srt", "--subtitle-tokens", "30"],
        ["--start", "1", "--end", "0:03.5", "--frames", "8"],
        ["--fps", "2"],
        ["--timestamps", "1,2.5"],
        ["--crop", "pad", "--reader", "opencv"],
        ["--system", "Be brief.", "--template", "{question} In one word."],
        ["--temperature", "1.5", "--top-p", "0.9", "--seed", "7", "--repetition-penalty", "1.2"],
        ["--temperature", "9", "--top-k", "3", "--stop", "red", "--stop", " 7"],
        ["--max-new-tokens", "2"],
        ["--slow-attention", "prefill"],
        ["--batch-size", "2"],
        ["--batch-size", "auto"],
        ["--json-object", "--max-new-tokens", "60"],
        ["--json-schema", "schema.json"],
        ["--json-schema", "schema.json", "--batch-size", "3"],
        ["--json-schema", "schema.json", "--max-new-tokens", "3"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("server")
def test_every_option_has_its_effect(run_cli: RunCli, loaded: list[str], more: list[str]) -> None:
    """What is asked for arrives, and comes back with all there is to know of it."""
    both_ways(run_cli, loaded, "ask", "own.mp4", COLOUR, DIGIT, COLOUR, "--model", "tiny", "--json", "-v", *more)


@pytest.mark.usefixtures("server")
def test_a_video_that_is_new_is_read_and_encoded_for_this_answer(run_cli: RunCli, loaded: list[str]) -> None:
    """And so says the answer; a further command finds it, in memory or on disk."""
    args = ["ask", "own.mp4", COLOUR, DIGIT, "--model", "tiny", "--json"]
    first = both_ways(run_cli, loaded, *args, fresh=True)
    assert [json.loads(line)["from_video_cache"] for line in first.stdout.splitlines()] == [False, False]
    again = both_ways(run_cli, loaded, *args)
    assert [json.loads(line)["from_video_cache"] for line in again.stdout.splitlines()] == [True, True]


@pytest.mark.usefixtures("server")
def test_the_videos_own_subtitles_are_read(run_cli: RunCli, loaded: list[str]) -> None:
    args = ["ask", "track.mkv", DIGIT, "--model", "tiny", "--json", "--subtitles", "auto"]
    assert json.loads(both_ways(run_cli, loaded, *args).stdout)["subtitles"]["lines"] == 2


@pytest.mark.parametrize("output", [[], ["--json"], ["-q"], ["-v"]], ids=" ".join)
@pytest.mark.parametrize(
    ("args", "exit_code"),
    [
        (["absent.mp4", COLOUR], 3),
        (["talk.srt", COLOUR], 3),
        (["cut.mp4", COLOUR], 3),
        (["own.mp4", COLOUR, "--start", "90"], 3),
        (["own.mp4", COLOUR, " "], 2),
        (["own.mp4", COLOUR, "so " * 2000], 2),
        (["own.mp4", COLOUR, "--max-new-tokens", "99999"], 2),
        (["own.mp4", COLOUR, "--frames", "99999", "--sampling", "uniform", "--fps", "0"], 2),
        (["own.mp4", COLOUR, "--subtitles", "absent.srt"], 2),
        (["own.mp4", COLOUR, "--choices", "one"], 2),
        (["track.mkv", COLOUR, "--subtitles", "auto", "--reader", "pillow"], 3),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
@pytest.mark.usefixtures("server")
def test_errors_are_told_alike(
    run_cli: RunCli, loaded: list[str], args: list[str], exit_code: int, output: list[str]
) -> None:
    """The same sentences, with the path as it was given."""
    assert both_ways(run_cli, loaded, "ask", *args, "--model", "tiny", *output).exit_code == exit_code


@pytest.mark.parametrize(
    "more",
    [
        ["--no-cache"],
        ["--full-hash"],
        ["--cache-size", "1GB"],
        ["--frames", "auto"],
        ["--dry-run"],
        ["--evidence-out", "strip.png"],
        ["--dtype", "float32"],
        ["--device", "cpu"],
        ["--quant", "none"],
        ["--random-weights"],
        ["--no-server"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("server")
def test_what_a_server_would_do_otherwise_goes_the_usual_way(
    run_cli: RunCli, loaded: list[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(Connection, "__init__", refuse)
    assert run_cli("ask", SHAPES, COLOUR, "--model", "tiny", *more).exit_code == 0
    assert bool(loaded) is ("--dry-run" not in more)


@pytest.mark.usefixtures("server")
def test_a_variable_keeps_servers_out(run_cli: RunCli, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_NO_SERVER", "1")
    assert run_cli("ask", SHAPES, COLOUR, "--model", "tiny").stdout == "The screen flashes green.\n"
    assert loaded


@pytest.mark.parametrize("ends", ["socket", "busy", "stopping"])
def test_a_server_that_does_not_answer_is_passed_over(
    run_cli: RunCli, loaded: list[str], server: ServedLocally, ends: str
) -> None:
    """As if there were none, without a word."""
    alone = run_cli("ask", SHAPES, COLOUR, "--model", "tiny", "--no-server")
    loaded.clear()
    if ends == "socket":
        Path(server.status.socket).unlink()
    elif ends == "busy":
        object.__setattr__(server.service.options, "most_requests", 0)
    else:
        server.service.room.stop_accepting()
    assert run_cli("ask", SHAPES, COLOUR, "--model", "tiny") == alone
    assert loaded == ["tiny"]


def test_ctrl_c_drops_what_the_server_does(
    run_cli: RunCli, server: ServedLocally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends as it does without one, and the model is free for the next."""
    closed = threading.Event()

    def stream_all(*_: object, **__: object) -> Iterator[AnswerStream]:
        def steps() -> Iterator[list[str]]:
            try:
                yield ["The screen "]
                while True:
                    yield [""] if server.service.room.num_requests else ["."]
            finally:
                closed.set()

        yield AnswerStream(steps(), lambda: None)  # type: ignore[arg-type, return-value]

    write = WordWriter.write

    def pressing(writer: WordWriter, text: str) -> None:
        write(writer, text)
        if text:  # what stands before an answer is empty, but for windows
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(WordWriter, "write", pressing)
    monkeypatch.setattr(server.answerer, "stream_all", stream_all, raising=False)
    run = run_cli("ask", SHAPES, COLOUR, "--model", "tiny")
    assert (run.exit_code, run.stdout, run.stderr) == (130, "The screen \n", "\n")
    assert closed.wait(PATIENCE_SECONDS)


def test_a_server_that_takes_no_chat_is_left(
    run_cli: RunCli, server: ServedLocally, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does not hold a connection to a chat that goes on without it."""
    (tmp_path / "lines.txt").write_text(f"{DIGIT}\n", encoding="utf-8")
    closed: list[Connection] = []
    monkeypatch.setattr(Connection, "close", lambda connection: closed.append(connection))
    object.__setattr__(server.service.options, "most_requests", 0)
    with Path("lines.txt").open(encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert run_cli("chat", SHAPES, "--model", "tiny").stdout == "The digit 7 is shown.\n"
    assert len(closed) == 1


CHAT = [COLOUR, DIGIT, "/context", "/frames", "/reset", DIGIT, f"/open {FLASH}", "Which way does the heart move?",
        "/context", "/open absent.mp4", "/open talk.srt", "so " * 2000, "/nope", COLOUR, "/save said.json"]  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [[], ["--json"], ["-q"], ["-v"], ["--context", "200", "--max-new-tokens", "20"], ["--subtitles", "talk.srt"]],
    ids=" ".join,
)
@pytest.mark.usefixtures("server")
def test_a_chat_is_the_same(
    run_cli: RunCli, loaded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str]
) -> None:
    """Turns, commands, errors, and what is dropped where the context is full."""
    (tmp_path / "lines.txt").write_text("\n".join(CHAT), encoding="utf-8")
    said = []
    for way in ("--no-server", "", "--no-server"):
        loaded.clear()
        with Path("lines.txt").open(encoding="utf-8") as lines, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", lines)
            said.append(plain(run_cli("chat", SHAPES, "--model", "tiny", *more, *way.split())))
        assert bool(loaded) is bool(way)
        Path("said.json").unlink()
    assert said[1] == said[2]


def test_ctrl_c_in_a_chat_keeps_what_came(
    run_on_terminal: RunOnTerminal, server: ServedLocally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops, and the conversation goes on with what it had said."""
    steps, is_first = AnswerRun.steps, [True]

    def interrupted(run: AnswerRun) -> Iterator[list[str]]:
        for number, step in enumerate(steps(run)):
            yield step
            if number == 1 and is_first:
                is_first.clear()
                os.kill(os.getpid(), signal.SIGINT)
                while not sessions[-1].is_stopped:
                    yield [""]

    sessions: list[local.Session] = []
    begin = local.Session.begin

    def noting(session: local.Session, *more: Any) -> Any:
        sessions.append(session)
        return begin(session, *more)

    monkeypatch.setattr(local.Session, "begin", noting)
    monkeypatch.setattr(AnswerRun, "steps", interrupted)
    at_prompts = [("Ctrl-D leaves.", f"{COLOUR}\r"), ("is part of the conversation", "/context\r"),
                  ("1 turn", f"{DIGIT}\r"), ("2,048.", "\x04")]  # fmt: skip
    typing = [step for shown, keys in at_prompts for step in ((shown, ""), (PROMPT, keys))]
    exit_code, sent = run_on_terminal("chat", SHAPES, "--model", "tiny", typing=typing)
    assert exit_code == 0
    assert "Stopped; the partial answer is part of the conversation." in sent
    assert "The digit 7 is shown." in sent
    until(lambda: not server.service.room.num_requests)  # which the server counts once its own thread is through
