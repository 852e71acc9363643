"""`sfvqa batch --ray`: the same command on a cluster that is there, or on one of its own, which ends with it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from sfvqa.batch.record import read_records
from sfvqa.batch.tally import BatchEvent, Tally, Working
from sfvqa.cli.batch.running import LiveDisplay, PlainDisplay, describe_rate
from sfvqa.cli.screen import Notices
from tests.batch.cluster.conftest import cluster, needs_ray, processes_of, ray_folder
from tests.cli.conftest import RunCli
from tests.inference.conftest import write_video

__all__ = ["cluster", "ray_folder"]  # fixtures

NUM_VIDEOS = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some videos, one of which is none."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(NUM_VIDEOS - 1):
        write_video(videos / f"{number}.mp4", num_frames=8, colour=(20 * number, 80, 160))
    (videos / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42 no more")
    return videos


def command(folder: Path, *flags: str) -> list[str]:
    batch = [sys.executable, "-m", "sfvqa", "batch", folder.name, "--question", "Describe the video."]
    return [*batch, "--model", "tiny", "--max-new-tokens", "24", "--no-cache", *flags]


def run(folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(folder, *flags), cwd=folder.parent, capture_output=True, text=True, check=False)


def answers(path: Path) -> dict[str, Any]:
    return {record["item_id"]: record.get("answer", record["status"]) for record in read_records(path)}


@needs_ray
@pytest.mark.slow
def test_the_file_is_the_one_of_a_run_without_ray(folder: Path, cluster: Any, tmp_path: Path) -> None:
    """On a user's cluster, which goes on; paths are relative to a folder that no worker is in."""
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    asked = ("-o", there.name, "--frames", "4", "--ray-address")
    done = run(folder, *asked, cluster.address, "--json", "-v")
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["answered"] == NUM_VIDEOS - 1
    assert "2 workers" in done.stderr
    assert "ray" not in done.stderr.lower()
    assert run(folder, "-o", here.name, "--frames", "4").returncode == 6
    assert answers(there) == answers(here)
    again = run(folder, *asked, "127.0.0.1:1")  # all is done: nothing is connected to
    assert again.returncode == 6
    assert cluster.head_node.all_processes


