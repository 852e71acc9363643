"""`sfvqa transcribe`: the formats, where they go, what fails, and what is kept."""

import json
from pathlib import Path

import pytest

from sfvqa.video.subtitles import parse_subtitles, read_subtitle_file
from tests.cli.conftest import RunCli
from tests.inference.fake_whisper import FakeWhisper, in_place_of_every_model, speech_folder
from tests.video.sounds import Sound, write_with_sound


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    return in_place_of_every_model(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(speech_folder(tmp_path / "whisper"))


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return str(write_with_sound(tmp_path / "talk.mp4", Sound([1.0, 4.0])))


@pytest.mark.usefixtures("whisper")
def test_subtitles_are_printed_and_nothing_else(run_cli: RunCli, talk: str, folder: str) -> None:
    run = run_cli("transcribe", talk, "--model", folder)
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout.startswith("WEBVTT\n")
    lines = parse_subtitles(run.stdout)
    assert [line.start_seconds for line in lines] == pytest.approx([1.0, 4.0], abs=0.03)
    assert [line.text for line in lines] == ["tone0", "tone1"]


@pytest.mark.usefixtures("whisper")
@pytest.mark.parametrize(("flags", "begins"), [
    (["--format", "srt"], "1\n00:00:01,0"), (["--format", "txt"], "tone0\ntone1\n"),
    (["--format", "csv"], "start_seconds,end_seconds,text\r\n1.0"),
    (["--format", "jsonl"], '{"schema_version": 1, "start_seconds": 1.0'),
])  # fmt: skip
def test_other_formats(run_cli: RunCli, talk: str, folder: str, flags: list[str], begins: str) -> None:
    assert run_cli("transcribe", talk, "-m", folder, *flags).stdout.startswith(begins)


@pytest.mark.usefixtures("whisper")
def test_a_file_has_the_format_of_its_name(run_cli: RunCli, talk: str, folder: str, tmp_path: Path) -> None:
    out = tmp_path / "said.srt"
    run = run_cli("transcribe", talk, "-m", folder, "--out", str(out))
    assert (run.exit_code, run.stdout) == (0, "")
    assert run.stderr == f"2 lines written to {out}.\n"
    assert out.read_text().startswith("1\n00:00:01,0")
    assert [line.text for line in read_subtitle_file(out).lines] == ["tone0", "tone1"]


def test_as_json_with_language_and_warnings(
    run_cli: RunCli, talk: str, folder: str, tmp_path: Path, whisper: FakeWhisper
) -> None:
    silent = str(write_with_sound(tmp_path / "silent.mp4"))
    run = run_cli("transcribe", talk, silent, "-m", folder, "--language", "de", "--json")
    first, second = map(json.loads, run.stdout.splitlines())
    assert (first["schema_version"], first["video"], first["language"], first["warnings"]) == (1, talk, "de", [])
    assert first["lines"][1] == {
        "start_seconds": pytest.approx(4.0, abs=0.03), "end_seconds": pytest.approx(4.25, abs=0.03), "text": "tone1",
    }  # fmt: skip
    assert (second["lines"], second["language"]) == ([], None)
    assert second["warnings"] == ["The video has no sound."]
    assert run.stderr == f"Warning: {silent}: The video has no sound.\n"
    assert whisper.asked[0]["language"] == "de"


def test_several_videos_go_to_a_folder_and_one_that_fails_stops_no_other(
    run_cli: RunCli, talk: str, folder: str, tmp_path: Path, whisper: FakeWhisper
) -> None:
    broken, other, out = tmp_path / "broken.mp4", tmp_path / "other.mp4", tmp_path / "out"
    broken.write_bytes(b"\0" * 1000)
    write_with_sound(other, Sound([2.0]))
    run = run_cli("transcribe", talk, str(broken), str(other), "-m", folder, "--out", str(out))
    assert run.exit_code == 6
    assert f"Warning: “{broken}” cannot be read" in run.stderr
    assert run.stderr.endswith("1 video of 3 failed.\n")
    assert sorted(path.name for path in out.iterdir()) == ["other.vtt", "talk.vtt"]
    assert run_cli("transcribe", talk, str(other), "-m", folder, "--out", str(out)).exit_code == 0
    assert len(whisper.asked) == 2, "what was said is kept"


def test_ctrl_c_ends_it_and_leaves_no_half_file(
    run_cli: RunCli, talk: str, folder: str, tmp_path: Path, whisper: FakeWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whisper, "transcribe", press)
    run = run_cli("transcribe", talk, "-m", folder, "--out", str(tmp_path / "said.vtt"))
    assert run.exit_code == 130
    assert not list(tmp_path.glob("*.vtt"))


@pytest.mark.usefixtures("whisper")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["nosuch.mp4"], 3, "no file"),
        (["TALK", "TALK"], 2, "Add --out FOLDER"),
        (["TALK", "--out", "said.pdf"], 2, "no ending that names a format"),
        (["TALK", "TALK", "--out", "TALK"], 2, "is a file"),
        (["TALK", "--json", "--format", "srt"], 2, "--json prints"),
        (["TALK", "--model", "whisper-tiny"], 4, "sfvqa models pull whisper-tiny"),
        (["TALK", "--model", "tiny"], 4, "does not hear"),
    ],
)
def test_what_cannot_be_is_said(
    run_cli: RunCli, talk: str, folder: str, arguments: list[str], exit_code: int, words: str
) -> None:
    model = [] if "--model" in arguments else ["--model", folder]
    run = run_cli("transcribe", *(talk if each == "TALK" else each for each in arguments), *model)
    assert run.exit_code == exit_code
    assert words in " ".join((run.stdout + run.stderr).split())


def test_without_the_extra_it_says_what_to_install(
    run_cli: RunCli, talk: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for more in (["--model", folder], []):  # also before a model is named that would have to be downloaded
        run = run_cli("transcribe", talk, *more)
        assert run.exit_code == 2
        assert 'pip install "sfvqa[speech]"' in run.stderr
