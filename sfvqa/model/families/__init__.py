"""What one kind of video model brings of its own, a file each; all else is the same for every family.

Plugged in that way a family runs as published, all visual tokens in its prompt; with hybrid layers it becomes a
slow-fast model, whose text also looks at the tokens of many more frames (paper, section 3).
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sfvqa.video.fitting import CropMode, Fit, FitSquare

if TYPE_CHECKING:
    from sfvqa.model.config import SlowFastConfig

VideoLayout = tuple[str | int, ...]
"""What stands in a prompt for a video: texts, in which special tokens count, and numbers of fast tokens."""


def fit_square(vision: Any, crop: CropMode) -> Fit:
    """What most families do to a frame."""
    return FitSquare(vision.image_size, crop)


def in_a_square(features: Tensor) -> Tensor:
    """`[T, h · h, C]` → `[T, h, h, C]`."""
    side = math.isqrt(features.shape[1])
    square: Tensor = features.unflatten(1, (side, side))
    return square


@dataclass(frozen=True)
class Family:
    """A kind of video model, by the parts that differ.

    `vision_config` describes tower and projector, and has `image_size`, `image_mean`, `image_std`, `grid_size` (visual
    tokens of a frame in each direction, before pooling) and `width` (of the tower's features). `tower` makes of
    pixels `[T, 3, S, S]` features `[T, h, w, width]`, `projector` of these visual tokens `[T, h', w', D]`.
    `read_published` reads the config.json of the published form, `tensor_names` are patterns of its tensor names with
    what we call them, the first that matches applies; `unused_tensors` are ours, and need no place.
    `num_behind_video` fast tokens are the projector's own, behind those of all frames (`behind_video`).
    `lay_out` gives the layout of a video in a prompt from the fast tokens' number, the times of their frames, and the
    video's length, all in seconds; `video_token` is the text that the chat template puts for a video where messages are
    lists of parts, None where the video stands before the text of its turn. `chat_template` is that of checkpoints
    without one, or of all where `template_is_fixed`.
    """

    name: str
    vision_config: type[Any]
    tower: Callable[[Any], nn.Module]
    projector: Callable[[Any, int], nn.Module]
    read_published: Callable[[Path, dict[str, Any]], "SlowFastConfig"]
    tensor_names: tuple[tuple[str, str], ...]
    lay_out: Callable[[int, Sequence[float], float], VideoLayout]
    unused_tensors: tuple[str, ...] = ()
    num_behind_video: int = 0
    fit: Callable[[Any, CropMode], Fit] = fit_square
    video_token: str | None = None
    chat_template: str | None = None
    template_is_fixed: bool = False

    def rename_tensor(self, name: str) -> str:
        """Our name of a tensor of the published form."""
        for pattern, replacement in self.tensor_names:
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                return renamed
        return name


DEFAULT_VISION_TYPE = "slow_fast_vision"
_MODULES = {
    "slow_fast_vision": "slowfast",
    "llava_onevision_vision": "llava_onevision",
    "smolvlm_video": "smolvlm",
}
"""The module of each family, by the model type of its vision config. A new one is a line here and in _PUBLISHED."""
FAMILY_NAMES = tuple(_MODULES.values())
_PUBLISHED = {"llava_qwen_slow_fast": "slowfast", "llava_onevision": "llava_onevision", "smolvlm": "smolvlm"}
"""The same by the model type of the config.json that the family is published with."""


def family_of(vision_model_type: str) -> Family | None:
    """The family of a vision config, by its model type."""
    return _load(_MODULES.get(vision_model_type))


def vision_type_of(family: str) -> str:
    """The model type of a family's vision config, by the family's name."""
    return next(model_type for model_type, name in _MODULES.items() if name == family)


def published_family(model_type: object) -> Family | None:
    """The family that a config.json was published with, by its model type; None for ours and for others."""
    return _load(_PUBLISHED.get(str(model_type)))


def _load(module: str | None) -> Family | None:
    if module is None:
        return None
    family: Family = import_module(f"{__name__}.{module}").FAMILY
    return family
