"""`sfvqa chat` with a scripted model, its questions piped in: what goes where, and what a failure costs."""

import io
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfvqa.errors import OutOfMemoryError, PromptTooLongError
from sfvqa.inference.answer import FinishReason
from sfvqa.model import SlowAttention
from tests.cli.conftest import Outcome, RunCli
from tests.cli.fake import ScriptedVideoQA

ChatWith = Callable[..., Outcome]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another video."""
    path = tmp_path / "other clip.mp4"
    path.write_bytes(b"not looked at\0")
    return path


@pytest.fixture
def chat(run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch) -> ChatWith:
    """Chat with these lines on standard input."""
    model.script = [["Left."], ["Red."], ["Blue."], ["Green."], ["Seven."]]

    def run(lines: str, *flags: str) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode("utf-8", "surrogateescape"))))
            return run_cli("chat", str(video), *flags)

    return run


def test_every_line_is_a_question_and_stdout_holds_the_answers(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """No prompt; the question, which nobody saw, stands on stderr; the video is seen once."""
    run = chat("Where?\n\n  \n /is it red?  \nLast?", "-v")
    assert (run.exit_code, run.stdout) == (0, "Left.\n\nRed.\n\nBlue.\n")
    assert [question for question, _ in model.asked] == ["Where?", "/is it red?", "Last?"]
    assert run.stderr.index("clip.mp4: 0:08 long") < run.stderr.index("Where?") < run.stderr.index("/is it red?")
    assert len(model.sampled) == len(model.chats) == 1
    assert ">" not in run.stderr
    assert "\x1b" not in run.stderr


def test_a_line_a_turn_says_where_the_time_went(chat: ChatWith) -> None:
    """Of this turn: the seconds of reading and encoding were spent before it."""
    line = "First token after 0.12 s, 6 tokens (10.0/s), 30 of 40 reused, context {} of 2,048.\n"
    run = chat("Where?\nWhich?\n", "-v")
    assert run.stderr.index(line.format(50)) < run.stderr.index(line.format(90))


def test_options_reach_the_chat(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Those of `ask`, and --context."""
    flags = "--frames 8 --max-new-tokens 7 --temperature 0.5 --seed 3 --context 500 --system Short. --crop pad"
    assert chat("Where?\n", *flags.split(), "--template", "{question} Why?").exit_code == 0
    begun, options = model.chats[0], model.asked[0][1]
    assert (options.max_new_tokens, options.temperature, options.seed) == (7, 0.5, 3)
    assert options.slow_attention is SlowAttention.ALWAYS
    assert (begun.limit, begun.prompt and begun.prompt.system) == (500, "Short.")
    assert begun.prompt is not None
    assert begun.prompt.template == "{question} Why?"
    assert (model.sampled[0].num_frames, model.cropped[0]) == (8, "pad")


def test_json_is_one_object_a_question(chat: ChatWith) -> None:
    """What commands show must not come between them, nor errors of commands."""
    run = chat("Where?\n/context\n/frames\n/nonsense\nWhich?\n", "--json")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(answer["question"], answer["answer"]) for answer in answers] == [("Where?", "Left."), ("Which?", "Red.")]
    assert "50 of 2,048 tokens" in run.stderr
    assert "There is no command /nonsense" in run.stderr
    assert run.exit_code == 2


