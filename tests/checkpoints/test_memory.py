"""The estimate's parts against the network itself, and its peak against what real runs take."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sfvqa
from sfvqa.checkpoints.memory import RunSize, estimate_memory
from sfvqa.checkpoints.plan import config_of
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model.packing import EightBitLinear, PackedLinear
from sfvqa.model.visual_tokens import split_video
from sfvqa.registry import FastTokens, QuantizationName, find_model

BENCH = find_model("bench-0.5b")
VIDEO = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
TOLERANCE = 0.10
NEW_TOKENS = 4


@pytest.mark.parametrize("num_frames", [1, 3, 8, 15, 16, 31, 64, 65, 96, 128])
@pytest.mark.parametrize(
    "fast", [FastTokens(4, 16), FastTokens(6, 16), FastTokens(4, 16, 2), FastTokens(1, 1), FastTokens(3, 4, 2, 2)]
)
def test_tokens_are_counted_as_the_network_makes_them(num_frames: int, fast: FastTokens) -> None:
    spec = find_model("slowfast-7b-64f")
    config = config_of(spec)
    for name, value in vars(fast).items():
        setattr(config, name, value)
    side = 9 if num_frames > 1 else 18
    tokens = split_video(torch.zeros(num_frames, side, side, 2), config)
    estimate = estimate_memory(spec.architecture, fast, RunSize(num_frames, "bfloat16", "cpu"))
    assert (estimate.num_slow_tokens, estimate.num_fast_tokens) == (len(tokens.slow), len(tokens.fast))


def test_an_only_frame_takes_what_its_unpooled_tokens_take() -> None:
    """Twice what two pooled frames take: slow keys and values, and the fast tokens in the KV cache."""
    spec = find_model("slowfast-7b-64f")
    one, two = (estimate_memory(spec.architecture, spec.fast_tokens, RunSize(n, "bfloat16", "cuda")) for n in (1, 2))
    assert (one.num_slow_tokens, one.num_fast_tokens) == (324, 324)
    assert one.slow_keys_values_bytes == 2 * two.slow_keys_values_bytes
    assert one.visual_tokens_bytes == 2 * two.visual_tokens_bytes == 648 * 3584 * 2
    assert one.kv_cache_bytes > two.kv_cache_bytes


def test_the_libraries_of_torch_s_cuda_build_count_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are mapped whether or not there is a GPU; on one, the host is counted by itself."""
    spec, on = find_model("slowfast-7b-64f"), (RunSize(8, "bfloat16", device) for device in ("cpu", "cuda"))
    cpu, cuda = [(run, estimate_memory(spec.architecture, spec.fast_tokens, run).peak_bytes) for run in on]
    monkeypatch.setattr("sfvqa.checkpoints.memory._is_cuda_build", lambda: True)
    for (run, before), more_bytes in ((cpu, 390_000_000), (cuda, 0)):
        assert estimate_memory(spec.architecture, spec.fast_tokens, run).peak_bytes == before + more_bytes


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_take_what_the_loaded_network_holds(quantization: str, dtype: str) -> None:
    """Every storage of a loaded `tiny`, quantized weights with all their scales."""
    spec = find_model("tiny")
    model = VideoQA.load("tiny", device="cpu", dtype=dtype, quantization=quantization).checkpoint.model
    held = {}
    for tensor in model.parameters():
        state = getattr(tensor, "quant_state", None)
        parts = [tensor, getattr(tensor, "SCB", None)]
        if state is not None:
            parts += [state.absmax, state.code, state.state2.absmax, state.state2.code, state.offset]
        for part in parts:
            if part is not None:
                held[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    packed = sum(module.weight_bytes for module in model.modules() if isinstance(module, PackedLinear | EightBitLinear))
    run = RunSize(spec.num_frames, dtype, "cpu", QuantizationName(quantization))
    expected = estimate_memory(spec.architecture, spec.fast_tokens, run).weights_bytes
    assert expected == pytest.approx(sum(held.values()) + packed, rel=0.01)


def test_4bit_7b_stays_within_12_gb_at_64_frames_and_16_at_128() -> None:
    spec = find_model("slowfast-7b-64f")
    for num_frames, limit in ((64, 12e9), (128, 16e9)):
        run = RunSize(num_frames, "bfloat16", "cuda", QuantizationName.FOUR_BIT)
        estimate = estimate_memory(spec.architecture, spec.fast_tokens, run)
        assert estimate.peak_bytes + estimate.context_bytes < limit


def test_parts_grow_with_what_makes_them() -> None:
    base = RunSize(64, "bfloat16", "cuda")

    def parts(run: RunSize) -> dict[str, int]:
        return estimate_memory(BENCH.architecture, BENCH.fast_tokens, run).parts

    longer = parts(RunSize(64, "bfloat16", "cuda", num_text_tokens=1000, max_new_tokens=1000))
    assert longer["kv_cache"] > parts(base)["kv_cache"]
    assert longer["slow_keys_values"] == parts(base)["slow_keys_values"]
    smaller_chunk = parts(RunSize(64, "bfloat16", "cuda", chunk_size=1))
    assert smaller_chunk["encode_activations"] < parts(base)["encode_activations"] / 3
    eager = parts(RunSize(64, "bfloat16", "cuda", attention="eager"))
    assert eager["prefill_activations"] > parts(base)["prefill_activations"]
    batch = parts(RunSize(64, "bfloat16", "cuda", batch_size=4))
    assert [batch[name] / parts(base)[name] for name in ("kv_cache", "slow_keys_values", "visual_tokens")] == [4, 4, 1]
    assert parts(RunSize(64, "float32", "cuda"))["weights"] == 2 * parts(base)["weights"]


@pytest.mark.parametrize(("num_frames", "held"), [(1, 1), (79, 79), (80, 80), (81, 80), (1000, 80)])
def test_frames_on_the_host_are_those_in_flight(num_frames: int, held: int) -> None:
    """One chunk is read, eight wait, one is encoded; how many frames the vision tower takes at a time is no matter."""
    side = BENCH.architecture.image_size
    for chunk_size in (1, 8):
        run = RunSize(num_frames, "float32", "cpu", chunk_size=chunk_size)
        assert estimate_memory(BENCH.architecture, BENCH.fast_tokens, run).frames_bytes == held * 3 * side**2
    on_gpu = RunSize(num_frames, "float32", "cuda")
    assert estimate_memory(BENCH.architecture, BENCH.fast_tokens, on_gpu).frames_bytes == 0


def test_it_imports_no_torch() -> None:
    code = "import sys, sfvqa.checkpoints.memory; print({'torch', 'transformers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def estimated_and_measured(
    device: str, num_frames: int, dtype: str, quantization: str, model: str = "bench-0.5b"
) -> tuple[int, int]:
    """The peak of a question put to a model in a process of its own."""
    spec = find_model(model)
    command = [
        sys.executable, "-m", "sfvqa", "ask", str(VIDEO), "What?", "--model", model, "--random-weights",
        "--sampling", "uniform", "--device", device, "--frames", str(num_frames), "--dtype", dtype,
        "--quant", quantization, "--max-new-tokens", str(NEW_TOKENS), "--json", "--quiet", "--no-cache",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    answer = json.loads(run.stdout)
    size = RunSize(
        num_frames,
        dtype,
        device,
        QuantizationName(quantization),
        num_text_tokens=answer["tokens"]["prompt"] - answer["tokens"]["fast"],
        max_new_tokens=NEW_TOKENS,
    )
    return estimate_memory(spec.architecture, spec.fast_tokens, size).peak_bytes, answer["peak_memory_bytes"]


MEASURED = [
    (8, "bfloat16", "none"),
    *(
        pytest.param(*case, marks=pytest.mark.soak)
        for case in (
            (8, "bfloat16", "8bit"),
            (8, "bfloat16", "4bit"),
            (8, "float32", "none"),
            (8, "float32", "4bit"),
            (32, "bfloat16", "none"),
            (32, "bfloat16", "8bit"),
            (32, "float32", "8bit"),
            (64, "float32", "none"),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory as Linux counts it")
@pytest.mark.parametrize(("num_frames", "dtype", "quantization"), MEASURED)
def test_the_estimated_peak_is_within_a_tenth_of_the_measured_one(
    num_frames: int, dtype: str, quantization: str
) -> None:
    """In 8 bit it was off by a quarter while malloc kept what the tensors of a prompt left between each other."""
    estimated, measured = estimated_and_measured("cpu", num_frames, dtype, quantization)
    assert estimated == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory as Linux counts it")
@pytest.mark.parametrize(
    ("model", "num_frames", "dtype"),
    [
        ("bench-smolvlm2-500m", 8, "bfloat16"),
        ("bench-llava-0.5b", 4, "bfloat16"),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in (
                ("bench-smolvlm2-500m", 8, "float32"),
                ("bench-llava-0.5b", 4, "float32"),
                ("bench-smolvlm2-500m", 64, "bfloat16"),
                ("bench-llava-0.5b", 32, "bfloat16"),
            )
        ),
    ],
)
def test_the_estimated_peak_of_plain_video_models_is_near_the_measured_one(
    model: str, num_frames: int, dtype: str
) -> None:
    """At the most frames the prompt takes the peak, at a few the vision tower or loading.

    Within 4 % on a quiet machine; beside other tests as much as a tenth more was measured once.
    """
    estimated, measured = estimated_and_measured("cpu", num_frames, dtype, "none", model)
    assert 0.88 * measured <= estimated <= 1.05 * measured


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [8, 32, 64])
@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_the_estimated_peak_is_within_a_tenth_on_cuda(num_frames: int, quantization: str) -> None:
    """`peak_memory_bytes` is torch.cuda.max_memory_allocated there."""
    estimated, measured = estimated_and_measured("cuda", num_frames, "bfloat16", quantization)
    assert estimated == pytest.approx(measured, rel=TOLERANCE)
