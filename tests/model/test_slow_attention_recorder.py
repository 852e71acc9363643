"""What is recorded of slow attention is what its definition says, of the positions that were asked for alone."""

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor

from sfvqa.inference import evidence as recording
from sfvqa.inference.evidence import SlowAttentionRecorder
from sfvqa.model import Gating, SlowAttentionScope, SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import GatedSlowAttention, LookingPositions, SlowKeysValues
from tests.model.conftest import ModelMaker, frames, left_padded, prompt
from tests.model.decoders import DECODERS
from tests.model.passes import decode, prefill


def slow_attention(model: SlowFastForConditionalGeneration) -> list[GatedSlowAttention]:
    return [module for module in model.modules() if isinstance(module, GatedSlowAttention)]


class ByDefinition:
    """Computes it a position, head and layer at a time, from what reaches the layers."""

    def __init__(self, row: int, num_last: int, num_slow: int) -> None:
        self.row, self.num_last = row, num_last
        self.total = torch.zeros(num_slow)

    def __call__(self, module: torch.nn.Module, arguments: tuple[Tensor, Tensor, SlowKeysValues]) -> None:
        assert isinstance(module, GatedSlowAttention)
        query, attended, slow = (arguments[0][self.row], arguments[1][self.row], arguments[2])
        keys = slow.keys[self.row]
        warm_up = torch.tanh(module.warm_up_gate) if module.squash_warm_up else module.warm_up_gate
        for position in range(1, self.num_last + 1):
            dynamic = 1 if module.gate_proj is None else torch.tanh(module.gate_proj(attended[-position]))
            gate = (dynamic * warm_up).abs()
            for head in range(len(query)):
                scores = keys[head * len(keys) // len(query), : len(self.total)] @ query[head, -position]
                self.total += gate * (scores / module.head_dim**0.5).softmax(dim=0)


@pytest.mark.parametrize(
    "overrides",
    [
        *({"slow_attention_scope": scope} for scope in SlowAttentionScope),
        *({"gating": gating} for gating in Gating),
        *({"text_config": decoder} for decoder in DECODERS.values()),
    ],
    ids=[*SlowAttentionScope, *(f"gating {gating}" for gating in Gating), *DECODERS],
)
def test_it_is_gated_attention_of_the_last_positions(make_model: ModelMaker, overrides: dict[str, object]) -> None:
    """Two rows of different videos and prompts; the row of the batch that each is comes second and first."""
    model = make_model(**overrides)
    with torch.inference_mode():
        samples = [model.encode_video(frames(length)) for length in (6, 4)]
        ids, mask = left_padded([prompt(samples[0], [7, 8, 9]), prompt(samples[1], [5, 6, 7, 8])])
        recorder = SlowAttentionRecorder(model, [samples[1], None, samples[0]])
        expected = [ByDefinition(row, count, len(samples[row].slow)) for row, count in enumerate((3, 1))]
        hooks = [module.register_forward_pre_hook(each) for module in slow_attention(model) for each in expected]
        with recorder.recording([2, 0], [3, 1]):
            _, cache = prefill(model, ids, mask, samples)
            longer = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
        for each, count in zip(expected, (1, 0), strict=True):
            each.num_last = count
        with recorder.recording([2, 0], [1, 0]):
            decode(model, torch.tensor([[5], [6]]), longer, cache)
        for hook in hooks:
            hook.remove()
        decode(model, torch.tensor([[5], [6]]), torch.cat([longer, longer[:, -1:]], dim=1), cache)  # nobody records it
    torch.testing.assert_close(recorder.of_row(2), expected[0].total)
    torch.testing.assert_close(recorder.of_row(0), expected[1].total)
    assert recorder.of_row(1).shape == (0,)


@pytest.fixture
def pass_over_two() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, what self-attention gave, and keys of one layer, nine positions and six slow tokens."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(2, 4, 9, 8, generator=generator),
        torch.randn(2, 9, 32, generator=generator),
        torch.randn(2, 2, 6, 8, generator=generator),
    )


def test_long_ends_go_a_few_positions_at_a_time(
    make_model: ModelMaker, pass_over_two: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is padding in the shorter video gets nothing; a row without a video has none."""
    module, (query, attended, keys) = slow_attention(make_model())[0], pass_over_two
    bias = torch.zeros(2, 1, 1, 6)
    bias[1, ..., 4:] = torch.finfo(torch.float32).min
    sizes: list[int] = []
    softmax = Tensor.softmax

    def counting(scores: Tensor, dim: int) -> Tensor:
        sizes.append(scores.numel() * 4)
        return softmax(scores, dim=dim)

    def record(has_video: list[list[bool]]) -> Tensor:
        slow = SlowKeysValues(keys, keys, bias, LookingPositions(None, torch.tensor(has_video)))
        return recording._weights(module, query, attended, slow, torch.tensor([7, 2]), 7)

    with torch.inference_mode():
        whole = record([[True], [True]])
        monkeypatch.setattr(Tensor, "softmax", counting)
        monkeypatch.setattr(recording, "_MAX_WEIGHTS_BYTES", 2 * 4 * 6 * 4 * 2)
        torch.testing.assert_close(record([[True], [True]]), whole)
        assert (len(sizes), max(sizes)) == (4, 2 * 4 * 6 * 4 * 2)
        assert record([[True], [False]])[1].tolist() == [0] * 6
    assert whole[1, 4:].tolist() == [0, 0]
    assert (whole[0] > 0).all()


def test_it_is_where_the_layers_are(make_model: ModelMaker) -> None:
    """Nothing is mixed with the CPU: `meta` stands for another device, as in test_devices."""
    model = make_model()
    with torch.inference_mode():
        samples = [model.encode_video(frames(length)) for length in (6, 4)]
        ids, mask = left_padded([prompt(sample, [7, 8]) for sample in samples])
        for module in (*model.language_model.layers, model.language_model.norm, model.lm_head):
            add_hook_to_module(module.to("meta"), AlignDevicesHook(execution_device="meta"))
        recorder = SlowAttentionRecorder(model, samples)
        with recorder.recording([0, 1], [2, 2]):
            prefill(model, ids, mask, samples)
    assert recorder._totals is not None
    assert (recorder._totals.device.type, recorder._totals.shape) == ("meta", (2, len(samples[0].slow)))


def test_in_bfloat16_it_is_about_the_same(make_model: ModelMaker) -> None:
    """Scores are made as eager attention makes them, and shares of them added up in float32."""
    shares = []
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model()
        torch.nn.Module.to(model, dtype)
        with torch.inference_mode():
            sample = model.encode_video(frames(6))
            ids, mask = left_padded([prompt(sample, [7, 8, 9])])
            recorder = SlowAttentionRecorder(model, [sample])
            with recorder.recording([0], [3]):
                prefill(model, ids, mask, [sample])
        total = recorder.of_row(0)
        assert total.dtype is torch.float32
        shares.append(total / total.sum())
    torch.testing.assert_close(*shares, rtol=0.1, atol=0.01)
