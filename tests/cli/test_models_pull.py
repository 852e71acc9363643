"""`sfvqa models pull`, `path` and `remove`, against a hub on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import locate_speech
from sfvqa.registry import find_model
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import REPO, SHARDS, UNWANTED, checkpoint_of_numbers, connected, flip_a_bit
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.inference.conftest import write_video
from tests.model.families.published import FAMILIES, NOT_WANTED, save_whole
from tests.windows import needs_signals

WANTED_BYTES = sum(len(data) for name, data in checkpoint_of_numbers().items() if name not in UNWANTED)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with connected(tmp_path, monkeypatch) as hub:
        hub.publish(checkpoint_of_numbers())
        yield hub


def snapshot(folder: Path, hub: FakeHub) -> Path:
    return folder / "cache" / f"models--{REPO.replace('/', '--')}" / "snapshots" / hub.head


def test_licence_commit_and_size_are_shown_before_the_files_come(hub: FakeHub, run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("models", "pull", "small", "--yes")
    assert (run.exit_code, run.stdout) == (0, "")
    lines = run.stderr.splitlines()
    assert lines[0] == f"small: {REPO} at commit {hub.head}, licence CC BY-NC 4.0"
    assert lines[1].startswith("800.3 kB in 5 files; 800.3 kB to download into ")
    assert lines[2] == f"small is downloaded, and every file matches its hash: {snapshot(tmp_path, hub)}"
    assert run_cli("models", "pull", "small", "-q").stderr == "", "nothing is to come, so there is nothing to ask"


def test_without_a_terminal_a_download_needs_a_yes(hub: FakeHub, run_cli: RunCli) -> None:
    run = run_cli("models", "pull", "small")
    assert run.exit_code == 2
    assert "downloads 800.3 kB under the licence CC BY-NC 4.0" in run.stderr
    assert "Add --yes" in run.stderr
    assert not hub.of("resolve")


@pytest.mark.parametrize(("answer", "exit_code"), [(True, 0), (False, 1)])
def test_on_a_terminal_it_asks(
    hub: FakeHub, run_on_terminal: RunOnTerminal, monkeypatch: pytest.MonkeyPatch, answer: bool, exit_code: int
) -> None:
    asked: list[str] = []
    hub.pause_seconds = 0.05

    def confirm(question: str, *, err: bool) -> bool:
        assert err
        asked.append(question)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    code, sent = run_on_terminal("models", "pull", "small")
    assert asked == ["Download 800.3 kB under the licence CC BY-NC 4.0?"]
    assert code == exit_code
    assert ("Nothing was downloaded." in sent) is not answer
    assert ("Downloading" in sent) is answer
    assert bool(hub.of("/storage/")) is answer


def test_pulling_as_json(hub: FakeHub, run_cli: RunCli, tmp_path: Path) -> None:
    first = hub.head
    expected = {
        "schema_version": 1,
        "name": "small",
        "repo_id": REPO,
        "license": "CC BY-NC 4.0",
        "revision": first,
        "previous_revision": None,
        "folder": str(snapshot(tmp_path, hub)),
        "downloaded_bytes": WANTED_BYTES,
    }
    assert json.loads(run_cli("models", "pull", "small", "--yes", "--json").stdout) == expected
    hub.publish(checkpoint_of_numbers(seed=1))
    again = json.loads(run_cli("models", "pull", "small", "--yes", "--json").stdout)
    assert (again["revision"], again["downloaded_bytes"]) == (first, 0)
    run = run_cli("models", "pull", "small", "--yes", "--json", "--update")
    assert f"Updating from commit {first[:12]} to {hub.head[:12]}." in run.stderr
    updated = json.loads(run.stdout)
    assert (updated["previous_revision"], updated["revision"]) == (first, hub.head)
    assert f"{hub.head[:12]} is the newest commit." in run_cli("models", "pull", "small", "--update").stderr


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_the_hub_refuses_is_exit_code_4(hub: FakeHub, run_cli: RunCli, flags: list[str]) -> None:
    hub.statuses["/api/"] = (403, {"X-Error-Code": "GatedRepo"})
    run = run_cli("models", "pull", "small", "--yes", *flags)
    assert run.exit_code == 4
    said = json.loads(run.stdout)["error"] if flags else {"type": "DownloadError", "message": run.stderr}
    assert said["type"] == "DownloadError"
    assert f"Accept it at {hub.url}/{REPO}" in said["message"]


def test_offline_takes_what_is_here_and_else_says_what_to_type(
    hub: FakeHub, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_cli("models", "pull", "small", "--offline")
    assert run.exit_code == 4
    assert "leave out --offline" in run.stderr
    assert run_cli("models", "pull", "small", "--offline", "--update").exit_code == 2
    assert not hub.requests
    run_cli("models", "pull", "small", "--yes")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = run_cli("models", "pull", "small")
    assert run.exit_code == 0
    assert f"at commit {hub.head}; the hub was not asked" in run.stderr
    assert run_cli("models", "path", "small", "--offline").exit_code == 0
    assert not hub.requests


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_pulled(run_cli: RunCli) -> None:
    run = run_cli("models", "pull", "tiny")
    assert (run.exit_code, run.stderr.startswith("tiny is bundled: ")) == (0, True)
    assert run_cli("models", "pull", "bench-0.5b").exit_code == 4
    assert "Did you mean small" in run_cli("models", "pull", "smal").stderr


def test_path_prints_the_folder_alone(hub: FakeHub, run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("models", "path", "small")
    assert (run.exit_code, run.stdout) == (4, "")
    assert "`sfvqa models pull small` (4.0 MB, licence CC BY-NC 4.0)" in run.stderr
    run_cli("models", "pull", "small", "--yes")
    run = run_cli("models", "path", "small")
    assert (run.stdout, run.stderr) == (f"{snapshot(tmp_path, hub)}\n", "")
    assert json.loads(run_cli("models", "path", "small", "--json").stdout)["revision"] == hub.head


def test_the_list_tells_how_much_of_a_model_is_here(hub: FakeHub, run_cli: RunCli, tmp_path: Path) -> None:
    assert "small  (not downloaded" in run_cli("models", "list").stdout
    run_cli("models", "pull", "small", "--yes")
    hub.requests.clear()
    run = run_cli("models", "list")
    assert "small  (downloaded" in run.stdout
    assert f"Commit {hub.head}, 800.3 kB on disk in {snapshot(tmp_path, hub)}" in run.stdout
    models = json.loads(run_cli("models", "list", "--json").stdout)["models"]
    (small,) = (model for model in models if model["name"] == "small")
    assert (small["available"], small["revision"], small["disk_bytes"]) == (True, hub.head, WANTED_BYTES)
    (snapshot(tmp_path, hub) / SHARDS[0]).unlink()
    assert "small  (partly downloaded" in run_cli("models", "list").stdout
    assert not hub.requests


def test_remove_asks_and_frees(hub: FakeHub, run_cli: RunCli, tmp_path: Path) -> None:
    assert run_cli("models", "remove", "small").exit_code == 4
    run_cli("models", "pull", "small", "--yes")
    run = run_cli("models", "remove", "small")
    assert run.exit_code == 2
    assert "deletes 800.3 kB (1 commit)" in run.stderr
    assert run.stderr.count("Removing small deletes") == 1
    assert snapshot(tmp_path, hub).is_dir()
    document = json.loads(run_cli("models", "remove", "small", "--yes", "--json").stdout)
    assert (document["revisions"], document["freed_bytes"]) == ([hub.head], WANTED_BYTES)
    assert not snapshot(tmp_path, hub).exists()
    assert "tiny is part of the package" in run_cli("models", "remove", "tiny", "--yes").stderr


@pytest.mark.slow
@needs_signals
def test_ctrl_c_keeps_files_that_are_complete_and_the_same_command_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    """As typed in a shell, with nothing set but the variables that everybody may set."""
    hub.publish(checkpoint_of_numbers(values=1_000_000))
    hub.pause_seconds = 0.03
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "sfvqa", "models", "pull", "small", "--yes"]
    environment = {**os.environ, **variables}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not (snapshot(tmp_path, hub) / SHARDS[0]).exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 130
    assert "Rerun the command to resume" in said
    assert not list((tmp_path / "cache").rglob("*.incomplete"))

    hub.pause_seconds = 0.0
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert len(hub.of(f"/storage/{hub.head}/{SHARDS[0]}")) == 1
    assert {asked.headers["user-agent"].split("/")[0] for asked in hub.requests} == {"sfvqa"}, "and no telemetry"


@pytest.mark.slow
@needs_signals
@pytest.mark.parametrize("family", FAMILIES)
def test_a_laptop_s_model_is_pulled_killed_resumed_verified_asked_and_asked_offline(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line what the README says, each in a process of its own; the weights are small and random."""
    name = {"llava_onevision": "llava-onevision-0.5b", "smolvlm": "smolvlm2-256m"}[family]
    save_whole(family, tmp_path / "published", sharded=True)
    video = str(write_video(tmp_path / "holiday.mp4", num_frames=40, colour=(200, 30, 60)))
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    with connected(tmp_path, monkeypatch, str(find_model(name).repo_id)) as hub:
        hub.publish(files | NOT_WANTED)
        own = {"SFVQA_MODELS": os.devnull, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        environment = {**os.environ, **own}

        def sfvqa(*arguments: str, **more: str) -> str:
            command = [sys.executable, "-m", "sfvqa", *arguments]
            done = subprocess.run(command, env=environment | more, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        hub.pause_seconds = 0.3
        first = subprocess.Popen([sys.executable, "-m", "sfvqa", "models", "pull", name, "--yes"], env=environment)
        repository = tmp_path / "cache" / f"models--{hub.repo_id.replace('/', '--')}"
        while not (repository / "snapshots" / hub.head / shards[1]).exists():
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
        first.wait()
        hub.pause_seconds = 0.0
        before = {shard for shard in shards if (repository / "snapshots" / hub.head / shard).exists()}
        assert 2 <= len(before) < len(shards)
        sfvqa("models", "pull", name, "--yes")
        assert {len(hub.of(f"/storage/{hub.head}/{shard}")) for shard in before} == {1}
        sfvqa("models", "verify", name)
        asked = ("ask", video, "What happens?", "--device", "cpu", "--temperature", "1", "--json")
        said = json.loads(sfvqa(*asked, "--model", name))
        assert (said["model"], said["revision"]) == (name, hub.head)
    expected = json.loads(sfvqa(*asked, "--model", str(tmp_path / "published"), "--dtype", said["settings"]["dtype"]))
    assert said["answer"] == expected["answer"]
    assert said["frames"] == expected["frames"]
    again = json.loads(sfvqa(*asked, "--no-cache", HF_HUB_OFFLINE="1"))  # the hub is gone, and nobody names the model
    assert (again["model"], again["answer"]) == (name, said["answer"])


SPEECH_FILES = {
    "config.json": b"{}",
    "model.bin": b"numbers" * 1000,
    "tokenizer.json": b"{}",
    "vocabulary.txt": b"a\nb\n",
    "preprocessor_config.json": b"{}",
}


@pytest.fixture
def speech_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """It has the speech model of another models.toml, and files nobody wants."""
    with connected(tmp_path, monkeypatch, SPEECH_REPO) as hub:
        (tmp_path / "models.toml").write_text(SPEECH_TOML)
        hub.publish(SPEECH_FILES | {"README.md": b"read me", "pytorch_model.bin": b"pickle", "run.py": b"code"})
        yield hub


SPEECH_REPO = "acme/little-whisper"
SPEECH_TOML = f"""
[speech.little-whisper]
description = "Hears little."
repo_id = "{SPEECH_REPO}"
license = "MIT"
size_bytes = 7_000
"""


def test_a_speech_model_is_pulled_listed_used_and_removed(
    speech_hub: FakeHub, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.inference.speech.check_installed", lambda: None)
    before = run_cli("transcribe", "shapes.mp4", "--model", "little-whisper")
    assert before.exit_code == 4
    assert "`sfvqa models pull little-whisper` (7.0 kB, licence MIT)" in before.stderr
    assert not speech_hub.requests, "only models pull asks a hub"
    run = run_cli("models", "pull", "little-whisper", "--yes")
    assert run.exit_code == 0, run.stderr
    assert f"{SPEECH_REPO} at commit {speech_hub.head}, licence MIT" in run.stderr
    folder = Path(run_cli("models", "path", "little-whisper").stdout.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == SPEECH_FILES
    (listed,) = (
        model
        for model in json.loads(run_cli("models", "list", "--json").stdout)["speech_models"]
        if model["name"] == "little-whisper"
    )
    assert (listed["available"], listed["revision"]) == (True, speech_hub.head)
    assert run_cli("models", "pull", "little-whisper", "--offline").exit_code == 0
    assert locate_speech(None).name == "little-whisper", "the one that is here is taken where none is named"
    run = run_cli("models", "remove", "little-whisper", "--yes")
    assert (run.exit_code, folder.exists()) == (0, False)
    assert run_cli("models", "path", "little-whisper").exit_code == 4


def test_a_damaged_speech_model_is_found_and_named(speech_hub: FakeHub, run_cli: RunCli) -> None:
    assert speech_hub.head
    run_cli("models", "pull", "little-whisper", "--yes")
    folder = Path(run_cli("models", "path", "little-whisper").stdout.strip())
    flip_a_bit(folder / "model.bin")
    run = run_cli("models", "verify", "little-whisper")
    assert run.exit_code == 4
    assert "1 of the 5 files of little-whisper is damaged: model.bin" in run.stderr
    assert "sfvqa models pull little-whisper" in run.stderr
    (folder / "tokenizer.json").unlink()
    partly = run_cli("models", "path", "little-whisper")
    assert "only partly downloaded" in partly.stderr
    assert "lacks tokenizer.json" in partly.stderr


def test_a_repository_that_is_no_speech_model_is_refused(speech_hub: FakeHub, run_cli: RunCli) -> None:
    speech_hub.publish({name: data for name, data in SPEECH_FILES.items() if name != "model.bin"})
    run = run_cli("models", "pull", "little-whisper", "--yes")
    assert run.exit_code == 4
    assert "is not a speech model" in run.stderr
