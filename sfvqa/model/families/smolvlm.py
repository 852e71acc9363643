"""SmolVLM2 (Marafioti et al. 2025): a SigLIP of patches, shuffled into fewer and wider cells, one linear layer.

Everything is transformers' own computation (`transformers.models.smolvlm`), for videos.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig as TransformersVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector, SmolVLMVisionTransformer

from sfvqa.model.config import SlowFastConfig, as_published, expect, plain_config, read_processor, shared_fields
from sfvqa.model.families import Family, VideoLayout, in_a_square
from sfvqa.video.fitting import CropMode, Fit, FitSquare, FitThroughLongestEdge
from sfvqa.video.sampling import SamplingStrategy


@strict
class SmolVLMVisionConfig(TransformersVisionConfig):
    """transformers' own fields, those of the connector behind the tower, and the size frames pass through."""

    model_type = "smolvlm_video"
    base_config_key = "vision_config"

    image_size: int = 512
    patch_size: int = 16
    scale_factor: int = 4
    longest_edge: int = 2048
    image_mean: list[float | int] | tuple[float | int, ...] = (0.5, 0.5, 0.5)
    image_std: list[float | int] | tuple[float | int, ...] = (0.5, 0.5, 0.5)

    @property
    def grid_size(self) -> int:
        """Visual tokens of a frame in each direction."""
        return self.image_size // self.patch_size // self.scale_factor

    @property
    def width(self) -> int:
        """Of the tower's features."""
        return self.hidden_size


class SmolVLMTower(SmolVLMVisionTransformer):
    """transformers' tower, on frames that are square and whole: it need not ask a GPU whether some patches are not."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels `[T, 3, S, S]` → features `[T, S / patch, S / patch, hidden]`."""
        side = self.embeddings.num_patches_per_side
        is_there = pixel_values.new_ones(len(pixel_values), side, side, dtype=torch.bool)
        features = self.encoder(inputs_embeds=self.embeddings(pixel_values, is_there)).last_hidden_state
        return in_a_square(self.post_layernorm(features))


class SmolVLMProjector(SmolVLMConnector):
    """Pixel shuffle and one linear layer."""

    def __init__(self, vision: SmolVLMVisionConfig, decoder_width: int) -> None:
        text = SimpleNamespace(hidden_size=decoder_width)
        config: Any = SimpleNamespace(vision_config=vision, text_config=text, scale_factor=vision.scale_factor)
        super().__init__(config)  # type: ignore[no-untyped-call]

    def forward(self, features: Tensor) -> Tensor:
        """Features `[T, H, W, C]` → visual tokens `[T, H / factor, W / factor, D]`."""
        tokens: Tensor = super().forward(features.flatten(1, 2))  # type: ignore[no-untyped-call]
        return in_a_square(tokens)


def fit(vision: SmolVLMVisionConfig, crop: CropMode) -> Fit:
    """Squashed frames go through the longest edge, as in training; others only become square."""
    if crop is CropMode.SQUASH:
        return FitThroughLongestEdge(vision.image_size, vision.longest_edge)
    return FitSquare(vision.image_size, crop)


def read_published(folder: Path, fields: dict[str, Any]) -> SlowFastConfig:
    """Translate the published config.json, whose videos have a frame a second, up to 64."""
    published, processor = as_published(fields), read_processor(folder)
    sampling = processor.get("video_sampling") or {}
    size = processor.get("size") or sampling.get("video_size") or {}
    vision = SmolVLMVisionConfig(
        **shared_fields(published.vision_config, SmolVLMVisionConfig),
        scale_factor=published.scale_factor,
        longest_edge=size.get("longest_edge", 2048),
        **{name: processor[name] for name in ("image_mean", "image_std") if processor.get(name)},
    )
    expect(sampling, "fps", 1, default=1)
    expect(processor.get("max_image_size") or {}, "longest_edge", vision.image_size, default=vision.image_size)
    num_frames = int(sampling.get("max_frames", 64))
    return plain_config(published, vision, num_frames=num_frames, sampling=SamplingStrategy.SMOLVLM)


def lay_out(num_fast_tokens: int, timestamps_seconds: Sequence[float], duration_seconds: float) -> VideoLayout:
    """How many frames of how long a video, then each frame's time and tokens between markers, then an empty line."""
    from num2words import num2words

    num_frames = len(timestamps_seconds)
    length = timedelta(seconds=int(duration_seconds))
    text = f"You are provided the following series of {num2words(num_frames)} frames from a {length} [H:MM:SS] video.\n"
    layout: list[str | int] = []
    for seconds in timestamps_seconds:
        minutes, rest = divmod(int(seconds), 60)
        layout += [f"{text}\nFrame from {minutes:02d}:{rest:02d}:{_AROUND}<global-img>", num_fast_tokens // num_frames]
        text = _AROUND
    return (*layout, f"{_AROUND}\n\n")


_AROUND = "<fake_token_around_image>"
_CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<video>' if part['type'] == 'video' else part['text'] }}{% endfor %}"
    "{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

FAMILY = Family(
    name="smolvlm",
    vision_config=SmolVLMVisionConfig,
    tower=SmolVLMTower,
    projector=SmolVLMProjector,
    read_published=read_published,
    tensor_names=(
        (r"^(?:model\.)?vision_model\.", "vision_tower."),
        (r"^(?:model\.)?connector\.", "projector."),
        (r"^(?:model\.)?text_model\.", "language_model."),
    ),
    lay_out=lay_out,
    fit=fit,
    video_token="<video>",
    chat_template=_CHAT_TEMPLATE,
    template_is_fixed=True,
)
