"""`sfvqa ask --dry-run`, `--quant auto` and `--frames auto`: what is chosen by the free memory, and said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sfvqa
from sfvqa.checkpoints import plan
from sfvqa.checkpoints.device import free_memory_bytes
from sfvqa.checkpoints.find import identify_model
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model.quantization import Quantization, quantization_config
from sfvqa.video import SamplingOptions
from tests.cli.conftest import RunCli
from tests.inference.video_cache.seen import key_of, seen_of

VIDEO = str(Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4")
BIG = ("--model", "slowfast-7b-64f")


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(*_args: object, **_settings: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("sfvqa.checkpoints.load.load_checkpoint", load)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("sfvqa.checkpoints.duration.measure_cpu_speed", lambda _dtype: 1e11)
    monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: 100 * 10**9)


def free(monkeypatch: pytest.MonkeyPatch, num_bytes: float) -> None:
    monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: int(num_bytes))


def dry_run(run_cli: RunCli, *arguments: str) -> dict[str, object]:
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", "--json", "-q", *arguments)
    document: dict[str, object] = json.loads(run.stdout)
    memory = document["memory"]
    assert isinstance(memory, dict)
    assert run.exit_code == (0 if memory["fits"] else 5)
    return document


def test_it_says_everything_in_lines(run_cli: RunCli) -> None:
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", *BIG)
    assert run.exit_code == 0
    for words in ("slowfast-7b-64f on cpu in float32, quantization none", "64 frames from 0:00", "5,184 slow tokens",
                  "1,296 fast tokens", "free: 100.0 GB", "about 49 minutes on this CPU", "fits    yes"):  # fmt: skip
        assert words in run.stdout
    assert "\nOn this CPU this takes about 49 minutes" in run.stderr
    assert "Warning: The model slowfast-7b-64f is not on this machine." in run.stderr
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", "--random-weights", *BIG)
    assert "not on this machine" not in run.stderr


def test_a_video_that_is_kept_for_one_model_can_be_planned_for_one_that_is_not_here(run_cli: RunCli) -> None:
    """Which weights it would be kept for cannot be known without them; then it is not kept for them."""
    cache = VideoCache()
    assert cache.save(replace(key_of(), content=cache.content_of(VIDEO)), seen_of()) is None
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", *BIG)
    assert (run.exit_code, "64 frames from 0:00" in run.stdout) == (0, True)


def test_a_video_that_was_seen_takes_less_time(run_cli: RunCli) -> None:
    """Nine tenths of it are the vision tower's."""
    cache, flags = VideoCache(), (*BIG, "--random-weights")
    key = replace(
        key_of(),
        content=cache.content_of(VIDEO),
        sampling=SamplingOptions(num_frames=64),
        checkpoint=identify_model(BIG[1], random_weights=True),
    )
    before = dry_run(run_cli, *flags)["seconds_on_cpu"]
    seen = replace(
        seen_of(), visual_tokens=torch.zeros(64, 1, 1, 1), indices=(*range(64),), timestamps_seconds=(0.0,) * 64
    )
    assert cache.save(key, seen) is None
    after = dry_run(run_cli, *flags)["seconds_on_cpu"]
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert 0 < after < before / 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_a_device_that_is_not_here_is_planned_for(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What will a GPU take that is yet to be rented? It was refused."""
    monkeypatch.setattr(plan, "free_memory_bytes", free_memory_bytes)  # as it is
    run = run_cli("ask", VIDEO, "Q?", *BIG, "--dry-run", "--device", "cuda", "--json", "-q")
    document = json.loads(run.stdout)
    assert (run.exit_code, document["device"], document["dtype"]) == (0, "cuda", "bfloat16")
    assert (document["memory"]["fits"], document["memory"]["free_bytes"]) == (None, None)
    assert document["memory"]["needed_bytes"] > 17e9
    assert document["warnings"][0] == "This machine has no CUDA device, so what fits on one is unknown."
    assert "fits    unknown" in run_cli("ask", VIDEO, "Q?", *BIG, "--dry-run", "--device", "cuda").stdout
    assert run_cli("ask", VIDEO, "Q?", *BIG, "--device", "cuda").exit_code != 0


def test_a_model_that_is_not_here_comes_with_how_to_get_it(run_cli: RunCli) -> None:
    """It said that it fits, and no word of that there is nothing to run."""
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", *BIG)
    assert "fits    yes; it cannot run yet: see the warning" in run.stdout
    assert "is not on this machine. Download it with `sfvqa models pull slowfast-7b-64f` (17.0 GB" in run.stderr
    assert "fits    yes\n" in run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", "-m", "tiny").stdout


def test_the_bundled_model_as_json(run_cli: RunCli) -> None:
    document = dry_run(run_cli)
    frames, tokens = document["frames"], document["tokens"]
    assert isinstance(frames, dict)
    assert isinstance(tokens, dict)
    assert (document["model"], document["dry_run"], frames["count"]) == ("tiny", True, 32)
    assert (tokens["slow"], tokens["fast"]) == (512, 64)
    assert len(frames["timestamps_seconds"]) == len(frames["indices"]) == 32


@pytest.mark.parametrize(
    ("gigabytes", "quantization", "count"), [(100, "none", 64), (30, "8bit", 64), (18, "4bit", 64)]
)
def test_auto_takes_the_best_quantization_that_fits(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, gigabytes: float, quantization: str, count: int
) -> None:
    free(monkeypatch, gigabytes * 1e9)
    document = dry_run(run_cli, *BIG, "--frames", "auto")
    frames, notices = document["frames"], document["notices"]
    assert isinstance(frames, dict)
    assert isinstance(notices, list)
    if document["quantization"] != "none":
        assert str(document["quantization"]) in notices[0]
    assert (document["quantization"], frames["count"]) == (quantization, count)


def test_frames_auto_takes_fewer_and_warns_that_training_had_more(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = dry_run(run_cli, *BIG, "--quant", "4bit")["memory"]
    assert isinstance(full, dict)
    free(monkeypatch, full["needed_bytes"] - 10**6)
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", *BIG, "--frames", "auto")
    assert run.exit_code == 0
    assert "Using 56 of 64 frames, the most that fit" in run.stderr
    assert "56 frames from 0:00" in run.stdout
    assert "trained with 64 frames (here 56)" in run.stderr


def test_what_does_not_fit_exits_with_5_and_a_remedy(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 30e9)
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", *BIG, "--quant", "none")
    assert run.exit_code == 5
    assert "fits    no. --quant 8bit should fit" in run.stdout


def test_without_dry_run_auto_refuses_what_cannot_fit(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 3e9)
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", *BIG, "--random-weights")
    assert run.exit_code == 5
    assert "slowfast-7b-64f in 4bit with 64 frames needs about" in run.stderr


def test_what_is_asked_for_by_name_is_tried_with_a_warning(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 30e9)
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", *BIG, "--random-weights", "--quant", "none")
    assert "Warning: slowfast-7b-64f unquantized with 64 frames needs about" in run.stderr
    assert "loaded" in run.stderr  # what the fixture says of loading


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_frames_is_a_number_or_auto(run_cli: RunCli, value: str) -> None:
    run = run_cli("ask", VIDEO, "Q?", f"--frames={value}")
    assert run.exit_code == 2
    assert "--frames" in run.stderr


def test_attention_that_cannot_be_computed_is_refused_without_loading(run_cli: RunCli) -> None:
    """It was said to fit, and refused only by the run itself."""
    run = run_cli("ask", VIDEO, "Q?", "--device", "cpu", "--dry-run", "--attention", "flash_attention_2")
    assert run.exit_code == 2
    assert "flash-attn" in run.stderr


def test_a_quantization_that_loading_refuses_is_refused_without_loading(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in 4 bits does not become one in 8, and bitsandbytes does not run on MPS: both were said to fit."""
    copy = tmp_path / "copy"
    shutil.copytree(Path(sfvqa.__file__).parent / "assets" / "tiny", copy)
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = quantization_config(Quantization.FOUR_BIT)
    (copy / "config.json").write_text(json.dumps(config))
    assert run_cli("ask", VIDEO, "Q?", "--model", str(copy), "--device", "cpu", "--dry-run").exit_code == 0
    run = run_cli("ask", VIDEO, "Q?", "--model", str(copy), "--device", "cpu", "--dry-run", "--quant", "8bit")
    assert (run.exit_code, "Use --quant 4bit" in run.stderr) == (2, True)
    monkeypatch.setattr(plan, "resolve_device", lambda _name, **_: torch.device("mps"))
    run = run_cli("ask", VIDEO, "Q?", "--dry-run", "--quant", "4bit")
    assert (run.exit_code, "4bit does not run on mps" in run.stderr) == (2, True)