@needs_ray
@pytest.mark.slow
def test_ctrl_c_ends_a_cluster_of_its_own_and_the_same_command_goes_on(
    folder: Path, ray_folder: Path, tmp_path: Path
) -> None:
    """What a cluster that was killed left behind is not taken for one; Ctrl-C reaches the whole group of processes."""
    (ray_folder / "ray").mkdir(exist_ok=True)
    (ray_folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:1", encoding="ascii")
    before = set(processes_of(ray_folder))
    out = tmp_path / "out.jsonl"
    flags = ("-o", out.name, "--ray", "--workers", "1", "--frames", "2", "--readers", "1", "--batch-size", "1")
    running = subprocess.Popen(
        command(folder, *flags), cwd=folder.parent, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while not (out.exists() and out.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:  # one may go again
        time.sleep(0.005)
    assert set(processes_of(ray_folder)) - before
    os.killpg(running.pid, signal.SIGINT)
    interrupted = time.monotonic()
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert time.monotonic() - interrupted < 15
    assert "rerun the command to resume" in said
    assert set(processes_of(ray_folder)) <= before
    assert 1 <= len(answers(out)) < NUM_VIDEOS
    assert run(folder, *flags, "--json", "-q").returncode == 6
    assert len(answers(out)) == NUM_VIDEOS
    assert set(processes_of(ray_folder)) <= before


@needs_ray
@pytest.mark.slow
def test_where_ray_itself_is_killed_the_user_is_told(folder: Path, ray_folder: Path, tmp_path: Path) -> None:
    """Asked for another worker then, Ray ended this process without a word of how to go on."""
    many = "".join(f"Which way does shape {number} move?\n" for number in range(5000))  # a minute and more
    (tmp_path / "questions.txt").write_text(many, encoding="ascii")
    out, before = tmp_path / "out.jsonl", set(processes_of(ray_folder))
    flags = ("-o", out.name, "--questions", "questions.txt", "--ray", "--workers", "1", "--batch-size", "1")
    running = subprocess.Popen(command(folder, *flags), cwd=folder.parent, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not (out.exists() and out.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(next(pid for pid in set(processes_of(ray_folder)) - before if is_raylet(pid)), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    if "Error:" in said:  # unless Ray, asked for something at that very moment, ended this process itself
        assert "What is done is kept; rerun the command" in said
        assert "Error: Ray has ended on this machine" in said
    assert set(answers(out).values())


def is_raylet(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"/raylet")


@pytest.fixture
def batch(run_cli: RunCli, folder: Path, tmp_path: Path) -> Any:
    """Run it in this process, with flags that end it before any cluster is looked for."""
    asked = ("batch", str(folder), "--question", "?", "-o", str(tmp_path / "out.jsonl"))
    return lambda *flags: run_cli(*asked, *flags)


@needs_ray
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--workers 2", "--workers needs a Ray cluster"),
        ("--gpus-per-worker 0.5", "--gpus-per-worker needs a Ray cluster"),
        ("--ray --workers 0", "--workers"),
        ("--ray --gpus-per-worker 1.5", "1.5 GPUs"),
        ("--ray --device cuda:1", "Ray decides"),
        ("--ray --device cpu --gpus-per-worker 1", "Leave out --gpus-per-worker"),
        ("--ray-address ray://head:10001", "Ray Client"),
        ("--ray-address=", "--ray-address is empty"),
    ],
)
def test_contradictions_are_usage_errors(batch: Any, flags: str, says: str, tmp_path: Path) -> None:
    done = batch("--model", "tiny", *flags.split())
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "out.jsonl").exists()


@needs_ray
def test_a_cluster_must_be_told_the_model(batch: Any) -> None:
    done = batch("--ray")
    assert done.exit_code == 2
    assert "Name one with --model" in done.stderr


def test_where_ray_is_missing_the_error_says_how_to_install_it(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.batch.cluster.connection.importlib.util.find_spec", lambda _: None)
    done = batch("--model", "tiny", "--ray")
    assert done.exit_code == 2
    assert 'pip install "sfvqa[ray]"' in done.stderr


@needs_ray
def test_a_dry_run_starts_nothing(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the variables of the options are heeded; without --ray they mean nothing."""
    monkeypatch.setattr("sfvqa.batch.cluster.connection.connected", None)
    monkeypatch.setenv("SFVQA_WORKERS", "3")
    done = batch("--model", "tiny", "--ray", "--dry-run", "--json", "--device", "cuda")
    shown = json.loads(done.stdout)
    assert (done.exit_code, shown["device"], shown["left"]) == (0, "cuda", NUM_VIDEOS)
    assert shown["cluster"] == {"address": None, "workers": 3, "gpus_per_worker": None}
    assert "workers 3;" in batch("--model", "tiny", "--ray", "--dry-run").stdout
    assert "workers" not in batch("--model", "tiny", "--dry-run").stdout


@needs_ray
def test_where_it_runs_is_no_part_of_what_was_asked(batch: Any) -> None:
    """The ids are those of a run without Ray, so that either goes on where the other was ended."""
    assert batch("--model", "tiny", "--device", "cpu", "--frames", "2").exit_code == 6
    flags = ("--ray", "--workers", "2", "--gpus-per-worker", "0", "--frames", "2", "--dry-run", "--json")
    assert json.loads(batch("--model", "tiny", *flags).stdout)["left"] == 0


@pytest.mark.parametrize("is_live", [False, True])
def test_a_lost_worker_is_told_each_time(capsys: pytest.CaptureFixture[str], is_live: bool) -> None:
    def events() -> Generator[BatchEvent, None, Tally]:
        tally = Tally(4, num_workers=1, num_workers_wanted=2)
        for _ in range(2):
            yield Working(tally, "A worker was lost \x1b[2J.")
            yield Working(tally)
        return tally

    shown = LiveDisplay() if is_live else PlainDisplay(Notices(quiet=False))
    shown.follow(events())
    said = capsys.readouterr().err
    assert said.count("Warning: A worker was lost") == 2
    assert "\x1b[2J" not in said


def test_the_workers_are_counted_in_words() -> None:
    assert describe_rate(Tally(4)) == "nothing finished yet"
    assert describe_rate(Tally(4, num_workers=1, num_workers_wanted=2)) == "nothing finished yet, 1 of 2 workers"
    all_there = Tally(4, num_answered=2, elapsed_seconds=60, num_workers=2, num_workers_wanted=2)
    assert describe_rate(all_there) == "2.0 items a minute, 1:00 to go, 2 workers"


def test_no_time_to_go_is_promised_while_nothing_finishes() -> None:
    """It stood at "0:02 to go" for as long as the last video hung."""
    moving = Tally(100, num_answered=99, elapsed_seconds=200, still_seconds=3)
    assert describe_rate(moving) == "29.7 items a minute, 0:02 to go"
    standing = Tally(100, num_answered=99, elapsed_seconds=300, still_seconds=103)
    assert describe_rate(standing) == "19.8 items a minute, nothing finished for 1:43"
