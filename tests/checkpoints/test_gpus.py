"""A GPU that torch cannot use is named with the remedy; where there is none, nothing is said."""

from pathlib import Path

import pytest
import torch

from sfvqa.batch.cluster.connection import Resources
from sfvqa.batch.cluster.worker import ModelLoader
from sfvqa.batch.plan import BatchModel, BatchOptions
from sfvqa.checkpoints import gpus
from sfvqa.checkpoints.device import free_memory_bytes, resolve_device
from sfvqa.checkpoints.find import ModelSettings, identify_model
from sfvqa.checkpoints.gpus import take_part, usable_gpus, why_unusable
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.checkpoints.memory import CUDA_CONTEXT_BYTES
from sfvqa.checkpoints.plan import make_plan, resolve_place
from sfvqa.errors import UsageError
from tests.fake_gpus import pretend_gpus, pretend_unused_gpu

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by …"
GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("build", "said", "reason", "remedy"),
    [
        (None, "", "is built without CUDA", "Install another build of torch"),
        ("13.0", TOO_OLD, "its driver is for CUDA 11.4 at most, and torch is built for 13.0", "Update the driver"),
        ("13.0", "CUDA unknown error - this may be due to X. Setting", "CUDA unknown error - this", "nvidia-smi"),
        ("13.0", "No CUDA GPUs are available", "No CUDA GPUs are available", "--gpus all"),
    ],
)
@pytest.mark.parametrize("device_file", [True, False])
def test_a_gpu_that_torch_cannot_reach_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    build: str | None,
    said: str,
    reason: str,
    remedy: str,
    device_file: bool,
) -> None:
    pretend_unused_gpu(monkeypatch, tmp_path, build=build, says=said, device_file=device_file)
    with pytest.raises(UsageError, match="PyTorch cannot use the NVIDIA GPU of this machine") as caught:
        resolve_device("cuda")
    assert reason in caught.value.message
    assert remedy in caught.value.remedy
    assert resolve_device("auto").type == "cpu"
    plan = make_plan(ModelSettings("tiny"), read_sizes("tiny"))
    (warning,) = plan.check()
    assert warning == f"Computing on the CPU. {caught.value.with_flags}"
    assert load_checkpoint(ModelSettings("tiny")).warnings == (warning,)
    assert make_plan(ModelSettings("tiny", device="cpu"), read_sizes("tiny")).check() == ()


@pytest.mark.parametrize(
    ("capability", "compiled_for"), [((6, 1), "sm_75 sm_80 compute_90"), ((12, 0), "sm_90 sm_100")]
)
def test_a_gpu_for_which_torch_has_no_kernels_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], compiled_for: str
) -> None:
    """It was taken, and the first kernel failed: no kernel image is available for execution on the device."""
    pretend_gpus(monkeypatch, 8e9, capability=capability, compiled_for=compiled_for)
    assert resolve_device("auto").type == "cpu"
    assert usable_gpus() == []
    version = ".".join(map(str, capability))
    with pytest.raises(UsageError, match=rf"Some GPU has compute capability {version}, and torch .* is built for sm_"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("capability", "compiled_for"),
    [((8, 9), "sm_75 sm_86"), ((9, 0), "sm_80 compute_80"), ((9, 0), "sm_90a"), ((7, 5), "")],
)
def test_a_gpu_that_torch_can_use_is_taken(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], compiled_for: str
) -> None:
    pretend_gpus(monkeypatch, 8e9, capability=capability, compiled_for=compiled_for)
    assert why_unusable() is None
    assert resolve_device("auto") == GPU
    assert usable_gpus() == [0]


def test_nothing_is_said_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_unused_gpu(monkeypatch, tmp_path, build="13.0", says="not asked for")
    monkeypatch.setattr(gpus, "DEVICE_FILES", tmp_path / "none")
    (tmp_path / "dev" / "nvidia0").rename(tmp_path / "dev" / "nvidiactl")
    assert why_unusable() is None
    monkeypatch.setattr(gpus, "DEVICE_FILES", tmp_path / "dev")
    assert why_unusable() is None, "the driver alone is no GPU"


