"""`sfvqa ask` with a scripted model: what goes where, and in which order."""

import json
import re
from pathlib import Path

import pytest

from sfvqa.errors import OutOfMemoryError, PromptTooLongError
from sfvqa.inference.answer import FinishReason
from sfvqa.model import SlowAttention
from sfvqa.video import CropMode, ReaderName, ReadOptions, SamplingOptions, SamplingStrategy
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.cli.fake import ScriptedVideoQA

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_stdout_holds_the_answer_and_stderr_everything_else(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    """In a pipe there is nothing else, unless one wants to know: which frames, how long."""
    model.script = [["The circle ", "moves left."]] * 2
    run = run_cli("ask", str(video), "Which way does the circle move?")
    assert (run.exit_code, run.stdout, run.stderr) == (0, "The circle moves left.\n", "")
    run = run_cli("ask", str(video), "Which way does the circle move?", "-v")
    assert (run.exit_code, run.stdout) == (0, "The circle moves left.\n")
    assert "clip.mp4: 0:08 long" in run.stderr
    assert "32 frames from 0:00 to 0:07.75 (uniform), 32 fast tokens and 512 slow tokens" in run.stderr
    assert "first token 0.88 s" in run.stderr
    assert "\x1b" not in run.stderr
    assert model.asked[0][0] == "Which way does the circle move?"


def test_options_reach_the_model(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """Every option arrives where it counts."""
    flags = "--frames 8 --start 1:30 --end 0:02:00.5 --reader opencv --max-new-tokens 7 --temperature 0.5 --top-p 0.9"
    flags += " --crop pad --read-threads 3 --read-timeout 9"
    flags += " --repetition-penalty 1.1 --seed 3 --slow-attention prefill --static-decode on"
    assert run_cli("ask", *flags.split(), str(video), "Q?").exit_code == 0
    sampling, options = model.sampled[0], model.asked[0][1]
    assert (sampling.num_frames, sampling.start_seconds, sampling.end_seconds) == (8, 90.0, 120.5)
    assert model.read_with == [ReadOptions(ReaderName.OPENCV, 3, 9.0)]
    assert model.cropped == [CropMode.PAD]
    assert (options.max_new_tokens, options.temperature, options.top_p) == (7, 0.5, 0.9)
    assert (options.repetition_penalty, options.seed, options.slow_attention) == (1.1, 3, SlowAttention.PREFILL)
    assert options.static_decode == "on"


def test_texts_to_stop_at_and_top_k_reach_the_model(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    assert run_cli("ask", str(video), "Q?", "--stop", "\n", "--stop", "User:", "--top-k", "7").exit_code == 0
    assert (model.asked[0][1].stop, model.asked[0][1].top_k) == (("\n", "User:"), 7)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--stop", ""], "A text to stop at is empty"),
        (["--stop", "a", "--choices", "a,b"], "--choices and --stop contradict"),
        (["--stop", "a", "--json-object"], "--stop and --json-object contradict"),
        (["--top-k", "0"], "--top-k"),
        (["--top-k", "3", "--choices", "a,b"], "--top-k has no effect on --choices"),
    ],
)
def test_stops_that_cannot_be_are_usage_errors(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, flags: list[str], says: str
) -> None:
    run = run_cli("ask", str(video), "Q?", *flags)
    assert (run.exit_code, model.asked) == (2, [])
    assert says in " ".join(run.stderr.split())


def test_without_frames_the_model_says_how_many(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """A range alone must not change the number of frames the model was trained with."""
    assert run_cli("ask", str(video), "Q?", "--start", "1").exit_code == 0
    assert (model.sampled[0].num_frames, model.sampled[0].start_seconds) == (32, 1.0)


def test_the_crop_is_left_to_the_model_unless_said(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """The checkpoint knows what it was trained with."""
    assert run_cli("ask", str(video), "Q?").exit_code == 0
    assert model.cropped == [None]


def test_what_the_crop_cuts_off_is_said_where_it_is_much(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """Nothing to say of a square, nor of a picture that is padded."""
    model.script, model.size = [["A."]] * 3, (1920, 1080)
    assert "the centre crop cuts off 44 % of the picture" in run_cli("ask", str(video), "Q?", "-v").stderr
    assert "cut" not in run_cli("ask", str(video), "Q?", "-v", "--crop", "pad").stderr
    model.size = (64, 64)
    assert "cut" not in run_cli("ask", str(video), "Q?", "-v").stderr


def test_the_sampling_is_said(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """By its name, a rate by its number."""
    run = run_cli("ask", str(video), "Q?", "--fps", "2.5", "-v")
    assert "(2.5 fps)" in run.stderr
    assert model.sampled == [SamplingOptions(32, SamplingStrategy.FPS, fps=2.5)]


def test_several_questions_are_answered_in_order_from_one_encoding(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    """The video is seen once; answers are set apart; stderr says which question comes next."""
    model.script = [["Left."], ["Red.\n", "Then blue."]]
    run = run_cli("ask", str(video), "Where?", "Which?", "-v")
    assert run.stdout == "Left.\n\nRed.\nThen blue.\n"
    assert run.stderr.index("Where?") < run.stderr.index("Which?")
    assert len(model.sampled) == 1


def test_quiet_is_one_answer_a_line_and_warnings(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """`-q` drops what is only news; it dropped that frames were missing too. One answer is one line of stdout."""
    model.script, model.warnings = [["Left."], ["Red,\n", "then blue."]], ("The file ends early.",)
    run = run_cli("ask", str(video), "Where?", "Which?", "-q")
    assert (run.stdout, run.stderr) == ("Left.\nRed, then blue.\n", "Warning: The file ends early.\n")


def test_json_is_one_object_a_question(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """Exactly the object of the library, a line each."""
    model.script, model.warnings = [["Left."], ["Göteborg ", "\x9b31m"]], ("The file ends early.",)
    run = run_cli("ask", str(video), "Where?", "Which?", "--json", "-q")
    first, second = (json.loads(line) for line in run.stdout.splitlines())
    assert (first["schema_version"], first["question"], first["answer"]) == (1, "Where?", "Left.")
    assert (first["video"], first["warnings"]) == (str(video), ["The file ends early."])
    assert second["answer"] == "Göteborg \x9b31m"
    assert run.stdout.isascii()
    assert run.stderr == "Warning: The file ends early.\n"


@pytest.mark.usefixtures("model")
def test_json_alone_keeps_notices_on_stderr(run_cli: RunCli, video: Path) -> None:
    """`--json` says what stdout holds; only `-q` silences stderr."""
    run = run_cli("ask", str(video), "Where?", "--json", "-v")
    assert len(run.stdout.splitlines()) == 1
    assert "32 frames" in run.stderr


def test_warnings_are_shown_once(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """A warning about the video belongs to every answer, but need not be read twice."""
    model.script, model.warnings = [["A."], ["B."]], ("The file ends early.",)
    run = run_cli("ask", str(video), "A?", "B?")
    assert run.stderr.count("Warning: The file ends early.") == 1
    assert run.exit_code == 0


def test_a_cut_answer_is_noticed(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """An answer that stops at the limit says so, on stderr and in the object."""
    model.finish_reason, model.script = FinishReason.LENGTH, [["The"]] * 3
    assert "cut at 1 new token;" in run_cli("ask", str(video), "Q?", "--max-new-tokens", "1").stderr
    assert "cut at 7 new tokens" in run_cli("ask", str(video), "Q?", "--max-new-tokens", "7").stderr
    document = json.loads(run_cli("ask", str(video), "Q?", "--json").stdout)
    assert "cut at 256 new tokens" in document["warnings"][0]


def test_control_characters_never_reach_the_terminal_raw(
    run_cli: RunCli, tmp_path: Path, model: ScriptedVideoQA
) -> None:
    """Neither a model nor a file name may move the cursor, set the title, or turn the text around."""
    path = tmp_path / "evil\x1b]0;title\x07\u202e.mp4"
    path.write_bytes(b"not looked at\0")
    model.script, model.warnings = [["\x1b[2J", "gone\r\x9b31m"], ["B"]], (f"{path.name} is odd.",)
    run = run_cli("ask", str(path), "Q\x1b[1m?", "R?", "-v")
    assert run.stdout == "\\x1b[2Jgone\\x0d\\x9b31m\n\nB\n".replace("\\x0d", "\\r")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", run.stderr)
    assert "evil\\x1b]0;title\\x07\\u202e.mp4" in run.stderr


def test_square_brackets_are_text(run_on_terminal: RunOnTerminal, tmp_path: Path, model: ScriptedVideoQA) -> None:
    """Rich would take `[red]` for a colour, and `[/]` for an error, in a question, a name or an answer."""
    path = tmp_path / "[bold]clip[red].mp4"
    path.write_bytes(b"not looked at\0")
    model.script, model.warnings = [["[red]Left[/red]"], ["[/]"]], ("[blink]odd[/blink]",)
    exit_code, sent = run_on_terminal("ask", str(path), "[red]Where?", "[/]")
    plain = _ESCAPE.sub("", sent)
    assert exit_code == 0
    for text in ("[bold]clip[red].mp4 · ", "[red]Left[/red]\n", "[red]Where?\n", "[blink]odd[/blink]", "\n[/]\n"):
        assert text in plain


@pytest.mark.usefixtures("model")
def test_a_terminal_gets_progress_and_a_line_before_and_after_the_answer(
    run_on_terminal: RunOnTerminal, video: Path
) -> None:
    """Progress first and gone again; the answer unadorned, on a line of its own."""
    exit_code, sent = run_on_terminal("ask", str(video), "Where?")
    assert exit_code == 0
    plain = _ESCAPE.sub("", sent)
    positions = [plain.index(part) for part in ("Reading frames", "Encoding frames", "clip.mp4 · 32 frames")]
    assert "32/32" in plain
    assert positions == sorted(positions)
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip() and "Thinking" not in line]
    assert lines[-3:-1] == ["clip.mp4 · 32 frames, 0:00–0:07.75 · scripted", "The circle moves left."]
    assert all(seconds in lines[-1] for seconds in ("0.88 s", "1.38 s"))


@pytest.mark.usefixtures("model")
def test_verbose_gives_facts_and_a_table(run_on_terminal: RunOnTerminal, video: Path) -> None:
    plain = _ESCAPE.sub("", run_on_terminal("ask", str(video), "Where?", "-v")[1])
    before, after = plain.split("moves left.")
    assert "clip.mp4: 0:08 long" in before
    assert "first token" not in before
    assert "first token" in after


@pytest.mark.usefixtures("model")
def test_quiet_on_a_terminal_is_the_answer_alone(run_on_terminal: RunOnTerminal, video: Path) -> None:
    assert run_on_terminal("ask", str(video), "Where?", "-q") == (0, "The circle moves left.\n")


def test_quiet_and_verbose_are_a_usage_error(run_cli: RunCli, video: Path) -> None:
    assert run_cli("ask", str(video), "Where?", "-q", "-v").exit_code == 2


@pytest.mark.usefixtures("model")
def test_the_progress_bar_leaves_no_trace(run_on_terminal: RunOnTerminal, video: Path) -> None:
    """Each line the bars took is erased, and the cursor is shown again."""
    sent = run_on_terminal("ask", str(video), "Where?")[1]
    before_summary = sent[: sent.index("clip.mp4 · 32 frames")]
    assert "\x1b[2K" in before_summary.split("32/32")[-1]
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h") > 0


@pytest.mark.parametrize("settings", [{"TERM": "dumb"}, {"TERM": "dumb", "FORCE_COLOR": "1"}])
@pytest.mark.usefixtures("model")
def test_a_dumb_terminal_gets_plain_lines(
    settings: dict[str, str],
    run_on_terminal: RunOnTerminal,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No cursor movement, no bars; FORCE_COLOR may colour but never animate."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    sent = run_on_terminal("ask", str(video), "Where?")[1]
    assert not re.search(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", sent)  # only "m", colours
    assert "Reading frames" not in sent
    assert "The circle moves left.\n" in sent


@pytest.mark.usefixtures("model")
def test_no_color_keeps_progress_but_no_colour(
    run_on_terminal: RunOnTerminal, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR is about colour, not about progress."""
    monkeypatch.setenv("NO_COLOR", "1")
    sent = run_on_terminal("ask", str(video), "Where?")[1]
    colours = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", sent) for code in codes.split(";")}
    assert not {code for code in colours if re.fullmatch(r"3[0-8]|4[0-8]|9\d|10\d", code)}
    assert "Reading frames" in sent


def test_ctrl_c_keeps_what_was_printed(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """The words that came stay, the line ends, 130."""
    model.script = [["The circle ", KeyboardInterrupt()]]
    run = run_cli("ask", str(video), "Where?")
    assert (run.exit_code, run.stdout) == (130, "The circle \n")
    assert run.stderr.endswith("\n")
    assert "Traceback" not in run.stderr


def test_ctrl_c_while_reading(run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA) -> None:
    """The cursor that the progress bar hid comes back."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    model.while_encoding = interrupt
    exit_code, sent = run_on_terminal("ask", str(video), "Where?")
    assert exit_code == 130
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")
    assert sent.endswith("\n")


def test_ctrl_c_with_json_is_an_object(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """A script that reads the objects sees why one is missing."""
    model.script = [["A."], ["The circle ", KeyboardInterrupt()]]
    run = run_cli("ask", str(video), "A?", "B?", "--json")
    answer, error = (json.loads(line) for line in run.stdout.splitlines())
    assert (run.exit_code, answer["answer"], error["status"]) == (130, "A.", "error")
    assert error["error"]["type"] == "Interrupted"


def test_an_error_in_the_middle_of_an_answer_ends_the_line(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    """Memory may run out while decoding: the error must not stick to half an answer."""
    model.script = [["The circle ", OutOfMemoryError("Memory ran out while writing the answer.", "Use fewer frames.")]]
    run = run_cli("ask", str(video), "Where?")
    assert (run.exit_code, run.stdout) == (5, "The circle \n")
    assert run.stderr.endswith("Error: Memory ran out while writing the answer.\nUse fewer frames.\n")


def test_a_question_that_fails_comes_after_the_answers_before_it(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    """What was answered stays answered."""
    model.script = [["A."], [PromptTooLongError("The prompt is 3 tokens too long.", "Ask less.")], ["C."]]
    run = run_cli("ask", str(video), "A?", "B?", "C?", "--json")
    answer, error = (json.loads(line) for line in run.stdout.splitlines())
    assert (run.exit_code, answer["answer"]) == (2, "A.")
    assert error["error"] == {"type": "PromptTooLongError", "message": "The prompt is 3 tokens too long. Ask less."}


@pytest.mark.usefixtures("model")
def test_a_narrow_terminal_gets_whole_numbers(
    run_on_terminal: RunOnTerminal, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table squeezed to "0…" says nothing: plain lines then."""
    monkeypatch.setenv("COLUMNS", "48")
    plain = _ESCAPE.sub("", run_on_terminal("ask", str(video), "Where?", "-v")[1])
    assert "Timings: load 1.00 s, read 0.25 s" in plain
    assert "…" not in plain.split("moves left.")[1]


@pytest.mark.parametrize(
    ("overlap", "shown"),
    [(0.2, ", encode 0.50 s, at the same time 0.20 s, prefill"), (0.004, ", encode 0.50 s, prefill")],
)
def test_what_was_done_at_the_same_time_is_shown_where_it_is_worth_seeing(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, overlap: float, shown: str
) -> None:
    """It was shown as a time below zero, which no time is."""
    model.overlap_seconds = overlap
    assert shown in run_cli("ask", str(video), "Where?", "-v").stderr
