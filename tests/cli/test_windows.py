"""`--window`: every question of every window, by `ask` as it goes and by `batch` as records, each window once."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.batch.record import read_records
from sfvqa.errors import ExitCode, ReadTimeoutError
from sfvqa.video import VideoReader
from tests.batch.answerer import FakeAnswerer
from tests.cli.conftest import RunCli, videos_opened_by
from tests.inference.conftest import write_video
from tests.video.readers.test_damaged import wipe_group
from tests.video.videos import Recipe, constant_rate
from tests.video.videos import write_video as write_numbered

SHAPES = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
DIGIT = "Which digit is shown?"
SEVEN, NONE = "The digit 7 is shown.", "No digit is shown."
WINDOWS = [{"start_seconds": start, "end_seconds": end} for start, end in ((0.0, 2.0), (2.0, 4.0), (4.0, 5.0))]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- ask ---


def test_each_answer_stands_behind_the_time_of_its_window(run_cli: RunCli) -> None:
    run = run_cli("ask", str(SHAPES), DIGIT, "--window", "2s", "--model", "tiny", "-q")
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout == f"0:00–0:02  {SEVEN}\n0:02–0:04  {NONE}\n0:04–0:05  {NONE}\n"


def test_in_json_every_question_of_every_window_is_an_object(run_cli: RunCli) -> None:
    colour = "What colour does the screen flash?"
    run = run_cli("ask", str(SHAPES), DIGIT, colour, "--window", "2s", "--model", "tiny", "--json")
    answers = lines(run.stdout)
    assert [(answer["window"], answer["question"]) for answer in answers] == [
        (window, question) for window in WINDOWS for question in (DIGIT, colour)
    ]
    assert {answer["video"] for answer in answers} == {str(SHAPES)}
    alone = run_cli(
        "ask", str(SHAPES), DIGIT, colour, "--start", "2", "--end", "4", "--model", "tiny", "--json", "--no-cache"
    )
    for one, other in zip(answers[2:4], lines(alone.stdout), strict=True):
        for name in ("answer", "frames", "tokens", "warnings", "settings"):
            assert one[name] == other[name]
        assert other["window"] is None


def test_captions_are_the_answers_and_nothing_else(run_cli: RunCli) -> None:
    run = run_cli("ask", str(SHAPES), DIGIT, "--window", "2s", "--model", "tiny", "--format", "srt")
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout == (
        f"1\n00:00:00,000 --> 00:00:02,000\n{SEVEN}\n\n2\n00:00:02,000 --> 00:00:04,000\n{NONE}\n\n"
        f"3\n00:00:04,000 --> 00:00:05,000\n{NONE}\n"
    )


def test_captions_of_the_windows_that_could_be_seen(run_cli: RunCli, tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", Recipe(constant_rate(150), group=30))
    clip = wipe_group(whole, tmp_path / "wiped.mp4", 2, first=1, count=29)
    flags = ["--start", "2", "--end", "4", "--window", "0.4", "--model", "tiny", "--no-cache", "--format", "jsonl"]
    run = run_cli("ask", str(clip), DIGIT, *flags)
    assert run.exit_code == ExitCode.BATCH_FAILURES
    assert [caption["start_seconds"] for caption in lines(run.stdout)] == [2.0, 2.4, 3.2, 3.6]


def test_windows_lie_within_the_range(run_cli: RunCli) -> None:
    flags = ["--window", "1.5", "--overlap", "0.5s", "--start", "1", "--end", "0:04", "--model", "tiny", "--json"]
    windows = [answer["window"] for answer in lines(run_cli("ask", str(SHAPES), DIGIT, *flags).stdout)]
    assert [(window["start_seconds"], window["end_seconds"]) for window in windows] == [(1, 2.5), (2, 3.5), (3, 4)]


def test_a_dry_run_says_how_many_there_are(run_cli: RunCli) -> None:
    run = run_cli("ask", str(SHAPES), DIGIT, "--window", "2", "--model", "tiny", "--dry-run", "--json", "-v")
    assert run.exit_code == 0
    assert lines(run.stdout)[0]["frames"]["timestamps_seconds"][-1] == 2.0
    assert "3 windows" in run.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--overlap", "5"],
        ["--window", "5", "--overlap", "5"],
        ["--window", "scenes", "--overlap", "1"],
        ["--window", "soon"],
        ["--window", "5", "--timestamps", "1,2"],
        ["--window", "5", "--evidence-out", "strip.png"],
        ["--format", "vtt"],
        ["Who?", "--window", "5", "--format", "vtt"],
    ],
)
def test_what_contradicts_windows_is_a_usage_error(run_cli: RunCli, flags: list[str]) -> None:
    run = run_cli("ask", str(SHAPES), DIGIT, *flags, "--model", "tiny")
    assert (run.exit_code, run.stdout) == (ExitCode.USAGE, "")


def test_captions_and_json_are_not_printed_both(run_cli: RunCli) -> None:
    run = run_cli("ask", str(SHAPES), DIGIT, "--window", "5", "--format", "vtt", "--json", "--model", "tiny")
    assert (run.exit_code, lines(run.stdout)[0]["status"]) == (ExitCode.USAGE, "error")


def test_a_window_that_cannot_be_read_is_told_and_the_others_answered(run_cli: RunCli, tmp_path: Path) -> None:
    """An object with its error in its place, and the exit code of work that is not whole."""
    whole = write_numbered(tmp_path / "whole.mp4", Recipe(constant_rate(150), group=30))
    clip = wipe_group(whole, tmp_path / "wiped.mp4", 2, first=1, count=29)
    flags = ["--start", "2", "--end", "4", "--window", "0.4", "--model", "tiny", "--no-cache"]
    run = run_cli("ask", str(clip), DIGIT, *flags, "--json")
    answers = lines(run.stdout)
    assert run.exit_code == ExitCode.BATCH_FAILURES
    assert [answer["window"]["start_seconds"] for answer in answers] == [2.0, 2.4, 2.8, 3.2, 3.6]
    assert [answer.get("status") for answer in answers] == [None, None, "error", None, None]
    assert answers[2]["error"]["type"] == "UnreadableVideoError"
    run = run_cli("ask", str(clip), DIGIT, *flags)
    assert run.exit_code == ExitCode.BATCH_FAILURES
    assert [line[:8] for line in run.stdout.splitlines()] == ["0:02–0:0", "0:02.4–0", "0:03.2–0", "0:03.6–0"]
    assert "Warning: 0:02.8–0:03.2: None of the" in run.stderr


# --- batch ---


@pytest.fixture
def answerer(monkeypatch: pytest.MonkeyPatch) -> FakeAnswerer:
    fake = FakeAnswerer()
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: fake)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos of a second, ten frames each, and one that is none."""
    (tmp_path / "videos").mkdir()
    for number, name in enumerate(("one", "two")):
        write_video(tmp_path / "videos" / f"{name}.mp4", num_frames=10, colour=(80 * number, 80, 160))
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"\0" * 4096)
    return tmp_path / "videos"


