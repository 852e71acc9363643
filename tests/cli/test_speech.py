"""`--speech` of `ask`, `chat` and `batch`: what is said within the range is in the prompt, and in the record."""

import json
from pathlib import Path

import pytest

from sfvqa.errors import UsageError
from tests.cli.conftest import RunCli
from tests.inference.fake_whisper import FakeWhisper, in_place_of_every_model, speech_folder
from tests.video.sounds import Sound, write_with_sound

QUESTION = "Which digit is shown?"


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    return in_place_of_every_model(monkeypatch)


@pytest.fixture
def speech(tmp_path: Path) -> list[str]:
    """The flags."""
    return ["--model", "tiny", "--speech", "--speech-model", str(speech_folder(tmp_path / "whisper"))]


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return str(write_with_sound(tmp_path / "talk.mp4", Sound([1.0, 4.0])))


def test_what_is_said_is_in_the_prompt(run_cli: RunCli, talk: str, speech: list[str], whisper: FakeWhisper) -> None:
    answers = [json.loads(run_cli("ask", talk, QUESTION, *speech, "--json").stdout) for _ in range(2)]
    without = json.loads(run_cli("ask", talk, QUESTION, "--model", "tiny", "--json").stdout)
    for answer in answers:
        used = answer["subtitles"]
        assert used["lines"] == 2
        assert used["source"].startswith("speech (")
        assert answer["tokens"]["prompt"] == without["tokens"]["prompt"] + used["tokens"]
    assert answers[1]["from_video_cache"] is True
    assert len(whisper.asked) == 1, "heard once"
    assert without["subtitles"] is None


@pytest.mark.usefixtures("whisper")
def test_only_what_is_said_within_the_range(run_cli: RunCli, talk: str, speech: list[str]) -> None:
    answer = json.loads(run_cli("ask", talk, QUESTION, *speech, "--start", "3", "--json").stdout)
    assert answer["subtitles"]["lines"] == 1
    limited = json.loads(run_cli("ask", talk, QUESTION, *speech, "--subtitle-tokens", "1", "--json").stdout)
    assert (limited["subtitles"]["lines"], limited["subtitles"]["cut"]) == (0, 2)


@pytest.mark.usefixtures("whisper")
def test_without_sound_it_is_said_once_for_several_questions(
    run_cli: RunCli, tmp_path: Path, speech: list[str]
) -> None:
    silent = str(write_with_sound(tmp_path / "silent.mp4"))
    run = run_cli("ask", silent, QUESTION, "What flashes?", *speech)
    assert run.exit_code == 0
    assert run.stderr.count("The video has no sound.") == 1
    answer = json.loads(run_cli("ask", silent, QUESTION, *speech, "--json").stdout)
    assert "The video has no sound." in answer["warnings"]


def test_a_dry_run_listens_to_nothing(run_cli: RunCli, talk: str, speech: list[str], whisper: FakeWhisper) -> None:
    planned = json.loads(run_cli("ask", talk, QUESTION, *speech, "--dry-run", "--json").stdout)
    bare = json.loads(run_cli("ask", talk, QUESTION, "--model", "tiny", "--dry-run", "--json").stdout)
    assert planned["tokens"]["prompt_about"] > bare["tokens"]["prompt_about"]
    assert not whisper.asked


def test_each_window_has_what_is_said_in_it(
    run_cli: RunCli, talk: str, speech: list[str], whisper: FakeWhisper
) -> None:
    run = run_cli("ask", talk, QUESTION, *speech, "--window", "3s", "--json")
    records = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(record["window"]["start_seconds"], record["subtitles"]["lines"]) for record in records] == [
        (0.0, 1), (3.0, 1),
    ]  # fmt: skip
    assert len(whisper.asked) == 1


def test_a_chat_has_it_too(
    run_cli: RunCli, talk: str, speech: list[str], whisper: FakeWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    run = run_cli("chat", talk, *speech, "--json")
    assert run.exit_code == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[0])["subtitles"]["lines"] == 2
    assert len(whisper.asked) == 1


