"""A run takes the steps of `ask`, its stages add up, other modes compute what they say, and no hook stays behind."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttentionScope, VisualTokens
from sfvqa.profiling.baselines import Baseline, run_baseline
from sfvqa.profiling.measuring import (
    ALL_IN_PROMPT,
    PeakMemory,
    Run,
    Work,
    measure_run,
    prompt_ids,
    see,
    size_of,
    split_again,
    splitting,
    watch_parts,
)
from sfvqa.registry.architecture import PromptSize
from sfvqa.video.readers import ReadOptions

VIDEO = Path(load_demo_videos()[0].path)


@pytest.fixture(scope="module")
def qa() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def work(qa: VideoQA) -> Work:
    return Work("Which digit is shown?", 12, ReadOptions(), qa.default_crop)


@pytest.fixture(scope="module")
def run(qa: VideoQA, work: Work) -> Run:
    """More tokens than tiny has to say: its answer ends after nine."""
    return measure_run(qa.checkpoint, VIDEO, 32, work)


def test_the_stages_add_up_to_the_first_token(run: Run) -> None:
    figures = run.figures
    seeing = figures.preprocess_seconds + figures.vision_tower_seconds + figures.projector_seconds
    reading = figures.open_seconds + figures.read_seconds
    assert figures.overlap_seconds == 0
    assert figures.ttft_after_reading_seconds == pytest.approx(figures.ttft_seconds - reading)
    choosing = figures.ttft_after_reading_seconds - seeing - figures.prefill_seconds
    assert 0 < choosing < 0.1
    parts = [value for name, value in vars(figures).items() if name != "overlap_seconds"]
    assert min(parts) > 0
    assert figures.slow_keys_values_seconds < figures.prefill_seconds
    assert figures.total_seconds == pytest.approx(figures.ttft_seconds + 11 * figures.decode_seconds_per_token)


def test_it_sees_what_ask_sees(run: Run, qa: VideoQA) -> None:
    """At the number of frames it was trained with, the model's own fast tokens."""
    encoded = qa.encode(VIDEO)
    assert encoded.indices == run.encoded.indices
    assert torch.equal(encoded.visual_tokens.slow, run.encoded.visual_tokens.slow)
    assert torch.equal(encoded.visual_tokens.fast, run.encoded.visual_tokens.fast)


def test_reading_ahead_is_measured_as_such(qa: VideoQA, work: Work) -> None:
    ahead = Work(work.question, 2, work.reading, work.crop, overlap=True)
    seen = see(qa.checkpoint, VIDEO, 64, ahead)
    assert seen.encoded.overlap_seconds > 0
    assert 0 < seen.open_seconds < seen.encoded.read_seconds


def test_hooks_are_gone_afterwards_whatever_happens(qa: VideoQA) -> None:
    model = qa.checkpoint.model

    def num_hooks() -> int:
        modules: list[nn.Module] = list(model.modules())
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)

    before = num_hooks()
    with contextlib.suppress(ZeroDivisionError), watch_parts(model):
        assert num_hooks() == before + 2 + 2 * len(model.config.hybrid_layers)
        raise ZeroDivisionError
    assert num_hooks() == before


def test_a_prompt_without_a_video_has_no_slow_keys(qa: VideoQA) -> None:
    """The norm whose time would count runs on the prompt as well."""
    model = qa.checkpoint.model
    with watch_parts(model) as clocks:
        prefill(model, [[1, 2, 3]], [None])
    assert clocks.slow_keys_values.seconds == 0
    assert clocks.vision_tower.seconds == 0


def _written(qa: VideoQA, prompt: list[int], tokens: VisualTokens, num_new: int) -> list[int]:
    model = qa.checkpoint.model
    state = prefill(model, [prompt], [tokens])
    steps = list(generate_tokens(model, state, GenerationOptions(max_new_tokens=num_new), frozenset()))
    return [token.token_id for (token,) in steps if token is not None]


def test_recomputing_slow_keys_writes_the_same_tokens(qa: VideoQA, run: Run) -> None:
    """It differs in time alone: every hybrid layer projects all slow tokens at every step."""
    prompt, tokens = list(run.prompt), run.encoded.visual_tokens
    projected: list[int] = []
    layer: Any = qa.checkpoint.model.language_model.layers[2]
    counting = layer.self_attn.slow_attention.kv_proj.register_forward_hook(
        lambda _module, arguments, _output: projected.append(arguments[0].shape[1])
    )
    other = run_baseline(qa.checkpoint.model, Baseline.SLOW_RECOMPUTED, prompt, tokens, 12)
    counting.remove()
    assert projected == [512] * 12
    assert list(other.token_ids) == _written(qa, prompt, tokens, 12)
    assert len(set(other.token_ids)) > 3


def test_self_attention_only_is_the_model_without_slow(qa: VideoQA, run: Run, work: Work) -> None:
    """Gates at zero and slow tokens there, or no slow tokens: the same numbers."""
    with splitting(qa.checkpoint.model.config, ALL_IN_PROMPT):
        encoded = split_again(qa.checkpoint.model, run.encoded)
        prompt = prompt_ids(qa.checkpoint, encoded, work)
    assert prompt.count(IMAGE_TOKEN_ID) == 32 * 16
    took = run_baseline(qa.checkpoint.model, Baseline.ALL_IN_SELF_ATTENTION, prompt, encoded.visual_tokens, 6)
    with qa.checkpoint.model.without_slow():
        assert list(took.token_ids) == _written(qa, prompt, encoded.visual_tokens, 6)
    assert min(took.prefill_seconds, took.decode_seconds_per_token) > 0


@pytest.mark.parametrize(
    ("scope", "num_looking"),
    [(SlowAttentionScope.TEXT, 5), (SlowAttentionScope.TEXT_AFTER_VIDEO, 3), (SlowAttentionScope.ALL, 7)],
)
def test_who_looks_depends_on_the_scope(scope: SlowAttentionScope, num_looking: int) -> None:
    tokens = VisualTokens(torch.zeros(40, 8), torch.zeros(2, 8))
    prompt = [1, 1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 2, 2, 2]
    assert size_of(prompt, tokens, scope) == PromptSize(7, num_slow=40, num_looking=num_looking)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux takes the mark back")
def test_a_peak_is_that_of_its_own_while() -> None:
    def peak_with(num_bytes: int) -> int:
        memory = PeakMemory(torch.device("cpu"))
        _ = torch.ones(num_bytes, dtype=torch.uint8)
        peak = memory.host_bytes
        assert peak is not None
        return peak

    high, low = peak_with(400_000_000), peak_with(1_000)
    assert high - low > 300_000_000
    assert PeakMemory(torch.device("cpu")).device_bytes is None