def batch(run_cli: RunCli, source: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    run_cli("batch", str(source), "--question", "What moves?", "-o", str(out), "--model", "tiny", *flags)
    return list(read_records(out))


def test_a_record_a_window_and_one_for_a_video_that_cannot_be_opened(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer
) -> None:
    records = batch(run_cli, folder, tmp_path / "out.jsonl", "--window", "0.5s", "--no-cache")
    found = {(record["video"], (record["window"] or {}).get("start_seconds")): record for record in records}
    assert len(found) == len(records) == 5
    assert {key for key, record in found.items() if record["status"] == "error"} == {("bad.mp4", None)}
    assert found["one.mp4", 0.5]["window"] == {"start_seconds": 0.5, "end_seconds": 1.0}
    assert found["one.mp4", 0.5]["requested"]["start_seconds"] == 0.5
    assert len({record["item_id"] for record in records}) == 5
    again = batch(run_cli, folder, tmp_path / "out.jsonl", "--window", "0.5s", "--no-cache")
    assert len(again) == 5
    assert Counter(answerer.seen) == Counter({"one.mp4": 2, "two.mp4": 2})


def test_only_the_windows_without_a_record_are_read(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer
) -> None:
    """A window that has a record, of another overlap even, is the same question about the same range."""
    out = tmp_path / "out.jsonl"
    batch(run_cli, folder / "one.mp4", out, "--start", "0.25", "--end", "0.5", "--no-cache")
    before = len(answerer.seen)
    records = batch(run_cli, folder / "one.mp4", out, "--window", "0.25", "--no-cache")
    assert len(answerer.seen) - before == 4
    assert len(records) == 5


def test_a_video_that_can_be_read_only_later_is_asked_about_as_a_whole_and_that_is_said(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was slow for once: the answer about all of it came without a word."""

    def slow(*_: object) -> VideoReader:
        raise ReadTimeoutError("It took too long.")

    monkeypatch.setattr("sfvqa.batch.windows.open_video", slow)
    command = ("batch", str(folder / "one.mp4"), "--question", "What moves?", "-o", str(tmp_path / "out.jsonl"))
    told = run_cli(*command, "--model", "tiny", "--window", "0.25", "--no-cache").stderr
    [record] = read_records(tmp_path / "out.jsonl")
    assert (record["status"], record["window"]) == ("ok", None)
    assert "No windows were found in 1 video (one.mp4)." in told
    assert answerer.seen == ["one.mp4"]


def test_a_window_that_fails_is_a_record_and_the_others_are_answered(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer
) -> None:
    def fail(_name: str, _wanted: int) -> None:
        if len(answerer.seen) == 2:
            raise ValueError("of this window only")

    answerer.on_chunk = fail
    records = batch(run_cli, folder / "one.mp4", tmp_path / "out.jsonl", "--window", "0.25", "--no-cache")
    assert Counter(record["status"] for record in records) == Counter(ok=3, error=1)
    assert all(record["window"] for record in records)


def test_all_windows_of_a_video_are_read_in_one_pass(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window at a time, the file was opened and looked through for each."""
    opened = videos_opened_by("sfvqa.batch.reading_pool", monkeypatch)
    batch(run_cli, folder, tmp_path / "out.jsonl", "--window", "0.25", "--no-cache")
    assert sorted(opened) == ["bad.mp4", "one.mp4", "two.mp4"]
    assert len(answerer.seen) == 8


def test_a_batch_that_is_rerun_opens_no_video_whose_windows_are_known(
    run_cli: RunCli, folder: Path, tmp_path: Path, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were opened again, though every window had its record; for scenes, each was looked through."""
    opened = videos_opened_by("sfvqa.batch.windows", monkeypatch)
    monkeypatch.setenv("SFVQA_CACHE_DIR", str(tmp_path / "cache"))
    (folder / "bad.mp4").unlink()
    out = tmp_path / "out.jsonl"
    records = batch(run_cli, folder, out, "--window", "0.25")
    assert (sorted(opened), len(records)) == (["one.mp4", "two.mp4"], 8)
    opened.clear()
    assert (batch(run_cli, folder, out, "--window", "0.25"), opened) == (records, [])
    write_video(folder / "two.mp4", num_frames=5, colour=(9, 80, 160))
    assert len(batch(run_cli, folder, out, "--window", "0.25")) == 10
    assert opened == ["two.mp4"]
    batch(run_cli, folder, out, "--window", "0.5")
    assert sorted(opened) == ["one.mp4", "two.mp4", "two.mp4"]
    assert Counter(answerer.seen) == Counter({"one.mp4": 6, "two.mp4": 7})


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_each_window_has_one_record(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.jsonl"
    write_video(clip, num_frames=400, colour=(40, 80, 160))
    command = [
        sys.executable,
        "-m",
        "sfvqa",
        "batch",
        str(clip),
        "--question",
        DIGIT,
        "--window",
        "0.5",
        "-o",
        str(out),
    ]
    command += ["--model", "tiny", "--device", "cpu", "--batch-size", "1", "-q", "--no-cache"]
    for num_lines in (5, 30):
        running = subprocess.Popen(command)
        while running.poll() is None and (out.read_bytes().count(b"\n") if out.exists() else 0) < num_lines:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert subprocess.run(command, check=False).returncode == 0
    windows = [record["window"]["start_seconds"] for record in read_records(out)]
    assert sorted(windows) == [number / 2 for number in range(80)]
