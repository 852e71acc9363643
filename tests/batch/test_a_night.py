"""Three hundred videos, some of them hostile, killed ten times and gone on with: nothing is lost, torn or repeated."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfvqa.batch.record import read_records
from sfvqa.errors import ExitCode
from sfvqa.lab.tiny.evaluate import draw_questions
from sfvqa.lab.tiny.render import write_video

NUM_VIDEOS, NUM_BAD, NUM_KILLS = 300, 15, 10
QUESTIONS = ("Describe the video.", "Which digit is shown?")


def bad_contents(good: bytes) -> Iterator[bytes]:
    """What no frame can be read of: the kinds that the tests of the readers know, in turn."""
    noise = random.Random(5)
    while True:
        yield b""
        yield b"A letter, not a video.\n" * 50
        yield noise.randbytes(20_000)
        yield good[: len(good) // 2]  # its index was to come at the end
        yield good[:48]
        yield bytes(len(good))
        yield b"\x1aE\xdf\xa3" + noise.randbytes(5_000)  # begins like a Matroska file


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of videos, good and bad ones in folders of their own."""
    folder = tmp_path_factory.mktemp("night") / "videos"
    for kind in ("good", "bad"):
        (folder / kind).mkdir(parents=True)
    scenes = draw_questions(6, 10 * NUM_VIDEOS)
    for number in range(NUM_VIDEOS - NUM_BAD):
        write_video(next(scenes)[0], folder / "good" / f"{number:03}.mp4", size=96, preset="ultrafast")
    good = (folder / "good" / "000.mp4").read_bytes()
    for number, content in zip(range(NUM_BAD), bad_contents(good), strict=False):
        (folder / "bad" / f"{number:02}.mp4").write_bytes(content)
    return folder


def command(night: Path, out: Path, *flags: str) -> list[str]:
    questions = [part for question in QUESTIONS for part in ("--question", question)]
    model = ["--model", "tiny", "--device", "cpu", "--dtype", "float32", "--max-new-tokens", "48"]
    return [sys.executable, "-m", "sfvqa", "batch", str(night), *questions, *model, "-o", str(out), "-q", *flags]


@pytest.mark.soak
def test_killed_ten_times_it_ends_as_if_it_never_had_been(night: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SFVQA_CACHE_DIR": str(tmp_path / "cache")}
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    run = subprocess.run(command(night, whole, "--no-cache"), env=environment, check=False)
    assert run.returncode == ExitCode.BATCH_FAILURES
    chance = random.Random(0)
    # Moments are told by progress, not by the clock: a machine that gets faster would end the batch before the last.
    most = int(0.8 * len(QUESTIONS) * NUM_VIDEOS)
    for num_lines in sorted(chance.randrange(most) for _ in range(NUM_KILLS)):
        running = subprocess.Popen(command(night, parts, "--no-cache"), env=environment)
        while running.poll() is None and _num_lines(parts) < num_lines:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    run = subprocess.run(command(night, parts, "--no-cache"), env=environment, check=False)
    assert run.returncode == ExitCode.BATCH_FAILURES
    for path in (whole, parts):
        notices: list[str] = []
        records = list(read_records(path, notices))
        assert notices == []
        assert path.read_bytes().endswith(b"\n")
        answered = Counter(record["item_id"] for record in records if record["status"] == "ok")
        assert len(answered) == len(QUESTIONS) * (NUM_VIDEOS - NUM_BAD)
        assert set(answered.values()) == {1}
        failed = {record["video"] for record in records if record["status"] == "error"}
        assert failed == {f"bad/{number:02}.mp4" for number in range(NUM_BAD)}
    assert texts(whole) == texts(parts)


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def texts(path: Path) -> dict[str, str]:
    return {record["item_id"]: record["answer"] for record in read_records(path) if record["status"] == "ok"}
