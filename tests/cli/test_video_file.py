"""A video that the cache holds is not opened; one that it does not hold is opened before a model is loaded."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.options import CacheOptions, parse_size
from sfvqa.cli.screen import Notices
from sfvqa.cli.video import VideoFile
from sfvqa.errors import ExitCode
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.video.readers import isolated
from tests.cli.conftest import RunCli

DEMO, QUESTION = load_demo_videos()[0].path, load_demo_videos()[0].questions[0][0]
ASK = ("--model", "tiny", "--device", "cpu", "--json", "-v")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The videos that reading processes are started for."""
    paths: list[Path] = []
    start = isolated.IsolatedReader.__init__

    def counting(self: isolated.IsolatedReader, path: Path, *args: object) -> None:
        paths.append(path)
        start(self, path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(isolated.IsolatedReader, "__init__", counting)
    return paths


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(shutil.copy(DEMO, tmp_path / "clip.mp4"))


def ask(run_cli: RunCli, video: str, *flags: str) -> dict[str, object]:
    run = run_cli("ask", video, QUESTION, *ASK, *flags)
    assert run.exit_code == 0, run.stderr
    answer: dict[str, object] = json.loads(run.stdout)
    return answer | {"stderr": run.stderr}


def test_the_second_call_neither_opens_nor_reads_and_says_so(run_cli: RunCli, clip: str, opened: list[Path]) -> None:
    first, second = ask(run_cli, clip), ask(run_cli, clip)
    assert len(opened) == 1
    assert (first["from_video_cache"], second["from_video_cache"]) == (False, True)
    assert first["answer"] == second["answer"]
    assert first["frames"] == second["frames"]
    assert "taken from the video cache" in str(second["stderr"])
    assert "taken from" not in str(first["stderr"])


def test_recognising_a_video_counts_as_reading_it(run_cli: RunCli, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of a large one takes seconds, and somebody waits for them."""
    ask(run_cli, clip)
    content_of = VideoCache.content_of

    def slow(cache: VideoCache, video: Path) -> str:
        content = content_of(cache, video)
        if not monkeypatched.pop("is_known", False):
            time.sleep(0.5)
            monkeypatched["is_known"] = True
        return content

    monkeypatched: dict[str, bool] = {}
    monkeypatch.setattr(VideoCache, "content_of", slow)
    timings = ask(run_cli, clip)["timings"]
    assert isinstance(timings, dict)
    assert timings["read_seconds"] >= 0.5
    assert timings["ttft_seconds"] >= timings["read_seconds"]


def test_no_cache_takes_and_keeps_nothing(run_cli: RunCli, clip: str, opened: list[Path]) -> None:
    ask(run_cli, clip, "--no-cache")
    assert VideoCache().entries() == []
    ask(run_cli, clip)
    assert ask(run_cli, clip, "--no-cache")["from_video_cache"] is False
    assert len(opened) == 3


def test_a_large_video_is_recognised_by_every_byte_where_that_is_asked_for(
    run_cli: RunCli, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.video.readers.local_file.WHOLE_LIMIT_BYTES", 0)
    ask(run_cli, clip)
    ask(run_cli, clip, "--full-hash")
    kept = [entry.facts.key["content"] for entry in VideoCache().entries() if entry.facts]
    assert sorted(content.partition(":")[0] for content in kept) == ["sampled", "whole"]


def test_a_large_video_on_standard_input_is_recognised_by_every_byte(
    clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy is new each time, and so is the time of its last change."""
    monkeypatch.setattr("sfvqa.video.readers.local_file.WHOLE_LIMIT_BYTES", 0)
    cache = CacheOptions(cache_size="1GB").open(Path("-"))
    assert cache is not None
    assert cache.content_of(clip).startswith("whole:")


def test_only_the_first_batch_pays_for_the_video(run_cli: RunCli, clip: str) -> None:
    run = run_cli("ask", clip, QUESTION, "What flashes?", "Which digit is shown?", *ASK, "--batch-size", "2")
    read_seconds = [json.loads(line)["timings"]["read_seconds"] for line in run.stdout.splitlines()]
    assert [seconds > 0 for seconds in read_seconds] == [True, True, False]


def test_a_size_of_zero_keeps_nothing_and_says_so(run_cli: RunCli, clip: str) -> None:
    answer = ask(run_cli, clip, "--cache-size", "0")
    assert VideoCache().entries() == []
    assert "is not kept" in str(answer["warnings"])


@pytest.mark.parametrize("flags", [("--frames", "16"), ("--crop", "pad"), ("--end", "2"), ("--dtype", "bfloat16")])
def test_other_flags_read_the_video_again(
    run_cli: RunCli, clip: str, opened: list[Path], flags: tuple[str, ...]
) -> None:
    ask(run_cli, clip)
    answer = ask(run_cli, clip, *flags)
    assert answer["from_video_cache"] is False
    assert len(opened) == 2


def test_what_is_wrong_with_a_video_is_found_before_a_model_is_loaded(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.video.plan_question", None)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    run = run_cli("ask", str(broken), QUESTION, *ASK)
    assert run.exit_code == ExitCode.VIDEO
    assert "UnreadableVideoError" in run.stdout


def test_a_range_outside_the_video_is_found_before_a_model_is_loaded(
    run_cli: RunCli, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.video.plan_question", None)
    run = run_cli("ask", clip, QUESTION, *ASK, "--start", "100")
    assert run.exit_code == ExitCode.VIDEO
    assert "RangeOutsideVideoError" in run.stdout


def test_a_range_outside_a_kept_video_is_still_an_error(run_cli: RunCli, clip: str) -> None:
    ask(run_cli, clip)
    run = run_cli("ask", clip, QUESTION, *ASK, "--start", "100")
    assert run.exit_code == ExitCode.VIDEO
    assert "RangeOutsideVideoError" in run.stdout


def test_a_dry_run_of_a_kept_video_is_that_of_any_other(run_cli: RunCli, clip: str) -> None:
    before = run_cli("ask", clip, QUESTION, *ASK, "--dry-run")
    ask(run_cli, clip)
    after = run_cli("ask", clip, QUESTION, *ASK, "--dry-run")
    assert json.loads(before.stdout)["frames"] == json.loads(after.stdout)["frames"]


@pytest.mark.slow
def test_standard_input_is_known_by_what_comes(clip: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SFVQA_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for _ in range(2):
        with Path(clip).open("rb") as stream:
            run = subprocess.run(
                [sys.executable, "-m", "sfvqa", "ask", "-", QUESTION, *ASK],
                stdin=stream,
                capture_output=True,
                env=environment,
                check=True,
            )
        answer = json.loads(run.stdout)
        found.append((answer["from_video_cache"], answer["video"]))
    assert found == [(False, "-"), (True, "-")]


def test_an_open_video_is_closed_when_it_is_left(clip: str) -> None:
    with VideoFile(Path(clip), FrameOptions(), None, Notices(quiet=True)) as file:
        reader = file.reader
        assert file.to_encode is reader
    assert isinstance(reader, isolated.IsolatedReader)
    assert reader._process._running is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10GB", 10**10),
        ("1.5 g", 1_500_000_000),
        ("500MB", 5 * 10**8),
        ("42", 42),
        ("0", 0),
        ("1" + "0" * 400, 10**400),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "ten", "-1GB", "1GiB", "nan", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_size(text)
