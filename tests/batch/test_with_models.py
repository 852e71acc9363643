"""The runner with real weights: the same answers as a plain loop over VideoQA, however it is run, ended or resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfvqa import Answer, EncodedVideo
from sfvqa.batch.item import Item
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import read_records
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import CropMode, ReadOptions, SamplingOptions, SamplingStrategy
from tests.batch.conftest import HERE, RunBatch, items_of
from tests.inference.conftest import write_video
from tests.windows import needs_signals

QUESTIONS = ["Which way does the circle move?", "What colour does the screen flash?", "Describe the video."]
SHORT = GenerationOptions(max_new_tokens=24)


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def expected(tiny: VideoQA, video_folder: Path) -> dict[tuple[str, str], str]:
    """What a plain loop answers."""
    items = items_of(video_folder, "abcd", QUESTIONS)
    return {(item.name, item.question): tiny.ask(item.video, item.question, SHORT).text for item in items}


def options_for(qa: VideoQA, **more: Any) -> BatchOptions:
    return replace(BatchOptions(sampling=qa.default_sampling, generation=SHORT, reading=HERE), **more)


def answers(records: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    assert {record["status"] for record in records} == {"ok"}
    return {(record["video"], record["question"]): record["answer"] for record in records}


@pytest.mark.parametrize("more", [{}, {"batch_size": 2}, {"batch_size": 8, "num_readers": 4, "frames_ahead": 8}])
def test_answers_are_those_of_a_plain_loop(
    tiny: VideoQA, video_folder: Path, expected: dict[tuple[str, str], str], run_items: RunBatch, more: dict[str, Any]
) -> None:
    _, _, records = run_items(tiny, items_of(video_folder, "abcd", QUESTIONS), options_for(tiny, **more))
    assert answers(records) == expected


def test_answers_are_those_of_a_plain_loop_in_processes_too(
    tiny: VideoQA, video_folder: Path, expected: dict[tuple[str, str], str], run_items: RunBatch
) -> None:
    options = options_for(tiny, reading=ReadOptions())
    _, _, records = run_items(tiny, items_of(video_folder, "abcd", QUESTIONS), options)
    assert answers(records) == expected
    for record in records:
        timings = record["timings"]
        assert (
            timings["ttft_seconds"] >= timings["read_seconds"] + timings["encode_seconds"] - timings["overlap_seconds"]
        )
    assert sum(record["timings"]["read_seconds"] > 0 for record in records) == 4


@pytest.mark.parametrize(
    ("sampling", "crop"),
    [
        (SamplingOptions(num_frames=7), CropMode.CENTER),
        (SamplingOptions(num_frames=30, strategy=SamplingStrategy.SCENE), CropMode.PAD),
        (SamplingOptions(strategy=SamplingStrategy.TIMESTAMPS, timestamps_seconds=(0.5, 2.0)), CropMode.SQUASH),
    ],
)
def test_what_is_seen_is_what_encode_sees_to_the_bit(
    tiny: VideoQA,
    video_folder: Path,
    run_items: RunBatch,
    monkeypatch: pytest.MonkeyPatch,
    sampling: SamplingOptions,
    crop: CropMode,
) -> None:
    item = items_of(video_folder, "d", ["?"])
    alone = tiny.encode(item[0].video, sampling, crop=crop, reading=HERE)
    asked: list[EncodedVideo] = []
    answer_batch = tiny.answer_batch

    def watch(questions: list[tuple[EncodedVideo, str]], *args: Any, **kwargs: Any) -> list[Answer]:
        asked.extend(video for video, _ in questions)
        return answer_batch(questions, *args, **kwargs)

    monkeypatch.setattr(tiny, "answer_batch", watch)
    run_items(tiny, item, options_for(tiny, sampling=sampling, crop=crop))
    (there,) = asked
    assert torch.equal(there.visual_tokens.slow, alone.visual_tokens.slow)
    assert torch.equal(there.visual_tokens.fast, alone.visual_tokens.fast)
    for name in ("indices", "timestamps_seconds", "strategy", "reader", "crop", "video", "warnings"):
        assert getattr(there, name) == getattr(alone, name)


def test_what_the_cache_holds_is_not_opened(
    tiny: VideoQA, video_folder: Path, expected: dict[tuple[str, str], str], run_items: RunBatch, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And the answers are the same, whether it held the video or keeps it now."""
    caching = VideoQA(tiny.checkpoint, video_cache=VideoCache(tmp_path / "cache"))
    items = items_of(video_folder, "abcd", QUESTIONS)
    assert answers(run_items(caching, items, options_for(tiny))[2]) == expected
    assert caching.video_cache is not None
    assert caching.video_cache.num_entries() == 4

    def never(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("sfvqa.batch.reading_pool.open_video", never)
    _, _, records = run_items(caching, items, options_for(tiny, settings={"again": True}), overwrite=True)
    assert answers(records) == expected
    assert all(record["from_video_cache"] for record in records)


def test_choices_are_compared(tiny: VideoQA, video_folder: Path, run_items: RunBatch) -> None:
    item = Item(video_folder / "a.mp4", "a.mp4", QUESTIONS[0], choices=("left", "right"))
    _, _, (record,) = run_items(tiny, [item], options_for(tiny))
    alone = tiny.ask(item.video, item.question, choices=item.choices)
    assert record["answer"] == alone.text
    assert [choice["probability"] for choice in record["choices"]] == pytest.approx(
        [choice.probability for choice in alone.choices], abs=1e-5
    )


def test_a_prompt_that_is_too_long_costs_only_itself(tiny: VideoQA, video_folder: Path, run_items: RunBatch) -> None:
    items = items_of(video_folder, "a", ["What moves?", "why? " * 4000, "Which colour?"])
    _, summary, records = run_items(tiny, items, options_for(tiny, batch_size=3))
    assert summary.errors == {"PromptTooLongError": 1}
    assert len(records) == 3


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Eight videos, one of which is damaged."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(8):
        path = write_video(folder / f"{number:02}.mp4", num_frames=8 + number, colour=(10 * number, 80, 160))
        if number % 8 == 5:
            path.write_bytes(path.read_bytes()[:500])
    return folder


@pytest.mark.slow
def test_killed_at_random_and_resumed_it_ends_with_one_answer_an_item(many: Path, tmp_path: Path) -> None:
    """SIGKILL whenever it likes: no record is lost, torn or repeated, and the answers are those of one run."""
    command = [sys.executable, "-m", "sfvqa", "batch", str(many), "--model", "tiny", "--max-new-tokens", "24", "-q"]
    command += [part for question in QUESTIONS for part in ("--question", question)]
    environment = {**os.environ, "SFVQA_CACHE_DIR": str(tmp_path / "cache")}
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    began = time.monotonic()
    assert subprocess.run([*command, "-o", str(whole), "--no-cache"], env=environment, check=False).returncode == 6
    took = time.monotonic() - began
    chance = random.Random(6)
    for _ in range(3):
        running = subprocess.Popen([*command, "-o", str(parts)], env=environment)
        time.sleep(took * chance.uniform(0.4, 0.95))
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert subprocess.run([*command, "-o", str(parts)], env=environment, check=False).returncode == 6
    for path in (whole, parts):
        assert path.read_bytes().endswith(b"\n")
        notices: list[str] = []
        records = list(read_records(path, notices))
        assert notices == []
        assert len({record["item_id"] for record in records}) == len(records) == 8 * len(QUESTIONS)
    assert texts(parts) == texts(whole)


@needs_signals
def test_ctrl_c_ends_it_within_a_moment_and_the_same_command_goes_on(many: Path, tmp_path: Path) -> None:
    """Also a real one, in the middle of native code."""
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "sfvqa", "batch", str(many), "--model", "tiny", "--max-new-tokens", "24"]
    command += ["--question", "Describe the video.", "-o", str(out), "--no-cache", "--readers", "2"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    interrupted = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert time.monotonic() - interrupted < 10
    assert running.returncode == 130
    assert "rerun the command to resume" in said
    assert 1 <= len(list(read_records(out))) < 8
    assert subprocess.run(command, check=False, capture_output=True).returncode == 6
    assert len({record["item_id"] for record in read_records(out)}) == 8


def texts(path: Path) -> dict[str, str | None]:
    return {record["item_id"]: record.get("answer") for record in read_records(path)}
