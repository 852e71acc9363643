"""`sfvqa ask` with choices, a system message, a template and subtitles: what arrives, what is said, what is refused."""

import json
from pathlib import Path

import pytest

from sfvqa.cli.answer_options import parse_choices
from sfvqa.cli.demo import load_demo_videos
from sfvqa.errors import UsageError
from sfvqa.inference.question import PromptOptions
from tests.cli.conftest import RunCli
from tests.cli.fake import ScriptedVideoQA

DEMO = load_demo_videos()[0].path
SRT = "1\n00:00:01,000 --> 00:00:02,000\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n"


@pytest.fixture
def subtitles(tmp_path: Path) -> Path:
    path = tmp_path / "talk.srt"
    path.write_text(SRT, encoding="utf-8")
    return path


# --- what arrives ---


def test_everything_reaches_the_model(run_cli: RunCli, video: Path, model: ScriptedVideoQA, subtitles: Path) -> None:
    flags = ["--choices", "A,B", "--system", "Be brief.", "--template", "{question}!", "--subtitles", str(subtitles)]
    assert run_cli("ask", str(video), "Q?", *flags, "--subtitle-tokens", "99").exit_code == 0
    ((prompt, choices),) = model.prompted
    assert prompt is not None
    assert prompt.subtitles is not None
    assert (prompt.system, prompt.template, prompt.subtitle_tokens) == ("Be brief.", "{question}!", 99)
    assert [line.text for line in prompt.subtitles.lines] == ["Hello there.", "Bye."]
    assert choices == ("A", "B")


def test_without_them_the_prompt_is_the_model_s_own(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    assert run_cli("ask", str(video), "Q?").exit_code == 0
    assert model.prompted == [(PromptOptions(), None)]


def test_variables_are_overruled_by_choices_and_missing_subtitles(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was set for good must not make what is typed now a contradiction."""
    monkeypatch.setenv("SFVQA_TEMPERATURE", "0.7")
    monkeypatch.setenv("SFVQA_SUBTITLE_TOKENS", "50")
    monkeypatch.setenv("SFVQA_SYSTEM", "Be brief.")
    assert run_cli("ask", str(video), "Q?", "--choices", "A,B").exit_code == 0
    assert model.asked[0][1].temperature == 0
    assert model.prompted == [(PromptOptions(system="Be brief."), ("A", "B"))]


@pytest.mark.parametrize(
    ("values", "choices"),
    [
        (["A,B,C"], ("A", "B", "C")),
        (["A, B"], ("A", "B")),
        (['red,"red, then blue"'], ("red", "red, then blue")),
        (['"A, or B"', "C"], ("A, or B", "C")),
        (['a 5" pipe,none'], ('a 5" pipe', "none")),
        (['"say ""yes""",no'], ('say "yes"', "no")),
    ],
)
def test_choices_are_a_row_of_a_csv_file(values: list[str], choices: tuple[str, ...]) -> None:
    assert parse_choices(values) == choices


