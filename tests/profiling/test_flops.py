"""FLOPs by formula are those that torch counts on the running network."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import Qwen3Config

from sfvqa.checkpoints.plan import architecture_of, config_of, fast_tokens_of
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, VisualTokens
from sfvqa.model.packing import PackedLinear, onednn_has_bfloat16
from sfvqa.model.slow_fast import random_model
from sfvqa.model.visual_tokens import split_video
from sfvqa.profiling.floors import count_on_model, counter
from sfvqa.profiling.measuring import fast_tokens_for, splitting
from sfvqa.registry import FastTokens, find_model
from sfvqa.registry.architecture import PromptSize, count_by_formula, prompt_size

SEVEN_B = find_model("slowfast-7b-64f")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("num_frames", [8, 32])
def test_the_formula_agrees_with_what_torch_counts_on_tiny(attention: str, num_frames: int) -> None:
    """Within 1 % is asked for; nothing in it is rounded, so that it is exact."""
    model = VideoQA.load("tiny", device="cpu", attention=attention).checkpoint.model
    width = model.config.decoder_config.hidden_size
    visual_tokens = VisualTokens(torch.randn(num_frames * 16, width), torch.randn(64, width))
    prompt = [1] * 20 + [IMAGE_TOKEN_ID] * 64 + [2] * 30
    counted = count_on_model(model, num_frames, prompt, visual_tokens)
    size = PromptSize(len(prompt), num_slow=num_frames * 16, num_looking=50)
    assert counted == count_by_formula(architecture_of(model.config), num_frames, size)


def test_heads_that_are_wider_than_their_share_count_as_they_are() -> None:
    """Qwen3's: attention is wider than the decoder, and was counted as if it were not."""
    config = config_of(find_model("tiny"))
    config.text_config = Qwen3Config(
        **{name: getattr(config.text_config, name) for name in ("vocab_size", "hidden_size", "intermediate_size")},
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        tie_word_embeddings=True,
    )
    sizes = architecture_of(config)
    assert sizes.query_size == 192 > sizes.hidden_size
    visual_tokens = VisualTokens(*(torch.randn(num, sizes.hidden_size).bfloat16() for num in (160, 16)))
    counted = count_on_model(
        random_model(config, dtype=torch.bfloat16), 10, [IMAGE_TOKEN_ID] * 16 + [2] * 9, visual_tokens
    )
    assert counted == count_by_formula(sizes, 10, PromptSize(25, num_slow=160, num_looking=9))


def test_they_agree_on_another_form_too() -> None:
    """Grouped heads, untied embeddings, more than one stage, another pooling."""
    sizes = replace(
        find_model("tiny").architecture,
        num_key_value_heads=1,
        num_layers=5,
        hybrid_layers=(1, 4),
        vision_depths=(1, 2, 1),
        vision_dims=(8, 16, 24),
        video_pooling_stride=1,
        tie_word_embeddings=False,
    )
    model = random_model(config_of(replace(find_model("tiny"), architecture=sizes)), dtype=torch.bfloat16)
    visual_tokens = VisualTokens(*(torch.randn(num, sizes.hidden_size).bfloat16() for num in (160, 16)))
    prompt = [IMAGE_TOKEN_ID] * 16 + [2] * 9
    counted = count_on_model(model, 10, prompt, visual_tokens)
    assert counted == count_by_formula(sizes, 10, PromptSize(25, num_slow=160, num_looking=9))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8, 16, 40, 96, 128])
def test_as_many_fast_frames_as_in_training_are_kept(num_frames: int) -> None:
    """Whatever the number of frames; and what the formula expects is what the split gives."""
    config = config_of(find_model("tiny"))
    of_a_frame = 16 if num_frames > 1 else 64
    slow = torch.randn(num_frames * of_a_frame, 8)
    side = config.grid_side(num_frames)
    with splitting(config, fast_tokens_for(FastTokens(8, 4), num_frames)):
        tokens = split_video(slow.view(num_frames, side, side, 8), config)
    assert len(tokens.fast) == of_a_frame * min(num_frames, config.min_fast_frames)
    assert torch.equal(tokens.slow, slow)
    assert fast_tokens_for(FastTokens(8, 4), num_frames).num_averages(num_frames) * of_a_frame == len(tokens.fast)
    size = prompt_size(architecture_of(config), fast_tokens_for(FastTokens(8, 4), num_frames), num_frames, num_text=5)
    assert size == PromptSize(len(tokens.fast) + 5, len(tokens.slow), num_looking=5)


@pytest.mark.parametrize("num_frames", [8, 16, 40, 64, 128, 256])
def test_frames_are_left_out_where_the_model_leaves_them_out(num_frames: int) -> None:
    """A converted video model averages none of its base's tokens: they were, into some it was never trained on."""
    fast = fast_tokens_for(FastTokens(1, 16, temporal_sampling_stride=8), num_frames)
    assert fast.temporal_stride == 1
    assert fast.num_averages(num_frames) == min(num_frames, 16)


def test_in_training_nothing_is_another() -> None:
    """At the number of frames it was trained with, the model's own split; and its config stays as it was."""
    config = config_of(SEVEN_B)
    before = config.to_dict()
    assert fast_tokens_for(fast_tokens_of(config), 64) == fast_tokens_of(config)
    with splitting(config, FastTokens(6, 16)):
        assert len(split_video(torch.randn(96, 9, 9, 4), config).fast) == 16 * 81
    assert config.to_dict() == before


@pytest.mark.skipif(not onednn_has_bfloat16(), reason="oneDNN computes no bfloat16 here")
def test_packed_layers_are_counted_as_the_plain_ones_are() -> None:
    """A model in bfloat16 on the CPU would seem to compute nothing but attention."""
    linear, states = nn.Linear(24, 40).to(torch.bfloat16), torch.zeros(2, 3, 24, dtype=torch.bfloat16)
    counts = []
    with torch.inference_mode():
        for layer in (linear, PackedLinear(linear)):
            with counter() as counted:
                layer(states)
            counts.append(counted.get_total_flops())
    assert counts == [2 * 2 * 3 * 24 * 40] * 2
