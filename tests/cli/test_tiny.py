"""The first command of the README, with the bundled model and the bundled videos."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sfvqa.cli.demo import DemoVideo, load_demo_videos
from tests.cli.conftest import RunCli
from tests.inference.conftest import write_video

VIDEOS = load_demo_videos()


@pytest.mark.parametrize("video", VIDEOS, ids=lambda video: video.path.rsplit("/", 1)[-1])
def test_the_demo_questions_are_answered_rightly(video: DemoVideo, run_cli: RunCli) -> None:
    """What `sfvqa demo` promises is what `sfvqa ask` says, and why it stops is that it is done."""
    run = run_cli("ask", video.path, *(question for question, _ in video.questions), "--json", "-q")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.exit_code == 0
    assert [(answer["question"], answer["answer"]) for answer in answers] == list(video.questions)
    assert all(answer["finish_reason"] == "stop" and answer["warnings"] == [] for answer in answers)
    assert {answer["model"] for answer in answers} == {"tiny"}


@pytest.mark.parametrize("kind", ["clip", "still", "one of many"])
def test_an_only_frame_keeps_all_of_its_tokens(kind: str, tmp_path: Path, run_cli: RunCli) -> None:
    """The reference pools the visual tokens of several frames alone; here a quarter of them was left of one."""
    video, flags = Path(VIDEOS[0].path), ["--json", "-q", "--device", "cpu"]
    if kind == "clip":
        video = write_video(tmp_path / "clip.mp4", num_frames=1, colour=(200, 30, 30))
    elif kind == "still":
        video = tmp_path / "still.png"
        Image.new("RGB", (96, 96), "red").save(video)
    else:
        flags += ["--frames", "1"]
    planned = json.loads(run_cli("ask", str(video), "Which colour?", "--dry-run", *flags).stdout)
    seen = json.loads(run_cli("ask", str(video), "Which colour?", *flags).stdout)
    assert (seen["tokens"]["slow"], seen["tokens"]["fast"]) == (64, 64)
    assert (planned["tokens"]["slow"], planned["tokens"]["fast"]) == (64, 64)


def test_of_two_frames_the_tokens_are_pooled(run_cli: RunCli) -> None:
    run = run_cli("ask", VIDEOS[0].path, "Which colour?", "--frames", "2", "--json", "-q", "--device", "cpu")
    tokens = json.loads(run.stdout)["tokens"]
    assert (tokens["slow"], tokens["fast"]) == (32, 32)


def test_slow_tokens_dropped_while_decoding_still_answers(run_cli: RunCli) -> None:
    """The reference's way of decoding runs through the command line as well."""
    question = VIDEOS[0].questions[0][0]
    run = run_cli("ask", VIDEOS[0].path, question, "--slow-attention", "prefill", "--json", "-q")
    assert json.loads(run.stdout)["settings"]["slow_attention"] == "prefill"


def test_a_process_of_its_own_prints_the_answer_and_says_which_model(tmp_path: Path) -> None:
    """As typed: one line on stdout; with -v stderr names the model, and nothing that is not ours."""
    question, answer = VIDEOS[0].questions[0]
    hidden = ("SFVQA_", "HF_", "TRANSFORMERS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {
        "SFVQA_CONFIG": os.devnull,
        "HF_HUB_CACHE": str(tmp_path),
        "SFVQA_CACHE_DIR": str(tmp_path),
    }
    run = subprocess.run(
        [sys.executable, "-m", "sfvqa", "ask", VIDEOS[0].path, question, "-v"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, f"{answer}\n"), run.stderr
    model, read, timings = run.stderr.splitlines()
    assert model.startswith("Using the bundled tiny")
    assert "32 frames" in read
    assert timings.startswith("Timings: ")