@pytest.mark.parametrize("values", [["A"], [""], ["A,"], ["A,B,A"], ['"A,B'], ["A", "A"]])
def test_choices_that_are_none_are_a_usage_error(values: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_choices(values)


# --- what is refused, before anything is loaded ---


@pytest.mark.parametrize(
    ("flags", "exit_code", "says"),
    [
        (["--choices", "A"], 2, "nothing to choose from"),
        (["--choices", ""], 2, "nothing to choose from"),
        (["--choices", "A,A"], 2, "more than once"),
        (["--choices", "A,,B"], 2, "choice is empty"),
        (["--choices", "A,B", "--temperature", "0.5"], 2, "--temperature has no effect on --choices"),
        (["--choices", "A,B", "--temperature", "0"], 2, "--temperature has no effect on --choices"),
        (["--choices", "A,B", "--max-new-tokens", "5"], 2, "--max-new-tokens has no effect on --choices"),
        (["--choices", "A,B", "--top-p", "0.5"], 2, "--top-p has no effect on --choices"),
        (["--choices", "A,B", "--repetition-penalty", "2"], 2, "--repetition-penalty has no effect on --choices"),
        (["--choices", "A,B", "--seed", "5"], 2, "--seed has no effect on --choices"),
        (["--choices", "A,B", "--static-decode", "on"], 2, "--static-decode has no effect on --choices"),
        (["--static-decode", "on", "--quant", "8bit"], 2, "8-bit weights are multiplied"),
        (["--system", " "], 2, "system message is empty"),
        (["--template", "Be brief."], 2, "no place for the question"),
        (["--subtitle-tokens", "5"], 2, "needs --subtitles"),
        (["--subtitle-tokens", "0"], 2, "--subtitle-tokens"),
        (["--subtitles", ""], 2, "is empty"),
        (["--subtitles", "absent.srt"], 2, "There is no subtitle file"),
        (["--subtitles", __file__], 2, "cannot be used as subtitles"),
    ],
)
def test_contradictions_end_before_anything_is_loaded(
    flags: list[str], exit_code: int, says: str, run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.video.VideoFile", _never)
    monkeypatch.setattr("sfvqa.cli.model.load", _never)
    run = run_cli("ask", str(video), "Q?", *flags)
    assert run.exit_code == exit_code, run.stderr
    assert says in " ".join(run.stderr.split())


def _never(*_args: object, **_options: object) -> None:
    raise AssertionError("too late for this error")


# --- what is said, with the bundled model ---


def test_the_likeliest_choice_is_the_answer_and_each_probability_is_said(run_cli: RunCli) -> None:
    choices = "The circle moves right.,The circle moves left."
    run = run_cli("ask", DEMO, "Which way does the circle move?", "--choices", choices)
    assert run.stdout == "The circle moves left.\n"
    likely, unlikely = (line for line in run.stderr.splitlines() if " %  " in line)
    assert likely.endswith(" %  The circle moves left.")
    assert unlikely.endswith(" %  The circle moves right.")
    assert float(likely.split()[0]) + float(unlikely.split()[0]) == pytest.approx(100, abs=0.11)


def test_the_record_has_the_probabilities(run_cli: RunCli) -> None:
    """One together, in the order of the choices; and nothing else is on stdout."""
    run = run_cli("ask", DEMO, "Which way does the circle move?", "--choices", "left,right,up", "--json", "-q")
    record = json.loads(run.stdout)
    assert [choice["text"] for choice in record["choices"]] == ["left", "right", "up"]
    assert sum(choice["probability"] for choice in record["choices"]) == pytest.approx(1)
    assert record["finish_reason"] == "choice"
    assert any("rather say something else" in warning for warning in record["warnings"])  # it answers in sentences


def test_subtitles_used_and_cut_are_said(run_cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "long.vtt"
    cues = [f"00:0{second}.000 --> 00:0{second}.900\nline {second} of many words\n" for second in range(5)]
    path.write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    command = ["ask", DEMO, "Which way does the circle move?", "--max-new-tokens", "20", "--subtitles", str(path)]
    whole = run_cli(*command, "-v")
    assert f"Subtitles: 5 lines of {path}, " in whole.stderr
    assert " cut" not in whole.stderr
    few = json.loads(run_cli(*command, "--subtitle-tokens", "80", "--json", "-q").stdout)
    assert few["subtitles"]["lines"] + few["subtitles"]["cut"] == 5
    assert 0 < few["subtitles"]["tokens"] <= 80
    assert any("subtitle lines had to be cut" in warning for warning in few["warnings"])


def test_a_video_without_a_text_track_is_answered_with_a_warning(run_cli: RunCli) -> None:
    question, answer = load_demo_videos()[0].questions[0]
    run = run_cli("ask", DEMO, question, "--subtitles", "auto")
    assert (run.exit_code, run.stdout) == (0, f"{answer}\n")
    assert "Warning: The file has no text track" in run.stderr


def test_a_dry_run_counts_what_goes_into_the_prompt(run_cli: RunCli, subtitles: Path) -> None:
    """The estimate of memory must not leave out a thousand tokens."""
    command = ["ask", DEMO, "Q?", "--dry-run", "--json", "-q"]
    plain, more = (
        json.loads(run_cli(*command, *flags).stdout)["tokens"]["prompt_about"]
        for flags in ([], ["--subtitles", str(subtitles), "--system", "x" * 300])
    )
    assert more == plain + 1024 + 100
