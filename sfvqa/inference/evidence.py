"""Which frames an answer looked at, from where its slow attention went: a hint where to look, no proof.

What counts are the positions that wrote the answer, each one a token: the last of the prompt and every new token but
the last. Where writing does not look, because choices are compared or slow attention ends with the prompt, all
positions of the question count, and those of the choice. Kernels give no weights, so they are computed beside them, and
only while somebody records. sfvqa/lab/tiny/README.md says how often it is the moment asked for.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfvqa.inference.answer import FrameEvidence
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.prompt import BuiltPrompt
from sfvqa.model import IMAGE_TOKEN_ID
from sfvqa.model.hybrid_layer import GatedSlowAttention, SlowKeysValues
from sfvqa.model.visual_tokens import VisualTokens

_MAX_WEIGHTS_BYTES = 64 * 2**20


class SlowAttentionRecorder:
    """Adds up `|gate| · softmax(q k_sᵀ/√d)` of a batch, over positions, heads and hybrid layers, by slow token.

    `|gate|` is the warm-up gate times the position's dynamic gate: what a layer does not let through counts nothing.
    Passes of the model are recorded while a `recording` block runs; those of some of the batch's rows alone, too.
    """

    def __init__(self, model: nn.Module, visual_tokens: Sequence[VisualTokens | None]) -> None:
        self._modules = [module for module in model.modules() if isinstance(module, GatedSlowAttention)]
        self._num_slow = [0 if tokens is None else len(tokens.slow) for tokens in visual_tokens]
        self._totals: Tensor | None = None
        self._sent: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    @contextlib.contextmanager
    def recording(self, rows: Sequence[int], num_last: Sequence[int]) -> Iterator[None]:
        """Record the last `num_last[i]` positions of every pass's row i, which is the batch's row `rows[i]`."""

        def record(module: GatedSlowAttention, arguments: Any) -> None:
            query, attended, slow = arguments
            counted = self._on(query.device, num_last)
            self._add(rows, _weights(module, query, attended, slow, counted, max(num_last)))

        with contextlib.ExitStack() as hooks:
            if max(num_last, default=0) > 0:
                for module in self._modules:
                    hooks.callback(module.register_forward_pre_hook(record).remove)
            yield

    def of_row(self, row: int) -> Tensor:
        """What went to each slow token of one row's video, `[S]` in float32 on the CPU; of no video, nothing."""
        if self._totals is None:
            return torch.zeros(self._num_slow[row])
        return self._totals[row, : self._num_slow[row]].cpu()

    def _add(self, rows: Sequence[int], weights: Tensor) -> None:
        if self._totals is None:
            self._totals = weights.new_zeros(len(self._num_slow), max(self._num_slow))
        places = self._on(self._totals.device, rows)
        self._totals[:, : weights.shape[1]].index_add_(0, places, weights.to(self._totals.device))

    def _on(self, device: torch.device, numbers: Sequence[int]) -> Tensor:
        """Numbers on a device, which has to be waited for: of every layer and token they are mostly the same."""
        key = tuple(numbers), device
        if key not in self._sent:
            self._sent[key] = torch.tensor(numbers, device=device)
        return self._sent[key]


def _weights(
    module: GatedSlowAttention, query: Tensor, attended: Tensor, slow: SlowKeysValues, num_last: Tensor, longest: int
) -> Tensor:
    """What goes to each slow token `[B, S]` from the last positions of a pass, as far as they have a video.

    Of each sample they are `num_last` `[B]`, at most `longest`. `query` is `[B, heads, L, d]`, `attended`
    `[B, L, heads · d]`. A few positions at a time bound the memory.
    """
    num_heads = query.shape[1]
    backwards = torch.arange(longest, 0, -1, device=query.device)
    counts = (backwards <= num_last[:, None]) & slow.looking.is_real[:, :1]
    strength = module.gate(attended[:, -longest:]).squeeze(-1).float().abs() * counts
    grouped = query[:, :, -longest:].unflatten(1, (module.num_key_value_heads, -1))
    keys = slow.keys.transpose(-1, -2)
    bias = 0.0 if slow.padding_bias is None else slow.padding_bias.float()
    at_a_time = max(1, _MAX_WEIGHTS_BYTES // (4 * len(query) * num_heads * keys.shape[-1]))
    total = torch.zeros(len(query), keys.shape[-1], device=query.device)
    for start in range(0, longest, at_a_time):
        part = slice(start, start + at_a_time)
        # Heads that share keys go in as more queries of one head: to broadcast the keys would be to copy them.
        scores = (grouped[:, :, :, part].flatten(2, 3) @ keys).float() * module.head_dim**-0.5
        weights = (scores + bias).softmax(dim=-1).unflatten(2, (grouped.shape[2], -1))
        total += torch.einsum("bkgns,bn->bs", weights, strength[:, part])
    return total


NOTHING_LOOKED_AT = "There is no evidence: the model's gates let none of what it sees in single frames through."


def weigh_frames(encoded: EncodedVideo, weights: Tensor) -> tuple[FrameEvidence, ...]:
    """What went to each slow token `[S]`, added up by frame, as shares of 1; nothing where nothing went anywhere."""
    total = float(weights.double().sum())
    if not total > 0:
        return ()
    of_frames = weights.double().view(len(encoded.indices), -1).sum(dim=1) / total
    return tuple(map(FrameEvidence, encoded.timestamps_seconds, encoded.indices, of_frames.tolist()))


def num_question_tokens(prompt: BuiltPrompt) -> int:
    """How many tokens a prompt has behind the video and its subtitles: question, template, and the turn's end."""
    behind_video = prompt.token_ids[::-1].index(IMAGE_TOKEN_ID)
    return behind_video - (prompt.subtitles.tokens if prompt.subtitles else 0)