def test_json_has_an_object_for_a_question_that_fails(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Objects and questions go in step."""
    model.script = [["Left."], [OutOfMemoryError("Memory ran out.", "Use fewer frames.")], ["Blue."]]
    run = chat("Where?\nWhich?\nAnd?\n", "--json", "-q")
    documents = [json.loads(line) for line in run.stdout.splitlines()]
    assert [document.get("answer") for document in documents] == ["Left.", None, "Blue."]
    assert documents[1]["error"] == {"type": "OutOfMemoryError", "message": "Memory ran out. Use fewer frames."}
    assert (run.exit_code, run.stderr) == (5, "")


def test_quiet_is_one_answer_a_line_and_warnings(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """What is asked for by name still comes, beside stdout."""
    model.script, model.warnings = [["Left,\n", "then up."], ["Red."]], ("The file ends early.",)
    run = chat("Where?\n/reset\nWhich?\n", "-q")
    assert (run.exit_code, run.stdout, run.stderr) == (0, "Left, then up.\nRed.\n", "Warning: The file ends early.\n")
    run = chat("/context\n", "-q")
    assert (run.stdout, run.stderr) == (
        "",
        "Warning: The file ends early.\n10 of 2,048 tokens, room for 2,038 more; 0 turns.\n",
    )


def test_a_question_that_fails_costs_only_itself_and_the_exit_code(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """A script that feeds questions notices, by the first failure's code."""
    too_long = PromptTooLongError("The question takes 3,000 tokens.", "Ask less.")
    model.script = [[too_long], [OutOfMemoryError("Memory ran out.")], [ZeroDivisionError("oh")], ["Blue."]]
    run = chat("A?\nB?\nC?\nD?\n")
    assert run.exit_code == 2
    assert run.stdout.endswith("Blue.\n")
    assert "Error: The question takes 3,000 tokens.\nAsk less.\n" in run.stderr
    assert "Error: Memory ran out.\n" in run.stderr
    assert "ZeroDivisionError: oh" in run.stderr


def test_what_is_no_utf_8_fails_as_a_question(chat: ChatWith) -> None:
    """It must not end the chat, nor with a traceback."""
    run = chat("Is it \udce9?\nWhere?\n")
    assert (run.exit_code, run.stdout) == (2, "Left.\n")
    assert "not valid UTF-8" in run.stderr


def test_a_line_without_end_fails_as_a_question_and_is_not_held(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`readline` would take as much memory as a pipe has to give."""

    class Endless(io.RawIOBase):
        """A line of 60 MB, then a question."""

        left = 60_000_000

        is_first = True

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.left > 0:
                piece = b"a" * len(buffer)
            else:
                piece = b"\nWhere?\n" if self.is_first else b""
                self.is_first = False
            self.left -= len(piece)
            buffer[: len(piece)] = piece
            return len(piece)

    model.script = [["Left."]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless(), 1 << 20)))
    tracemalloc.start()
    try:
        run = run_cli("chat", str(video))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (run.exit_code, run.stdout) == (2, "Left.\n")
    assert "Error: The question has more than 1,000,000 characters." in run.stderr
    assert peak < 30e6


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_a_question(
    chat: ChatWith, model: ScriptedVideoQA
) -> None:
    assert chat("\ufeffWhere?\r\nWhich?\r\n").exit_code == 0
    assert [question for question, _ in model.asked] == ["Where?", "Which?"]


def test_ctrl_c_ends_a_pipe_with_130(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Nobody is there to go on; what was printed stays."""
    model.script = [["Left."], ["The circle ", KeyboardInterrupt()], ["Blue."]]
    run = chat("A?\nB?\nC?\n")
    assert (run.exit_code, run.stdout) == (130, "Left.\n\nThe circle \n")


def test_a_full_context_is_said_before_it_costs_a_turn(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Once beforehand, then each time that a turn goes, before the answer that made it go."""
    run = chat("A?\nB?\nC?\nD?\n", "--context", "100", "-v")
    full = "Warning: The conversation takes 90 of 100 tokens: the next answer may drop the oldest turns"
    gone = "Warning: The oldest turn was dropped."
    assert (run.stderr.count(full), run.stderr.count(gone)) == (1, 2)
    assert "/reset starts a new conversation, and a larger --context gives it more room." in run.stderr
    places = [run.stderr.index(text) for text in ("B?\n", full, gone, "C?\n", "D?\n")]
    assert places == sorted(places)
    assert len(model.chats[0].turns) == 2


def test_warnings_that_last_are_said_once(chat: ChatWith, model: ScriptedVideoQA) -> None:
    """Also by an answer that has dropped a turn."""
    model.warnings = ("The file ends early.",)
    assert chat("A?\nB?\nC?\nD?\n", "--context", "100").stderr.count("The file ends early.") == 1


def test_a_cut_answer_is_noticed(chat: ChatWith, model: ScriptedVideoQA) -> None:
    model.finish_reason = FinishReason.LENGTH
    assert "cut at 256 new tokens" in chat("A?\n").stderr


def test_frames_context_and_help_are_shown(chat: ChatWith) -> None:
    """On stdout, as what was asked for."""
    run = chat("Where?\n/frames\n/context\n/help\n/quit\nNever?\n", "--frames", "4")
    assert "clip.mp4: 0:08 long" not in run.stdout.splitlines()[0]
    assert "4 frames from 0:00 to 0:00.75 (uniform), 4 fast tokens and 64 slow tokens\n" in run.stdout
    assert "\n0:00 0:00.25 0:00.5 0:00.75\n" in run.stdout
    assert "\n50 of 2,048 tokens, room for 1,998 more; 1 turn.\n" in run.stdout
    for word in ("/frames", "/open VIDEO", "/reset", "/save FILE", "/context", "/quit", "a space before it"):
        assert word in run.stdout.split("/frames ")[1] or word == "/frames"
    assert "Never?" not in run.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/frame", "There is no command /frame.\nDid you mean /frames?"),
        ("/OPNE x", "There is no command /OPNE.\nDid you mean /open?"),
        ("/xyzzy", "There is no command /xyzzy.\nSee /help."),
        ("/open", "/open needs a VIDEO."),
        ("/save", "/save needs a FILE."),
        ("/reset the counter", "/reset takes no argument."),
        ("/save never.md", "There is nothing to save"),
        ("/open -", "standard input"),
        ("/open https://a.example//b.mp4", "“https://a.example//b.mp4” is a URL"),
        ("/save https://a.example//b.md", "“https://a.example//b.md” is a URL"),
        ("/open " + "a" * 10_000, "The command /open aaaa… has more than 10,000 characters."),
        ("/open\tabsent.mp4", "There is no file “absent.mp4”."),
        ("/open absent.mp4", "There is no file “absent.mp4”."),
        ("/open ~nobody-of-that-name/clip.mp4", "There is no file “~nobody-of-that-name/clip.mp4”."),
    ],
)
def test_commands_that_are_none_say_what_to_do(line: str, says: str, chat: ChatWith, model: ScriptedVideoQA) -> None:
    """And are no questions."""
    run = chat(f"{line}\n")
    assert run.exit_code in (2, 3)
    assert says in run.stderr
    assert model.asked == []


def test_reset_forgets_the_turns(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path) -> None:
    """The next question is the first, also for /save."""
    saved = tmp_path / "talk.json"
    run = chat(f"A?\nB?\n/reset\nC?\n/save {saved}\n")
    assert run.exit_code == 0
    assert [turn.question for turn in model.chats[0].turns] == ["C?"]
    assert [entry["question"] for entry in json.loads(saved.read_text())] == ["C?"]
    assert len(model.sampled) == 1


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", "{}"])
def test_open_goes_on_with_another_video(chat: ChatWith, model: ScriptedVideoQA, other: Path, quoted: str) -> None:
    """With the same options, and nothing of the conversation; a space in a name needs quotes, or not."""
    flags = ("--frames", "4", "--max-new-tokens", "9", "--context", "300", "-v")
    run = chat(f"A?\n/open {quoted.format(other)}\nB?\n", *flags)
    assert run.exit_code == 0
    assert "other clip.mp4: 0:01 long" in run.stderr
    assert "New conversation about this video." in run.stderr
    assert [sampling.num_frames for sampling in model.sampled] == [4, 4]
    first, second = model.chats
    assert [turn.question for turn in second.turns] == ["B?"]
    assert (second.limit, second.options) == (first.limit, first.options)
    assert second.options is not None
    assert second.options.max_new_tokens == 9


def test_home_is_spelt_with_a_tilde(
    chat: ChatWith, model: ScriptedVideoQA, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(other.parent))
    assert chat("/open ~/other clip.mp4\n/open '~/other clip.mp4'\n/open ~/other\\ clip.mp4\n").exit_code == 0
    assert [begun.encoded.video.path for begun in model.chats[1:]] == [other] * 3


def test_a_video_that_cannot_be_opened_leaves_the_old_one(chat: ChatWith, model: ScriptedVideoQA, other: Path) -> None:
    """And the conversation, whatever went wrong."""

    def fail() -> None:
        raise OutOfMemoryError("Memory ran out.", "Use fewer frames.")

    turns = iter([lambda: None, fail])
    model.while_encoding = lambda: next(turns)()
    run = chat(f"A?\n/open {other}\nB?\n/open absent.mp4\nC?\n")
    assert run.exit_code == 5
    assert run.stdout == "Left.\n\nRed.\n\nBlue.\n"
    assert [turn.question for turn in model.chats[0].turns] == ["A?", "B?", "C?"]


def test_subtitles_of_a_file_are_those_of_the_first_video(
    chat: ChatWith, model: ScriptedVideoQA, video: Path, other: Path, tmp_path: Path
) -> None:
    """Under another video they would be lies."""
    path = tmp_path / "talk.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n", encoding="utf-8")
    run = chat(f"/open {other}\n/open {video}\n", "--subtitles", str(path))
    assert "belong to clip.mp4; this video has none." in run.stderr
    assert [begun.prompt is not None and begun.prompt.subtitles is not None for begun in model.chats] == [
        True,
        False,
        True,
    ]


def test_another_video_is_opened_though_the_first_is_gone(
    chat: ChatWith, model: ScriptedVideoQA, video: Path, other: Path, tmp_path: Path
) -> None:
    """Whether it is the first again, whose subtitles it would have, cannot be asked of a file any more."""
    path = tmp_path / "talk.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n", encoding="utf-8")
    model.while_encoding = lambda: video.unlink(missing_ok=True)
    run = chat(f"/open {other}\n", "--subtitles", str(path))
    assert run.exit_code == 0
    assert "belong to clip.mp4; this video has none." in run.stderr
    assert len(model.chats) == 2


@pytest.mark.parametrize("name", ["talk.md", "talk.txt", "talk"])
def test_a_saved_conversation_is_markdown(chat: ChatWith, model: ScriptedVideoQA, tmp_path: Path, name: str) -> None:
    """What was asked of what, answers as they are; nothing moves the cursor of who prints it."""
    model.script = [["It moves ", "*left*.\n\x1b[2J"], ["Red."]]
    path = tmp_path / name
    run = chat(f"Where?\nWhich?\n/save {path}\n", "--frames", "4")
    assert (run.exit_code, f"is saved to {path}" in run.stderr) == (0, True)
    head, facts, *rest = path.read_text(encoding="utf-8").split("\n\n")
    assert head == "# clip.mp4"
    assert facts.startswith("clip.mp4: 0:01 long")
    assert facts.endswith("(uniform), 4 fast tokens and 64 slow tokens. Answered by scripted.")
    assert rest == ["> Where?", "It moves *left*.\n\\x1b[2J", "> Which?", "Red.\n"]


def test_a_saved_conversation_has_the_turns_that_were_dropped(chat: ChatWith, tmp_path: Path) -> None:
    """The model forgets them, the user has read them."""
    path = tmp_path / "talk.JSON"
    assert chat(f"A?\nB?\nC?\n/save {path}\n", "--context", "100").exit_code == 0
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert [(entry["question"], entry["answer"]) for entry in saved] == [
        ("A?", "Left."),
        ("B?", "Red."),
        ("C?", "Blue."),
    ]


def test_save_writes_over_nothing_but_its_own(chat: ChatWith, tmp_path: Path) -> None:
    """Also the second time; a folder is not made."""
    path, taken = tmp_path / "talk.md", tmp_path / "taken.md"
    taken.write_text("mine", encoding="utf-8")
    run = chat(f"A?\n/save {path}\nB?\n/save {path}\n/save {taken}\n/save {tmp_path}/no/talk.md\n/save {tmp_path}\n")
    assert run.exit_code == 2
    assert (path.read_text(encoding="utf-8").count("> "), taken.read_text(encoding="utf-8")) == (2, "mine")
    assert f"{taken} exists and was not written by this chat.\nName another file, or remove it.\n" in run.stderr
    assert f"There is no folder {tmp_path}/no" in run.stderr
    assert f"{tmp_path} is a folder." in run.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix != ".mp4") == ["taken.md", "talk.md"]


@pytest.mark.usefixtures("model")
def test_the_video_cannot_come_where_the_questions_do(run_cli: RunCli) -> None:
    run = run_cli("chat", "-")
    assert run.exit_code == 2
    assert "Standard input cannot be both the video and the questions." in run.stderr


def test_closed_standard_input_is_said(run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`<&-` leaves Python without the stream."""
    monkeypatch.setattr(sys, "stdin", None)
    run = run_cli("chat", str(video))
    assert (run.exit_code, "standard input is closed" in run.stderr) == (2, True)


@pytest.mark.usefixtures("model")
def test_options_of_ask_that_mean_nothing_here_are_refused(run_cli: RunCli, video: Path) -> None:
    for flag in ("--choices A,B", "--dry-run", "--slow-attention always"):
        assert run_cli("chat", str(video), *flag.split()).exit_code == 2
    assert run_cli("chat", str(video), "--context", "0").exit_code == 2