def test_nothing_is_said_in_a_container_that_was_given_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It sees the files of the machine's driver; another build of torch would not help there."""
    pretend_unused_gpu(monkeypatch, tmp_path, build=None, device_file=False)
    assert why_unusable() is not None
    (tmp_path / "nvidia-smi").unlink()
    assert why_unusable() is None


@pytest.mark.parametrize("has_driver", [True, False])
def test_in_wsl_the_driver_of_windows_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_driver: bool) -> None:
    pretend_unused_gpu(monkeypatch, tmp_path, build=None)
    (tmp_path / "dev" / "nvidia0").rename(tmp_path / "dev" / "dxg")
    (tmp_path / "nvidia-smi").touch(mode=0o755 if has_driver else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (why_unusable() is not None) == has_driver


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_nothing_is_said_of_a_gpu_that_is_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hidden: str) -> None:
    """As Ray hides the GPUs of a node from a worker that got none."""
    pretend_unused_gpu(monkeypatch, tmp_path, build=None)
    assert why_unusable() is not None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert why_unusable() is None


@pytest.mark.parametrize(
    ("capability", "asked", "dtype", "says"),
    [
        ((8, 0), "auto", torch.bfloat16, []),
        ((7, 5), "auto", torch.float16, ["Computing in float16: the GPU has no bfloat16."]),
        ((7, 5), "float16", torch.float16, []),
        ((7, 5), "bfloat16", torch.bfloat16, ["The GPU has no bfloat16 and emulates it"]),
    ],
)
def test_bfloat16_is_taken_only_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], asked: str, dtype: torch.dtype, says: list[str]
) -> None:
    pretend_gpus(monkeypatch, 40e9, capability=capability)
    sizes, settings = read_sizes("slowfast-7b-64f"), ModelSettings("slowfast-7b-64f", dtype=asked)
    assert resolve_place(settings, sizes) == (GPU, dtype)
    plan = make_plan(settings, sizes)
    assert plan.run.dtype == str(dtype).removeprefix("torch.")
    said = (*plan.notices, *plan.check())
    assert [sentence[: len(start)] for sentence, start in zip(said, says, strict=True)] == says


def test_tiny_stays_in_float32_on_any_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 40e9, capability=(7, 5))
    assert resolve_place(ModelSettings("tiny"), read_sizes("tiny")) == (GPU, torch.float32)


def test_two_workers_that_share_a_gpu_fit_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each planned with all that was free, and the second ran out of memory."""
    machine = pretend_gpus(monkeypatch, 80e9, total=80e9)
    take_part(0.5)
    free = free_memory_bytes(GPU)
    assert free is not None
    assert 2 * (free + CUDA_CONTEXT_BYTES) == pytest.approx(80e9)
    machine.reserved_bytes = 10 * 10**9
    assert free_memory_bytes(GPU) == free - 10 * 10**9
    machine.free[0] = 5 * 10**9
    assert free_memory_bytes(GPU) == 5 * 10**9, "others may have taken more than their part"


@pytest.mark.parametrize(("share", "held"), [(0.5, True), (1.0, False), (2.0, False)])
def test_a_worker_is_held_to_its_part_of_a_gpu(monkeypatch: pytest.MonkeyPatch, share: float, held: bool) -> None:
    machine = pretend_gpus(monkeypatch, 40e9, total=40e9)
    model = BatchModel(ModelSettings("slowfast-7b-64f", random_weights=True), False, 50, None, 5, 5)
    loader = ModelLoader(model, identify_model("slowfast-7b-64f", random_weights=True), lambda: None, None)
    loaded: list[ModelSettings] = []

    def load(settings: ModelSettings) -> None:
        loaded.append(settings)

    monkeypatch.setattr("sfvqa.batch.cluster.worker.load_checkpoint", load)
    monkeypatch.setattr("sfvqa.batch.cluster.worker.VideoQA", lambda *_, **__: None)
    loader(BatchOptions(), Resources(num_cpus=4, num_gpus=share))
    assert machine.fractions == ({0: 0.5 - CUDA_CONTEXT_BYTES / 40e9} if held else {})
    assert loaded[0].quantization == ("4bit" if held else "none"), "with 19.5 GB, or 40"