def test_a_batch_records_it_and_resumes(
    run_cli: RunCli, tmp_path: Path, speech: list[str], whisper: FakeWhisper
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "records.jsonl"
    videos.mkdir()
    write_with_sound(videos / "a.mp4", Sound([1.0, 4.0]))
    write_with_sound(videos / "b.mp4")
    flags = ["batch", str(videos), "--question", QUESTION, "--question", "What flashes?", "-o", str(out), *speech]
    assert run_cli(*flags).exit_code == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((record["video"], record["subtitles"]["lines"]) for record in records) == [
        ("a.mp4", 2), ("a.mp4", 2), ("b.mp4", 0), ("b.mp4", 0),
    ]  # fmt: skip
    assert all(("The video has no sound." in each["warnings"]) is (each["video"] == "b.mp4") for each in records)
    assert records[0]["requested"]["speech"]["language"] is None
    assert len(whisper.asked) == 1
    assert run_cli(*flags).exit_code == 0
    assert len(out.read_text().splitlines()) == 4, "nothing is asked again"
    run_cli(*flags, "--speech-language", "de")
    assert len(out.read_text().splitlines()) == 8, "another language is another question"
    assert len(whisper.asked) == 2


def test_a_batch_in_windows_listens_once_without_a_cache(
    run_cli: RunCli, tmp_path: Path, speech: list[str], whisper: FakeWhisper
) -> None:
    out, talk = tmp_path / "records.jsonl", str(write_with_sound(tmp_path / "talk.mp4", Sound([1.0, 4.5])))
    run = run_cli("batch", talk, "--question", QUESTION, "-o", str(out), *speech, "--window", "2s", "--no-cache")
    assert run.exit_code == 0, run.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    by_start = sorted((record["window"]["start_seconds"], record["subtitles"]["lines"]) for record in records)
    assert by_start == [(0.0, 1), (2.0, 0), (4.0, 1)]
    assert len(whisper.asked) == 1


@pytest.mark.usefixtures("whisper")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--speech", "--subtitles", "auto"], "contradict each other"),
        (["--speech-model", "whisper-tiny"], "--speech-model needs --speech"),
        (["--speech-language", "de"], "--speech-language needs --speech"),
    ],
)
def test_contradictions_are_usage_errors(run_cli: RunCli, talk: str, flags: list[str], words: str) -> None:
    run = run_cli("ask", talk, QUESTION, "--model", "tiny", *flags)
    assert run.exit_code == 2
    assert words in run.stderr


@pytest.mark.parametrize("command", [["ask", "VIDEO", QUESTION], ["batch", "VIDEO", "--question", QUESTION, "-o", "-"]])
def test_a_speech_model_that_is_not_here_is_found_out_first(
    run_cli: RunCli, talk: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.inference.speech.check_installed", lambda: None)
    arguments = [talk if each == "VIDEO" else each for each in command]
    run = run_cli(*arguments, "--model", "tiny", "--speech", "--speech-model", "whisper-tiny")
    assert (run.exit_code, run.stdout) == (4, "")
    assert "sfvqa models pull whisper-tiny" in run.stderr


def test_a_batch_in_a_language_that_the_model_lacks_does_not_begin(
    run_cli: RunCli, talk: str, tmp_path: Path, speech: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_folder: object, language: str | None) -> None:
        raise UsageError(f"It does not know {language}.", "Leave it out.")

    in_place_of_every_model(monkeypatch)
    monkeypatch.setattr("sfvqa.inference.speech.load_model", refuse)
    out = tmp_path / "records.jsonl"
    run = run_cli("batch", talk, "--question", QUESTION, "-o", str(out), *speech, "--speech-language", "xx")
    assert run.exit_code == 2
    assert "It does not know xx." in run.stderr
    assert not out.exists()


def test_a_speech_model_answers_nothing(run_cli: RunCli, talk: str, tmp_path: Path) -> None:
    run = run_cli("ask", talk, QUESTION, "--model", "whisper-tiny")
    assert run.exit_code == 4
    assert "writes down what is said" in run.stderr
    run = run_cli("ask", talk, QUESTION, "--model", str(speech_folder(tmp_path / "folder")))
    assert run.exit_code == 4
    assert "--speech-model" in run.stderr
