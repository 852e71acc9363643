"""How many frames the fast tokens average over, for a number of frames that the model was not trained with.

The released models keep 16 fast frames whatever they are given: stride 4 of 64 frames, 6 of 96. A profile does the
same, since that is what makes more frames cheap; a model's own stride, fixed, would lengthen the prompt.
"""

import copy
from dataclasses import replace

from torch import Tensor

from sfvqa.model import SlowFastConfig, VisualTokens
from sfvqa.model.visual_tokens import split_video
from sfvqa.registry import FastTokens


def stride_for(num_frames: int, min_fast_frames: int) -> int:
    """The temporal stride that leaves `min_fast_frames` fast frames.

    >>> [stride_for(num_frames, 16) for num_frames in (8, 16, 64, 96, 128)]
    [1, 1, 4, 6, 8]
    """
    return max(1, num_frames // min_fast_frames)


def fast_tokens_for(fast: FastTokens, num_frames: int) -> FastTokens:
    """The settings of a model trained with `num_frames`."""
    return replace(fast, temporal_stride=stride_for(num_frames, fast.min_fast_frames), temporal_sampling_stride=1)


def config_for(config: SlowFastConfig, num_frames: int) -> SlowFastConfig:
    """The same in a config of its own."""
    own = copy.deepcopy(config)
    own.temporal_stride = stride_for(num_frames, own.min_fast_frames)
    own.temporal_sampling_stride = 1
    return own


def split_again(slow: Tensor, num_frames: int, config: SlowFastConfig) -> VisualTokens:
    """Slow and fast tokens of `slow` `[S, D]`, the visual tokens of `num_frames` frames, by a model's own config."""
    side = config.grid_side(num_frames)
    return split_video(slow.view(num_frames, side, side, -1), config_for(config, num_frames))
