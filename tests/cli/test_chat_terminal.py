"""`sfvqa chat` on a pseudo-terminal, with a scripted model: editing, history, completion, Ctrl-C and Ctrl-D."""

import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.cli import chat_lines, chat_loop, exits
from sfvqa.cli.screen import Notices
from tests.cli.conftest import RunOnTerminal
from tests.cli.fake import Press, ScriptedVideoQA
from tests.windows import named_windows

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
HINT, DONE = "Ctrl-D leaves.", "2,048."
PROMPT = "\x1b[?2004h"  # a line is read, and what is pasted comes in brackets
CTRL_C, CTRL_D, UP, TAB, ENTER = "\x03", "\x04", "\x1b[A", "\t", "\r"
Keys = Sequence[tuple[str, str]]
ChatWith = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")


@pytest.fixture
def chat(run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA) -> ChatWith:
    """Chat with these keys, pressed at the prompt that follows what stands before them; give what was sent."""
    model.script = [["Left."], ["Red."], ["Blue."], ["Green."], ["Seven."]]

    def run(*typing: tuple[str, str], flags: str = "") -> tuple[int, str]:
        at_prompts = [step for shown, keys in typing for step in ((shown, ""), (PROMPT, keys))]
        exit_code, sent = run_on_terminal("chat", str(video), *flags.split(), typing=at_prompts)
        return exit_code, _ESCAPE.sub("", sent)

    return run


def asked(model: ScriptedVideoQA) -> list[str]:
    return [question for question, _ in model.asked]


