"""Visual tokens become slow tokens (all of them) and fast tokens (few, averaged over time and space)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfvqa.model.config import SlowFastConfig


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """What the decoder gets of one video or image: `slow` `[S, D]` to look at, `fast` `[F, D]` in the prompt."""

    slow: Tensor
    fast: Tensor

    def __post_init__(self) -> None:
        for name, tokens in (("slow", self.slow), ("fast", self.fast)):
            if tokens.ndim != 2 or tokens.shape[0] == 0:
                raise ValueError(f"{name} tokens must be [tokens, width], not {tuple(tokens.shape)}")

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "VisualTokens":
        """The same tokens elsewhere or in another dtype."""
        return VisualTokens(self.slow.to(device, dtype), self.fast.to(device, dtype))


@dataclass(frozen=True, eq=False)
class SlowTokens:
    """The slow tokens of a batch, padded to the longest sample: `tokens` `[B, S, D]`, `mask` `[B, S]` true where real.

    A sample without a video has no true entry. `is_ragged` is false when `mask` is true everywhere; it is kept
    beside the mask because asking a mask on a GPU means waiting for the GPU.
    """

    tokens: Tensor
    mask: Tensor
    is_ragged: bool

    @classmethod
    def stack(cls, samples: Sequence[VisualTokens | None]) -> "SlowTokens | None":
        """Pad and stack a batch; None when no sample has a video."""
        present = [sample.slow for sample in samples if sample is not None]
        if not present:
            return None
        lengths = [0 if sample is None else len(sample.slow) for sample in samples]
        longest = max(lengths)
        if min(lengths) == longest:
            tokens = torch.stack(present)
            return cls(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device), is_ragged=False)
        tokens = present[0].new_zeros(len(samples), longest, present[0].shape[-1])
        for row, sample in enumerate(samples):
            if sample is not None:
                tokens[row, : lengths[row]] = sample.slow
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        return cls(tokens, mask.to(tokens.device), is_ragged=True)


def pool_frames(tokens: Tensor, stride: int) -> Tensor:
    """Average `stride` × `stride` cells: `[T, h, w, D]` → `[T, h // stride, w // stride, D]`; a rest is dropped."""
    if stride == 1:
        return tokens
    return functional.avg_pool2d(tokens.permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)


def sample_fast_frames(num_frames: int, stride: int, min_frames: int) -> list[int]:
    """Indices of the frames the fast path keeps: all when there are few, else every `stride`-th, at least `min_frames`.

    >>> sample_fast_frames(11, stride=2, min_frames=7)
    [0, 1, 3, 4, 6, 7, 9]
    """
    if stride == 1 or num_frames < min_frames:
        return list(range(num_frames))
    kept = max(num_frames // stride, min_frames)
    step = num_frames / kept  # divided first, as the reference does: the other order rounds differently, if seldom
    return [min(int(i * step), num_frames - 1) for i in range(kept)]


def num_frames_outside_fast_path(num_frames: int, config: SlowFastConfig) -> int:
    """How many of the last frames fill no temporal window, so that only the slow tokens show them.

    The reference drops them silently; we keep its arithmetic and let callers say so.
    """
    kept = len(sample_fast_frames(num_frames, config.temporal_sampling_stride, config.min_fast_frames))
    if kept // config.temporal_stride < config.min_fast_frames:
        return 0
    return kept % config.temporal_stride


def average_over_time(frames: Tensor, stride: int, min_frames: int) -> Tensor:
    """Average `stride` frames at a time, or adaptively to `min_frames` when that would leave fewer.

    `[T, h, w, D]` → `[T', h, w, D]`. With whole windows, a tail that does not fill one is dropped (reference); adaptive
    windows overlap and cover every frame.
    """
    num_frames = frames.shape[0]
    flat = frames.reshape(num_frames, -1).T[None]
    if num_frames // stride >= min_frames:
        averaged = functional.avg_pool1d(flat, stride) if stride > 1 else flat
    else:
        averaged = functional.adaptive_avg_pool1d(flat, min(num_frames, min_frames))
    return averaged[0].T.reshape(-1, *frames.shape[1:])


def fast_frame_places(num_frames: int, config: SlowFastConfig) -> list[int]:
    """The places, among a video's frames, of those with which the averages of the fast tokens begin."""
    kept = sample_fast_frames(num_frames, config.temporal_sampling_stride, config.min_fast_frames)
    if len(kept) // config.temporal_stride >= config.min_fast_frames:
        return kept[: len(kept) - len(kept) % config.temporal_stride : config.temporal_stride]
    count = min(len(kept), config.min_fast_frames)
    return [kept[number * len(kept) // count] for number in range(count)]


def split_video(frames: Tensor, config: SlowFastConfig) -> VisualTokens:
    """Slow and fast tokens of a video's visual tokens `[T, h, w, D]` (section 3.1; sampling, then time, then space)."""
    kept = sample_fast_frames(frames.shape[0], config.temporal_sampling_stride, config.min_fast_frames)
    fast = average_over_time(frames[kept], config.temporal_stride, config.min_fast_frames)
    fast = pool_frames(fast, config.spatial_stride)
    return VisualTokens(slow=frames.flatten(0, 2), fast=fast.flatten(0, 2))
