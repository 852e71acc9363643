"""A small model with random weights whose gates are open, and prompts for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sfvqa.model import IMAGE_TOKEN_ID, SlowFastConfig, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.hybrid_layer import GatedSlowAttention
from tests.model.passes import decode, prefill

ModelMaker = Callable[..., SlowFastForConditionalGeneration]


def small_config(**overrides: object) -> SlowFastConfig:
    fields: dict[str, object] = {
        "vision_config": {"image_size": 32, "depths": [1, 1], "dims": [8, 16]},
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
        },
        "temporal_stride": 2,
        "min_fast_frames": 2,
        "hybrid_layers": [0, 2],
    }
    return SlowFastConfig(**(fields | overrides))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_model() -> ModelMaker:
    """Builds a model from `small_config` with overrides; its weights are wide enough for argmax to have margins."""

    def make(**overrides: object) -> SlowFastForConditionalGeneration:
        torch.manual_seed(0)
        model = SlowFastForConditionalGeneration(small_config(**overrides))
        model.eval()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
            for module in model.modules():
                if isinstance(module, GatedSlowAttention):
                    if module.warm_up_gate.requires_grad:
                        module.warm_up_gate.fill_(1.5)
                    if module.gate_proj is not None:
                        module.gate_proj.bias.fill_(1.0)
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model: ModelMaker) -> SlowFastForConditionalGeneration:
    return make_model()


def frames(num_frames: int, seed: int = 0) -> Tensor:
    return torch.randn(num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def prompt(sample: VisualTokens | None, question: list[int]) -> list[int]:
    placeholders = [] if sample is None else [IMAGE_TOKEN_ID] * len(sample.fast)
    return [1, 2, 3, *placeholders, *question]


def left_padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    return ids, mask


def greedy(
    model: SlowFastForConditionalGeneration,
    prompts: list[list[int]],
    samples: list[VisualTokens | None],
    num_tokens: int = 12,
) -> list[list[int]]:
    """Greedy ids of a left-padded batch, by prefill and decode."""
    ids, mask = left_padded(prompts)
    chosen = []
    with torch.inference_mode():
        logits, cache = prefill(model, ids, mask, samples)
        for _ in range(num_tokens):
            chosen.append(logits.argmax(dim=-1, keepdim=True))
            mask = torch.cat([mask, torch.ones_like(chosen[-1])], dim=1)
            logits = decode(model, chosen[-1], mask, cache)
    rows: list[list[int]] = torch.cat(chosen, dim=1).tolist()
    return rows
