"""LLaVA-OneVision (Li et al. 2024): SigLIP, two linear layers, frames pooled to a quarter, one newline behind them all.

Everything is transformers' own computation (`transformers.models.llava_onevision`), for videos.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionMultiModalProjector

from sfvqa.model.config import SlowFastConfig, as_published, expect, plain_config, read_processor, shared_fields
from sfvqa.model.families import Family, VideoLayout, in_a_square
from sfvqa.video.sampling import SamplingStrategy


@strict
class LlavaOnevisionVisionConfig(SiglipVisionConfig):
    """SigLIP's fields, and those of the projector behind it."""

    model_type = "llava_onevision_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 26
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 384
    vision_use_head: bool = False
    projector_hidden_act: str = "gelu"
    multimodal_projector_bias: bool = True
    image_mean: list[float | int] | tuple[float | int, ...] = (0.5, 0.5, 0.5)
    image_std: list[float | int] | tuple[float | int, ...] = (0.5, 0.5, 0.5)

    @property
    def grid_size(self) -> int:
        """Visual tokens of a frame in each direction."""
        return math.ceil(self.image_size // self.patch_size / 2)

    @property
    def width(self) -> int:
        """Of the tower's features."""
        return self.hidden_size


class LlavaOnevisionTower(SiglipVisionModel):
    """SigLIP without its last norm, which the projector was not trained behind."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels `[T, 3, S, S]` → features `[T, S / patch, S / patch, hidden]`."""
        features: Tensor = self.encoder(inputs_embeds=self.embeddings(pixel_values)).last_hidden_state
        return in_a_square(features)


class LlavaOnevisionProjector(LlavaOnevisionMultiModalProjector):
    """Linear, GELU, linear; then the cells are pooled bilinearly to half as many in each direction."""

    def __init__(self, vision: LlavaOnevisionVisionConfig, decoder_width: int) -> None:
        config: Any = SimpleNamespace(
            vision_config=vision,
            text_config=SimpleNamespace(hidden_size=decoder_width),
            vision_feature_layer=-1,
            projector_hidden_act=vision.projector_hidden_act,
            multimodal_projector_bias=vision.multimodal_projector_bias,
        )
        super().__init__(config)
        self.image_newline = nn.Parameter(torch.zeros(decoder_width))

    def forward(self, features: Tensor) -> Tensor:
        """Features `[T, H, W, C]` → visual tokens `[T, ⌈H / 2⌉, ⌈W / 2⌉, D]`."""
        tokens: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        cells = tokens.permute(0, 3, 1, 2).contiguous()
        half = [math.ceil(side / 2) for side in cells.shape[-2:]]
        return functional.interpolate(cells, size=half, mode="bilinear").permute(0, 2, 3, 1)

    @property
    def behind_video(self) -> Tensor:
        """The fast token behind those of all frames, `[1, D]`."""
        return self.image_newline[None]


def read_published(folder: Path, fields: dict[str, Any]) -> SlowFastConfig:
    """Translate the published config.json, whose videos have 32 frames, squashed to a square."""
    expect(fields, "vision_feature_layer", -1, default=-1)
    expect(fields, "vision_feature_select_strategy", "full", default="full")
    published, processor = as_published(fields), read_processor(folder)
    vision = LlavaOnevisionVisionConfig(
        **shared_fields(published.vision_config, LlavaOnevisionVisionConfig),
        projector_hidden_act=published.projector_hidden_act,
        multimodal_projector_bias=published.multimodal_projector_bias,
        **{name: processor[name] for name in ("image_mean", "image_std") if processor.get(name)},
    )
    return plain_config(published, vision, num_frames=32, sampling=SamplingStrategy.UNIFORM)


def lay_out(num_fast_tokens: int, _timestamps_seconds: Sequence[float], _duration_seconds: float) -> VideoLayout:
    """All fast tokens in a row, the newline behind them; the template begins the question on a line of its own."""
    return (num_fast_tokens,)


_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}<video>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

FAMILY = Family(
    name="llava_onevision",
    vision_config=LlavaOnevisionVisionConfig,
    tower=LlavaOnevisionTower,
    projector=LlavaOnevisionProjector,
    read_published=read_published,
    tensor_names=(
        (r"^(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision_tower."),
        (r"^(?:model\.)?multi_modal_projector\.", "projector."),
        (r"^(?:model\.)?image_newline$", "projector.image_newline"),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^(?:model\.language_model|language_model\.model)\.", "language_model."),
    ),
    lay_out=lay_out,
    num_behind_video=1,
    video_token="<video>",
    chat_template=_CHAT_TEMPLATE,
)
