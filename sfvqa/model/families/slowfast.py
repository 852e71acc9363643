"""The published slow-fast models (Shi et al. 2025): a ConvNeXt, two linear layers, fast tokens before the question.

Strict about every field of the reference's config.json that changes the mathematics, silent about those nothing reads.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, Qwen2Config
from transformers.modeling_layers import GradientCheckpointingLayer

from sfvqa.errors import CheckpointError
from sfvqa.model.config import Gating, SlowAttentionScope, SlowFastConfig, choose, expect, read, read_json, require
from sfvqa.model.families import Family, VideoLayout

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@strict
class SlowFastVisionConfig(PreTrainedConfig):
    """A ConvNeXt tower: stage i has `depths[i]` blocks of width `dims[i]` at 1 / (4 · 2^i) of `image_size` pixels."""

    model_type = "slow_fast_vision"
    base_config_key = "vision_config"

    image_size: int = 576
    depths: list[int] | tuple[int, ...] = (3, 4, 30, 3)
    dims: list[int] | tuple[int, ...] = (384, 768, 1536, 3072)
    layer_norm_eps: float | int = 1e-5
    image_mean: list[float | int] | tuple[float | int, ...] = CLIP_MEAN
    image_std: list[float | int] | tuple[float | int, ...] = CLIP_STD

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        require(len(self.depths) == len(self.dims) > 0, f"depths {self.depths} and dims {self.dims} differ in length")
        require(all(depth > 0 for depth in self.depths), f"every stage needs a block, depths are {self.depths}")
        require(self.image_size % self.stride == 0, f"image_size {self.image_size} is no multiple of {self.stride}")
        for name in ("image_mean", "image_std"):
            require(len(getattr(self, name)) == 3, f"{name} needs a number a colour, not {getattr(self, name)}")
        require(all(std > 0 for std in self.image_std), f"image_std must be above 0, not {self.image_std}")

    @property
    def stride(self) -> int:
        """Pixels a cell of the feature map covers in each direction."""
        return int(4 * 2 ** (len(self.depths) - 1))

    @property
    def width(self) -> int:
        """Of the tower's features."""
        return int(self.dims[-1])

    @property
    def grid_size(self) -> int:
        """Cells of the feature map in each direction."""
        return self.image_size // self.stride


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of `[T, C, h, w]`."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Sequential):
    """Two linear layers with an exact (erf) GELU, on the last dimension."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        fc1, fc2 = nn.Linear(in_dim, hidden_dim), nn.Linear(hidden_dim, out_dim)
        super().__init__(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))


class ConvNextBlock(GradientCheckpointingLayer):
    """7×7 depthwise convolution, then a pointwise MLP, scaled by `gamma` and added to its input."""

    def __init__(self, dim: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = Mlp(dim, 4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, features: Tensor) -> Tensor:
        update = self.conv_dw(features).permute(0, 2, 3, 1)
        update = self.gamma * self.mlp(self.norm(update))
        output: Tensor = features + update.permute(0, 3, 1, 2)
        return output


class ConvNextStage(nn.Sequential):
    """Blocks of one width; every stage but the first halves the resolution before them."""

    def __init__(self, in_dim: int, dim: int, depth: int, layer_norm_eps: float, *, downsample: bool) -> None:
        halving = nn.Sequential()
        if downsample:
            halving.append(LayerNorm2d(in_dim, eps=layer_norm_eps))
            halving.append(nn.Conv2d(in_dim, dim, kernel_size=2, stride=2))
        blocks = nn.Sequential(*(ConvNextBlock(dim, layer_norm_eps) for _ in range(depth)))
        super().__init__(OrderedDict(downsample=halving, blocks=blocks))


class VisionTower(nn.Module):
    """The last stage's feature map of a ConvNeXt (Liu et al. 2022), as timm's `convnext_*` computes it."""

    def __init__(self, config: SlowFastVisionConfig) -> None:
        super().__init__()
        dims = list(config.dims)
        self.stem = nn.Sequential(
            nn.Conv2d(3, dims[0], kernel_size=4, stride=4), LayerNorm2d(dims[0], eps=config.layer_norm_eps)
        )
        self.stages = nn.Sequential()
        for index, (in_dim, dim, depth) in enumerate(zip([dims[0], *dims], dims, config.depths, strict=False)):
            self.stages.append(ConvNextStage(in_dim, dim, depth, config.layer_norm_eps, downsample=index > 0))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels `[T, 3, H, W]` → features `[T, H/stride, W/stride, dims[-1]]`."""
        # Channels last is what the permutes around the MLPs want: none of them copies then.
        features = self.stages(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)))
        output: Tensor = features.permute(0, 2, 3, 1)
        return output


class Projector(Mlp):
    """The reference's `mlp2x_gelu`: from the vision tower's width to the decoder's."""

    def __init__(self, vision_dim: int, decoder_dim: int) -> None:
        super().__init__(vision_dim, decoder_dim, decoder_dim)


