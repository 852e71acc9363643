"""Every number of the golden folder: the reference's own, computed with the published code at small scale.

Nothing here knows the sizes of one folder; `SFVQA_GOLDEN` may name another of the same form, with only some of the
cases and files.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sfvqa.inference.engine import decode
from sfvqa.inference.prefill import prefill
from sfvqa.model import SlowAttention, SlowFastForConditionalGeneration
from sfvqa.model.families.slowfast import FAMILY, read_published
from sfvqa.video import SamplingOptions
from tests.golden_folder import GOLDEN
from tests.model.golden_case import GoldenCase, cases, pixel_values, see, write_frames

assert_tokens_close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=0.0)
assert_logits_close = functools.partial(torch.testing.assert_close, atol=5e-5, rtol=0.0)

load_case = functools.cache(GoldenCase.load)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not (GOLDEN / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"the golden folder has no {', '.join(missing)}")


def cases_with(*names: str) -> list[str]:
    """The cases that store all of these tensors."""
    stored = {name: load_file(GOLDEN / f"case_{name}.safetensors").keys() for name in cases()}
    return [name for name, keys in stored.items() if all(key in keys for key in names)]


def forward(case: GoldenCase, **kwargs: Any) -> Any:
    # The reference counts padding on the left as positions when its forward pass is called directly.
    position_ids = torch.arange(case.input_ids.shape[1])[None].expand_as(case.input_ids)
    if case.is_padded_left:
        kwargs["position_ids"] = position_ids
    with torch.inference_mode():
        return case.model(
            case.input_ids, attention_mask=case.attention_mask, visual_tokens=case.visual_tokens, **kwargs
        )


def greedy(case: GoldenCase, num_tokens: int, slow_attention: SlowAttention) -> tuple[Tensor, Tensor]:
    """Ids `[B, num_tokens]` and logits `[B, num_tokens, V]`, by the engine that the commands run on."""
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(case.input_ids, case.attention_mask, strict=True)]
    state = prefill(case.model, prompts, case.visual_tokens)
    if slow_attention is SlowAttention.PREFILL:
        state.cache.forget_slow()
    all_ids, all_logits = [], []
    for _ in range(num_tokens):
        all_logits.append(state.logits)
        all_ids.append(state.logits.argmax(dim=-1))
        state = decode(case.model, state, all_ids[-1])
    return torch.stack(all_ids, dim=1), torch.stack(all_logits, dim=1)


def test_the_folder_has_cases() -> None:
    assert cases(), f"no golden case in {GOLDEN}"


@needs("vision.safetensors", "frames.safetensors")
def test_vision_tower_and_projector() -> None:
    expected = load_file(GOLDEN / "vision.safetensors")
    model = SlowFastForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32)
    crop = expected["pixel_values_crop"]
    assert_tokens_close(pixel_values()[: len(crop), :, : crop.shape[2], : crop.shape[3]], crop)
    with torch.inference_mode():
        features = model.vision_tower(pixel_values()[: len(expected["vision_features"])])
        projected = model.projector(features)
    assert_tokens_close(features.flatten(1, 2), expected["vision_features"])
    assert_tokens_close(projected.flatten(1, 2), expected["projected"])


@needs("frames.safetensors")
@pytest.mark.parametrize("name", cases())
def test_slow_and_fast_tokens(name: str) -> None:
    case = load_case(name)
    for row, sample in enumerate(case.samples):
        assert_tokens_close(sample.fast, case.expected[f"fast_{row}"])
        assert_tokens_close(sample.slow, case.expected[f"slow_{row}"])


@needs("frames.safetensors", "case_image.safetensors")
@pytest.mark.parametrize("kind", ["clip", "still", "one of many"])
def test_an_only_frame_is_seen_as_the_reference_sees_a_picture(kind: str, tmp_path: Path) -> None:
    """The visual tokens of a clip of one frame, of a still, and of `--frames 1` were pooled."""
    case, (frame,) = load_case("image"), cases()["image"]["frames"][0]
    video, sampling = write_frames(tmp_path, [frame]), SamplingOptions(num_frames=32)
    if kind == "still":
        (video,) = tmp_path.iterdir()
    elif kind == "one of many":
        video, sampling = write_frames(tmp_path, [0, frame, 1]), SamplingOptions(num_frames=1)
    sample = see(case.model, video, sampling)
    assert_tokens_close(sample.fast, case.expected["fast_0"])
    assert_tokens_close(sample.slow, case.expected["slow_0"])


@pytest.mark.parametrize("name", cases())
def test_prompt_embeddings_and_logits(name: str) -> None:
    case = load_case(name)
    with torch.inference_mode():
        embeddings = case.model.embed(case.input_ids, case.visual_tokens)
    valid = case.is_valid
    assert_tokens_close(embeddings[valid], case.expected["inputs_embeds"][valid])
    assert_logits_close(forward(case).logits[valid], case.expected["logits"][valid])


@pytest.mark.parametrize("implementation", ["eager"])
@pytest.mark.parametrize("name", cases())
def test_logits_of_other_attention_implementations(name: str, implementation: str) -> None:
    case = GoldenCase.load(name)
    case.model.set_attn_implementation(implementation)
    valid = case.is_valid
    assert_logits_close(forward(case).logits[valid], case.expected["logits"][valid])


@pytest.mark.parametrize("name", cases_with("hidden_states"))
def test_hidden_states_of_every_layer(name: str) -> None:
    case = load_case(name)
    hidden_states = forward(case, output_hidden_states=True).hidden_states
    assert len(hidden_states) == len(case.expected["hidden_states"])
    for layer, expected in zip(hidden_states, case.expected["hidden_states"], strict=True):
        assert_logits_close(layer[case.is_valid], expected[case.is_valid])


@pytest.mark.parametrize("name", cases_with("labels", "loss"))
def test_loss(name: str) -> None:
    case = load_case(name)
    loss = forward(case, labels=case.labels).loss
    assert_logits_close(loss, case.expected["loss"].squeeze())


GENERATIONS = [
    (name, suffix, mode)
    for suffix, mode in (("", SlowAttention.PREFILL), ("_slow_on_decode", SlowAttention.ALWAYS))
    for name in cases_with(f"generated_ids{suffix}")
]


@pytest.mark.parametrize(("name", "suffix", "mode"), GENERATIONS)
def test_generated_ids_and_logits(name: str, suffix: str, mode: SlowAttention) -> None:
    case = load_case(name)
    expected = case.expected[f"generated_ids{suffix}"]
    ids, logits = greedy(case, expected.shape[1], mode)
    assert ids.tolist() == expected.tolist()
    if f"generated_logits{suffix}" in case.expected:
        assert_logits_close(logits, case.expected[f"generated_logits{suffix}"])


@pytest.mark.parametrize(("name", "suffix", "mode"), GENERATIONS)
def test_generate_of_transformers_gives_the_same_ids(name: str, suffix: str, mode: SlowAttention) -> None:
    case = load_case(name)
    expected = case.expected[f"generated_ids{suffix}"]
    ids = case.model.generate(
        case.input_ids,
        attention_mask=case.attention_mask,
        visual_tokens=case.visual_tokens,
        slow_attention=mode,
        max_new_tokens=expected.shape[1],
        do_sample=False,
    )
    assert ids[:, case.input_ids.shape[1] :].tolist() == expected.tolist()


@needs("full_manifest.json")
def test_the_full_size_model_has_every_published_tensor() -> None:
    manifest = json.loads((GOLDEN / "full_manifest.json").read_text())
    fields = published_config()
    with torch.device("meta"):
        model = SlowFastForConditionalGeneration(read_published(GOLDEN, fields))
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    published = {FAMILY.rename_tensor(name): shape for name, (shape, _) in manifest["tensors"].items()}
    unused = {name for name in published if any(re.match(pattern, name) for pattern in FAMILY.unused_tensors)}
    assert ours == {name: shape for name, shape in published.items() if name not in unused}


def published_config() -> dict[str, Any]:
    """The published 7B's fields, as derived from the paper, the training scripts and the tensors' shapes."""
    return {
        "model_type": "llava_qwen_slow_fast",
        "mm_vision_tower": "convnext-576",
        "mm_hidden_size": 3072,
        "mm_projector_type": "mlp2x_gelu",
        "mm_video_pooling_stride": 2,
        "cross_attn_every_n_layers": 8,
        "cross_attn_min_layer_depth": 0,
        "cross_attn_max_layer_depth": 28,
        "cross_attn_implementation": "text-only-vanilla-flashattn",
        "cross_attn_gating_type": "whole-dynamic-tanh-warmup",
        "fast_token_temporal_stride": 4,
        "fast_token_temporal_sampling_stride": 1,
        "fast_token_spatial_stride": 1,
        "min_fast_frames": 16,
        "tokenizer_model_max_length": 4096,
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
    }
