"""`sfvqa serve` but for serving: what contradicts itself, what it is planned for, which servers run, and their end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.plan import make_plan
from sfvqa.cli import serve
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import CacheOptions, Count, OutputOptions
from sfvqa.cli.serve import ServerOptions
from tests.cli.conftest import RunCli
from tests.fake_gpus import pretend_gpus
from tests.windows import named_windows

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "Add --api-key"),
        (["--host", "192.168.0.2"], "Add --api-key"),
        (["--api-key", " "], "The API key is empty"),
        (["--folder", "absent"], "is no folder"),
        (["--memory", "much"], "not a size"),
        (["--batch-size", "0"], "neither a whole number above 0 nor auto"),
        (["--status", "--stop"], "contradict each other"),
    ],
)
def test_what_contradicts_itself_is_refused(run_cli: RunCli, arguments: list[str], says: str) -> None:
    outcome = run_cli("serve", *arguments)
    assert outcome.exit_code == 2
    assert says in " ".join(outcome.stderr.split())


def test_an_open_host_with_a_key_is_one(tmp_path: Path) -> None:
    assert ServerOptions(host="0.0.0.0", api_key="secret", folder=[tmp_path]).host == "0.0.0.0"


def test_as_much_is_taken_on_as_was_planned() -> None:
    """Frames beyond the model's own take the place of other answers."""
    sizes, settings = read_sizes("tiny"), ModelSettings("tiny", device="cpu")
    _, planned = ServerOptions().plan(settings, sizes)
    service = ServerOptions().service(planned)
    assert (service.batch_size, service.most_frames, service.most_frames_together) == (16, 128, 16 * 32)
    few = ServerOptions(batch_size=Count(2), memory="2MB", readers=3, max_requests=5)
    service = few.service(few.plan(settings, sizes)[1])
    assert (service.batch_size, service.most_frames, service.most_frames_together) == (2, 64, 64)
    assert (service.kept_bytes, service.num_readers, service.most_requests) == (2_000_000, 3, 5)
    asked = ServerOptions(batch_size=Count(2), max_frames=200)
    service = asked.service(asked.plan(settings, sizes)[1])
    assert (service.most_frames, service.most_frames_together) == (200, 400)


@pytest.mark.parametrize("batch_size", [Count(None), Count(16)], ids=["auto", "16"])
def test_the_quantization_is_that_of_one_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch_size: Count
) -> None:
    """As `ask` chooses it, however many answers are written at a time; what they take more is said of them alone."""
    sizes, settings = read_sizes("slowfast-7b"), ModelSettings("slowfast-7b", random_weights=True)
    pretend_gpus(monkeypatch, 24e9)
    alone = make_plan(settings, sizes).settings.quantization
    assert make_plan(settings, sizes, batch_size=16, num_videos=16).settings.quantization != alone == "none"
    monkeypatch.setattr(serve, "load", lambda *_: None)
    model = ModelOptions(model="slowfast-7b", random_weights=True)
    _, served, planned = serve.load_to_serve(
        ServerOptions(batch_size=batch_size), model, CacheOptions(), OutputOptions()
    )
    assert served.quantization == alone
    assert planned.batch_size == (batch_size.number or planned.batch_size)
    assert not [sentence for kind, sentence in served.said_of_plan if kind == "warn"]
    assert ("needs about" in capsys.readouterr().err) is (batch_size.number == 16)


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[subprocess.Popen[str]]":
    """A process that is announced as a server, and takes a moment to end."""
    if os.name == "nt":
        pytest.skip("needs owners, locks and signals")
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    program = (
        "import signal, sys, time\n"
        "from tests.serve.test_status import announce\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "with announce().announced():\n"
        "    print('announced', flush=True)\n"
        "    try:\n"
        "        time.sleep(100)\n"
        "    finally:\n"
        "        time.sleep(0.3)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "announced\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_servers_that_run_are_listed(run_cli: RunCli, announced: "subprocess.Popen[str]") -> None:
    run = run_cli("serve", "--status")
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout.startswith(f"tiny at http://127.0.0.1:1, process {announced.pid}, since 20")
    assert announced.poll() is None


def test_the_list_for_programs_has_no_token(
    run_cli: RunCli, announced: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """With it they could ask for any of the user's videos, and lists are kept in logs."""
    run = run_cli("serve", "--status", "--json")
    (shown,) = map(json.loads, run.stdout.splitlines())
    assert (shown["pid"], shown["model"], shown["is_running"]) == (announced.pid, "tiny", True)
    (file,) = (tmp_path / "run").glob("*.json")
    assert json.loads(file.read_text())["token"] not in run.stdout


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_stop_leaves_once_the_server_has_ended(
    run_cli: RunCli, announced: "subprocess.Popen[str]", tmp_path: Path, form: list[str]
) -> None:
    """Also where that takes a while; afterwards there is none."""
    run = run_cli("serve", "--stop", *form)
    assert list((tmp_path / "run").glob("*.json")) == []
    assert run.exit_code == 0
    if form:
        assert not json.loads(run.stdout)["is_running"]
    else:
        assert run.stdout == f"tiny at http://127.0.0.1:1, process {announced.pid}, stopped\n"
    assert announced.wait(60) == 0
    assert run_cli("serve", "--status").stdout == ""


def test_a_server_that_does_not_end_is_said(
    run_cli: RunCli, announced: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_LAST_SECONDS", -1.0)  # and one of grace
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *_: None)
        run = run_cli("serve", "--stop")
    assert run.exit_code != 0
    assert f"kill -9 {announced.pid}" in run.stderr


def test_what_ends_a_server_by_force_is_said_in_words_of_windows_too(
    run_cli: RunCli, announced: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_LAST_SECONDS", -1.0)
    named_windows(monkeypatch, serve)
    monkeypatch.setattr("sfvqa.cli.serve.os.kill", lambda *_: None)
    assert f"taskkill /F /PID {announced.pid}" in run_cli("serve", "--stop").stderr


@pytest.mark.parametrize("what", ["--status", "--stop"])
def test_no_server_is_said_too(run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    run = run_cli("serve", what)
    assert (run.exit_code, run.stdout, run.stderr) == (0, "", "No server is running.\n")
    assert run_cli("serve", what, "--json").stdout == ""