def test_questions_are_typed_and_answered(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """A hint first; answers stand below what was typed; Ctrl-D leaves with 0."""
    exit_code, sent = chat((HINT, f"Where?{ENTER}"), (DONE, f"Which?{ENTER}"), (DONE, CTRL_D))
    assert exit_code == 0
    assert asked(model) == ["Where?", "Which?"]
    places = [sent.index(text) for text in ("/help", "Where?", "Left.\n", "context 50 of", "Red.\n", "context 90")]
    assert places == sorted(places)


def test_lines_can_be_edited_and_had_again(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Ctrl-A goes to the beginning; the arrow brings back the last line."""
    chat((HINT, f"ere?\x01Wh{ENTER}"), (DONE, f"{UP}!{ENTER}"), (DONE, f"/quit{ENTER}"))
    assert asked(model) == ["Where?", "Where?!"]


def test_history_outlives_the_chat_and_is_private(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path) -> None:
    chat((HINT, f"Where?{ENTER}"), (DONE, CTRL_D))
    chat((HINT, f"{UP}{ENTER}"), (DONE, CTRL_D))
    assert asked(model) == ["Where?", "Where?"]
    assert stat.S_IMODE((tmp_path / "history").stat().st_mode) == 0o600


def test_an_empty_name_keeps_no_history(chat: ChatWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SFVQA_HISTORY", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    chat((HINT, f"Where?{ENTER}"), (DONE, CTRL_D))
    assert not (tmp_path / "history").exists()
    assert not (tmp_path / "state").exists()


def test_the_history_is_kept_where_states_are(chat: ChatWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SFVQA_HISTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    chat((HINT, f"Where?{ENTER}"), (DONE, CTRL_D))
    assert "+Where?\n" in (tmp_path / "state" / "sfvqa" / "chat_history").read_text(encoding="utf-8")


def test_a_history_that_cannot_be_kept_is_a_warning(chat: ChatWith, tmp_path: Path) -> None:
    """A folder is in its place; the chat goes on, and the arrow works in it."""
    (tmp_path / "history").mkdir()
    exit_code, sent = chat((HINT, f"Where?{ENTER}"), (DONE, f"{UP}{ENTER}"), (DONE, CTRL_D))
    assert exit_code == 0
    assert f"Warning: The history cannot be kept in {tmp_path}/history: it is not a file." in " ".join(sent.split())
    assert "Red.\n" in sent


def test_a_history_that_fills_the_disk_is_a_warning(
    chat: ChatWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may go wrong at any line."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prompt_toolkit.history.FileHistory.store_string", fail)
    exit_code, sent = chat((HINT, f"Where?{ENTER}"), (DONE, CTRL_D))
    assert (
        exit_code,
        " ".join(sent.split()).count(f"cannot be kept in {tmp_path}/history: No space left on device."),
    ) == (0, 1)


def test_commands_and_paths_are_completed(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path) -> None:
    """As far as they are clear."""
    other = tmp_path / "other clip.mp4"
    other.write_bytes(b"not looked at\0")
    chat((HINT, f"/op{TAB} {tmp_path}/oth{TAB}{ENTER}"), ("New", f"/qu{TAB}{ENTER}"))
    assert [begun.encoded.video.path.name for begun in model.chats] == ["clip.mp4", "other clip.mp4"]


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(
    chat: ChatWith, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer anew, though the second Ctrl-C of other commands ends the process."""
    monkeypatch.setattr(os, "_exit", lambda _code: pytest.fail("the process was ended"))
    model.script = [["The circle ", Press()], ["Red ", Press()], ["Blue."]]
    exit_code, sent = chat(
        (HINT, f"A?{ENTER}"), ("is part of", f"B?{ENTER}"), ("is part of", f"C?{ENTER}"), (DONE, CTRL_D)
    )
    assert exit_code == 0
    assert "The circle \nStopped; the partial answer is part of the conversation.\n" in sent
    assert [turn.answer.text for turn in model.chats[0].turns] == ["The circle ", "Red ", "Blue."]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_anything_came(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path) -> None:
    """The question is no part of the conversation, nor of what is saved."""
    model.script = [[Press()], ["Red."]]
    exit_code, sent = chat(
        (HINT, f"A?{ENTER}"), ("no", f"B?{ENTER}"), (DONE, f"/save {tmp_path}/t.md{ENTER}"), ("saved", CTRL_D)
    )
    assert exit_code == 0
    assert "Stopped before the answer began" in sent
    assert "A?" not in (tmp_path / "t.md").read_text(encoding="utf-8")


def test_a_stopped_answer_is_an_object_with_json(chat: ChatWith, model: ScriptedVideoQA) -> None:
    model.script = [["The circle ", Press()], ["Red."]]
    _, sent = chat((HINT, f"A?{ENTER}"), ("is part of", CTRL_D), flags="--json")
    assert '"answer": "The circle "' in sent
    assert '"finish_reason": "interrupted"' in sent


def test_ctrl_c_that_a_library_makes_an_error_of_is_no_error(chat: ChatWith, model: ScriptedVideoQA) -> None:
    model.script = [["The circle ", Press(RuntimeError("a thread was cancelled"))], ["Red."]]
    exit_code, sent = chat((HINT, f"A?{ENTER}"), ("Stopped", f"B?{ENTER}"), (DONE, CTRL_D))
    assert (exit_code, "Red.\n" in sent, "Error" in sent) == (0, True, False)


def test_ctrl_c_while_a_video_is_read_keeps_the_old_one(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(b"not looked at\0")
    steps: Iterator[Callable[[], None]] = iter([lambda: None, Press()])
    model.while_encoding = lambda: next(steps)()
    exit_code, sent = chat(
        (HINT, f"A?{ENTER}"),
        (DONE, f"/open {other}{ENTER}"),
        ("nothing has changed", f"B?{ENTER}"),
        (DONE, CTRL_D),
    )
    assert exit_code == 0
    assert "Stopped; nothing has changed." in sent
    assert [turn.question for turn in model.chats[0].turns] == ["A?", "B?"]


def test_ctrl_c_at_the_prompt_clears_the_line_and_then_says_how_to_leave(
    chat: ChatWith, model: ScriptedVideoQA
) -> None:
    exit_code, sent = chat((HINT, f"Whe{CTRL_C}"), ("", f"Which?{ENTER}"), (DONE, CTRL_C), ("quit leaves.", CTRL_D))
    assert (exit_code, asked(model)) == (0, ["Which?"])
    assert sent.count("Ctrl-D or /quit leaves.") == 1


def test_ctrl_c_before_the_first_question_ends_the_command(
    run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA
) -> None:
    """There is no chat yet to be kept."""
    model.while_encoding = Press()
    assert run_on_terminal("chat", str(video), typing=[("Opening", "")])[0] == 130


def test_what_fails_is_said_and_the_chat_goes_on(chat: ChatWith) -> None:
    """Who sits there has seen it: the exit code is 0."""
    exit_code, sent = chat((HINT, f"/frame{ENTER}"), ("before it.", f"Where?{ENTER}"), (DONE, CTRL_D))
    assert exit_code == 0
    assert "Error: There is no command /frame.\nDid you mean /frames?" in sent
    assert "Left.\n" in sent


def test_ctrl_c_on_a_dumb_terminal_says_how_to_leave(
    run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line of its own, not behind the prompt."""
    reads = iter([KeyboardInterrupt()])
    read = chat_lines.PipedLines.read

    def interrupted(source: chat_lines.PipedLines) -> str | None:
        for error in reads:
            raise error
        return read(source)

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(chat_lines.PipedLines, "read", interrupted)
    exit_code, sent = run_on_terminal("chat", str(video), typing=[("/quit leaves.\r\n> ", CTRL_D)])
    assert exit_code == 0
    assert "> \nCtrl-D or /quit leaves." in _ESCAPE.sub("", sent)
    assert model.asked == []


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_a_prompt_and_nothing_that_moves(
    term: str, run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    exit_code, sent = run_on_terminal(
        "chat", str(video), typing=[("> ", "Where?\n"), ("> ", "/context\n"), ("> ", CTRL_D)]
    )
    assert (exit_code, asked(model)) == (0, ["Where?"])
    assert not re.search(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", sent)  # only "m", colours
    assert "moves left.\n" in sent


def test_no_color_edits_without_colour(
    run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    _, sent = run_on_terminal("chat", str(video), typing=[(PROMPT, f"Where?{ENTER}"), (DONE, ""), (PROMPT, CTRL_D)])
    codes = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", sent) for code in codes.split(";")}
    assert not {code for code in codes if re.fullmatch(r"3[0-8]|4[0-8]|9\d|10\d", code)}
    assert asked(model) == ["Where?"]


def test_the_terminal_is_not_asked_where_its_cursor_is(
    run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA
) -> None:
    """Its answer would be text in the next line on a slow connection."""
    _, sent = run_on_terminal("chat", str(video), typing=[(PROMPT, CTRL_D)])
    assert "\x1b[6n" not in sent
    assert model.asked == []


def test_what_a_command_shows_fits_the_terminal(chat: ChatWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, sent = chat((HINT, f"/help{ENTER}"), ("clears", CTRL_D))
    shown = sent[sent.index("/frames") : sent.index("Ctrl-C stops")].splitlines()
    assert len(shown) > 10
    assert all(len(line) <= 40 for line in shown)


def test_a_double_tap_ends_one_answer_and_a_second_press_one_that_does_not_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock decides which of the two it was; between steps Ctrl-C does nothing."""
    left: list[int] = []
    now = 100.0
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pressed = exits.Interrupt(double_tap_seconds=1.0)
    pressed(signal.SIGINT, None)
    with pressed.step():
        with pytest.raises(KeyboardInterrupt):
            pressed(signal.SIGINT, None)
        now = 100.5
        pressed(signal.SIGINT, None)
        assert left == []
        now = 102.0
        pressed(signal.SIGINT, None)
    assert left == [130]
    assert pressed.seen


def test_on_windows_a_chat_whose_answers_go_to_a_file_has_a_plain_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line editor draws on standard output's console there, and failed without one."""
    named_windows(monkeypatch, chat_lines)
    for name, is_terminal in {"stdin": True, "stdout": False, "stderr": True}.items():
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda is_terminal=is_terminal: is_terminal))
    assert isinstance(chat_lines.open_lines(Notices(quiet=True, verbose=False)), chat_lines.PlainPrompt)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"new\notes.md", r"new\notes.md"),
        (r"C:\new\notes.md", r"C:\new\notes.md"),
        (r'"C:\my videos\a.mp4"', r"C:\my videos\a.mp4"),
        (r"C:\my videos\a.mp4", r"C:\my videos\a.mp4"),
    ],
)
def test_backslashes_stay_in_what_is_typed_on_windows(typed: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/save new\\notes.md` wrote a file newnotes.md."""
    named_windows(monkeypatch, chat_loop)
    assert str(chat_loop.typed_path(typed)) == meant