VISION_TOWERS: dict[str, dict[str, Any]] = {
    # timm's convnext_xxlarge at 576 px, the only tower the reference published.
    "convnext-576": {"image_size": 576, "depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072)}
}

# LLaVA's ways of laying out the tiles of a picture. The reference cuts none, and computes the same with each; where the
# name says unpad it has a tensor more, image_newline, that nothing reads.
PATCH_MERGE_TYPES = dict.fromkeys(("flat", "spatial", "spatial_unpad"))

SCOPES = {
    "text-only-vanilla-flashattn": SlowAttentionScope.TEXT,
    "text-only-vanilla-masksystem-flashattn": SlowAttentionScope.TEXT_AFTER_VIDEO,
    "vanilla-flashattn": SlowAttentionScope.ALL,
}

GATINGS = {"whole-dynamic-tanh-warmup": Gating.DYNAMIC_WARM_UP}


def read_published(folder: Path, fields: dict[str, Any]) -> SlowFastConfig:
    """Translate the fields of the reference's config.json; raises CheckpointError on what we cannot compute."""
    expect(fields, "mm_projector_type", "mlp2x_gelu")
    if fields.get("mm_patch_merge_type") is not None:
        choose(fields, "mm_patch_merge_type", PATCH_MERGE_TYPES)
    expect(fields, "mm_use_im_start_end", False, default=False)
    decoder = _reference_decoder_config(fields)
    num_layers = decoder.num_hidden_layers
    max_depth = fields.get("cross_attn_max_layer_depth")
    return SlowFastConfig(
        vision_config=_vision_config(folder, fields),
        text_config=decoder,
        video_pooling_stride=read(fields, "mm_video_pooling_stride"),
        temporal_stride=read(fields, "fast_token_temporal_stride"),
        temporal_sampling_stride=fields.get("fast_token_temporal_sampling_stride", 1),
        spatial_stride=fields.get("fast_token_spatial_stride", 1),
        min_fast_frames=fields.get("min_fast_frames") or 1,
        hybrid_layers=tuple(
            range(
                fields.get("cross_attn_min_layer_depth") or 0,
                num_layers if max_depth is None else max_depth,
                read(fields, "cross_attn_every_n_layers"),
            )
        ),
        slow_attention_scope=choose(fields, "cross_attn_implementation", SCOPES),
        gating=choose(fields, "cross_attn_gating_type", GATINGS),
        training_num_frames=fields.get("mm_training_video_frames"),
        training_max_length=fields.get("tokenizer_model_max_length"),
        dtype=fields.get("torch_dtype") or fields.get("dtype"),
        architectures=["SlowFastForConditionalGeneration"],
    )


def _reference_decoder_config(fields: dict[str, Any]) -> Qwen2Config:
    names = {field.name for field in dataclasses.fields(Qwen2Config)} | {"rope_theta", "rope_scaling"}
    names -= {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "layer_types"}
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        read(fields, name)
    return Qwen2Config(**{name: fields[name] for name in names if name in fields})


def _vision_config(folder: Path, fields: dict[str, Any]) -> SlowFastVisionConfig:
    # Checkpoints made with the reference at small scale spell out the tower they used in place of the one they name.
    if (spelled_out := fields.get("_tiny_vision")) is not None:
        return SlowFastVisionConfig(
            image_size=spelled_out["image_size"],
            depths=spelled_out["depths"],
            dims=spelled_out["dims"],
            layer_norm_eps=spelled_out["norm_eps"],
        )
    tower = _tower_named(str(read(fields, "mm_vision_tower")), folder)
    expect(fields, "mm_hidden_size", tower.dims[-1], default=tower.dims[-1])
    return tower


def _tower_named(name: str, folder: Path) -> SlowFastVisionConfig:
    """The tower of a known name, alone or at the end of a path, or of the folder that a path leads to from `folder`."""
    if (sizes := VISION_TOWERS.get(PureWindowsPath(name).name)) is not None:  # which takes both kinds of slashes
        return SlowFastVisionConfig(**sizes)
    described = folder / name / "config.json"
    stated = read_json(described) if described.is_file() else {}
    if stated.get("model_type") == SlowFastVisionConfig.model_type:
        tower: SlowFastVisionConfig = SlowFastVisionConfig.from_dict(stated)
        return tower
    found = f", of type {stated.get('model_type')!r}" if stated else ", whose sizes nothing here says"
    known = ", ".join(VISION_TOWERS)
    raise CheckpointError(
        f"The checkpoint's mm_vision_tower is {name!r}{found}.",
        f"It can be {known}, or the path of a folder with a ConvNeXt's config.json, of model type "
        f"{SlowFastVisionConfig.model_type}.",
    )


def lay_out(num_fast_tokens: int, _timestamps_seconds: Sequence[float], _duration_seconds: float) -> VideoLayout:
    """All fast tokens in a row, before the question on a line of its own."""
    return (num_fast_tokens, "\n")


# Qwen2's: the reference writes this same string without a template.
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _projector(vision: Any, decoder_width: int) -> Projector:  # not a lambda, which no other process could be sent
    return Projector(vision.width, decoder_width)


FAMILY = Family(
    name="slowfast",
    vision_config=SlowFastVisionConfig,
    tower=VisionTower,
    projector=_projector,
    read_published=read_published,
    tensor_names=(
        # The layer scale is published as `weight`; timm and we call it `gamma`. Both are read.
        (r"^model\.vision_tower\.vision_tower\.(stages\.\d+\.blocks\.\d+)\.weight", r"vision_tower.\1.gamma"),
        (r"^model\.vision_tower\.vision_tower\.", r"vision_tower."),
        (r"^model\.mm_projector\.0\.", r"projector.fc1."),
        (r"^model\.mm_projector\.2\.", r"projector.fc2."),
        (r"^model\.(layers\.\d+\.self_attn\.)cross_attn_kv_proj\.", r"language_model.\1slow_attention.kv_proj."),
        (
            r"^model\.(layers\.\d+\.self_attn)\.cross_attn_gate_proj\.0\.",
            r"language_model.\1.slow_attention.gate_proj.",
        ),
        (
            r"^model\.(layers\.\d+\.self_attn)\.cross_attn_warm_up_gate",
            r"language_model.\1.slow_attention.warm_up_gate",
        ),
        (r"^model\.(embed_tokens|layers|norm)\.", r"language_model.\1."),
    ),
    unused_tensors=(r"^vision_tower\.head\.", r"^model\.image_newline$"),  # with which nothing computes
    lay_out=lay_out,
    chat_template=CHATML_TEMPLATE,
)
