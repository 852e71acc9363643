"""A GPU that torch cannot use: every command that would have taken it says so, and `--device cuda` is refused."""

import json
from pathlib import Path

import pytest

import sfvqa
from tests.cli.conftest import RunCli
from tests.fake_gpus import pretend_gpus, pretend_unused_gpu

VIDEO = str(Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4")
SAID = "PyTorch cannot use the NVIDIA GPU of this machine: torch "
FEW = ("--model", "tiny", "--frames", "4", "--json")


@pytest.fixture(autouse=True)
def _a_gpu_beside_a_cpu_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    pretend_unused_gpu(monkeypatch, tmp_path / "machine", build=None)


@pytest.mark.parametrize(
    "command",
    [
        ("ask", VIDEO, "What flashes?", *FEW),
        ("ask", VIDEO, "What flashes?", *FEW, "--dry-run"),
        ("profile", VIDEO, *FEW, "--repeat", "1", "--warmup", "0", "--new-tokens", "2"),
    ],
    ids=["ask", "dry run", "profile"],
)
def test_it_is_a_warning_on_stderr_and_in_json(run_cli: RunCli, command: tuple[str, ...]) -> None:
    run = run_cli(*command)
    assert run.exit_code == 0
    (warning,) = [line for line in json.loads(run.stdout)["warnings"] if SAID in line]
    assert warning.startswith("Computing on the CPU. ")
    assert run.stderr.count(warning) == 1
    assert "Install another build of torch, as pytorch.org describes. Without the GPU: --device cpu." in run.stderr


def test_records_of_a_batch_have_it(run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    run = run_cli("batch", VIDEO, "--question", "What flashes?", "-o", str(out), *FEW)
    assert (run.exit_code, run.stderr.count(SAID)) == (0, 1)
    assert SAID in json.loads(out.read_text().splitlines()[-1])["warnings"][0]


def test_quantizing_says_it(run_cli: RunCli, tmp_path: Path) -> None:
    quantize = ("models", "quantize", "tiny")
    run = run_cli(*quantize, str(tmp_path / "auto"))
    assert (run.exit_code, run.stderr.count(f"Quantizing on the CPU. {SAID}")) == (0, 1)
    assert run_cli(*quantize, str(tmp_path / "cpu"), "--device", "cpu").stderr.count("GPU") == 0


def test_a_gpu_that_was_asked_for_is_refused_with_the_reason(run_cli: RunCli) -> None:
    run = run_cli("ask", VIDEO, "What flashes?", "--device", "cuda")
    assert run.exit_code == 2
    assert SAID in run.stderr


def test_who_asks_for_the_cpu_is_told_nothing(run_cli: RunCli) -> None:
    run = run_cli("ask", VIDEO, "What flashes?", *FEW, "--device", "cpu")
    assert (run.exit_code, run.stderr.count("GPU")) == (0, 0)


def test_doctor_says_it(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_cli("doctor")
    assert run.exit_code == 0, "ask works, on the CPU"
    assert f"  CUDA             {SAID}" in run.stdout
    assert f"  why              Computing on the CPU. {SAID}" in run.stdout
    pretend_gpus(monkeypatch, 8e9, capability=(6, 1))
    shown = json.loads(run_cli("doctor", "--json").stdout)
    assert "Some GPU has compute capability 6.1" in shown["devices"]["cuda_trouble"]
    assert shown["choice"]["device"] == "cpu"
