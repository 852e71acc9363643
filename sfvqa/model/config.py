"""What a slow-fast model is made of: a vision tower, a decoder, and how visual tokens are split between them.

Reads config.json in our format and in the published reference's: strict about every field that changes the
mathematics, silent about those nothing reads.
"""

import dataclasses
import difflib
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, Qwen2Config
from transformers.configuration_utils import SubConfigSpec

from sfvqa.errors import CheckpointError
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingStrategy

IMAGE_TOKEN_ID = -200
"""Stands in `input_ids` where a fast token goes; negative, so that it can never be a token of any vocabulary."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

E = TypeVar("E", bound=StrEnum)


class SlowAttentionScope(StrEnum):
    """Which positions of a sample with a video look at its slow tokens."""

    TEXT = "text"
    """Every text token."""
    TEXT_AFTER_VIDEO = "text_after_video"
    """Text tokens behind the first fast token: not the system prompt."""
    ALL = "all"
    """Every token, fast ones too; the warm-up gate is then used as it is, without tanh."""


class Gating(StrEnum):
    """How the output of slow attention is weighed before it is added."""

    DYNAMIC_WARM_UP = "dynamic_warm_up"
    """tanh(warm-up gate, one a layer) · tanh(W a + b, one a token)."""
    WARM_UP = "warm_up"
    """tanh(warm-up gate, one a layer)."""
    DYNAMIC = "dynamic"
    """tanh(W a + b, one a token)."""
    NONE = "none"
    """It is added as it is."""

    @property
    def has_warm_up(self) -> bool:
        """Whether a number a layer is learned."""
        return self in (Gating.DYNAMIC_WARM_UP, Gating.WARM_UP)

    @property
    def is_dynamic(self) -> bool:
        """Whether a number a token is computed."""
        return self in (Gating.DYNAMIC_WARM_UP, Gating.DYNAMIC)


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
    def grid_size(self) -> int:
        """Cells of the feature map in each direction."""
        return self.image_size // self.stride


@strict
class SlowFastConfig(PreTrainedConfig):
    """The whole model; strides and pooling are the paper's section 3, under names that say what they average.

    `hybrid_layers` are the indices of decoder layers that also attend to slow tokens. The fields `training_…` say how
    the checkpoint saw videos in training, and how many tokens in a row; None where unknown. Raises CheckpointError when
    fields contradict each other or name something that does not exist.
    """

    model_type = "slow_fast"
    sub_configs_defaults = {  # noqa: RUF012 - transformers' own convention
        "vision_config": SubConfigSpec(config_class=SlowFastVisionConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: dict[str, Any] | SlowFastVisionConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    video_pooling_stride: int = 2
    temporal_stride: int = 4
    temporal_sampling_stride: int = 1
    spatial_stride: int = 1
    min_fast_frames: int = 16
    hybrid_layers: list[int] | tuple[int, ...] = (0, 8, 16, 24)
    slow_attention_scope: SlowAttentionScope | str = SlowAttentionScope.TEXT
    gating: Gating | str = Gating.DYNAMIC_WARM_UP
    training_num_frames: int | None = None
    training_sampling: SamplingStrategy | str | None = None
    training_crop: CropMode | str | None = None
    training_max_length: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _decoder_config(self.text_config)
        stored = getattr(torch, self.dtype, None) if isinstance(self.dtype, str) else self.dtype
        is_known = stored is None or (isinstance(stored, torch.dtype) and stored.is_floating_point)
        require(is_known and (stored is None) == (self.dtype is None), f"dtype {self.dtype!r} holds no weights")
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.slow_attention_scope = _member(SlowAttentionScope, self.slow_attention_scope, "slow_attention_scope")
        self.gating = _member(Gating, self.gating, "gating")
        if self.training_sampling is not None:
            strategy = _member(SamplingStrategy, self.training_sampling, "training_sampling")
            require(strategy.needs_number_alone, f"nobody can sample by {strategy} knowing the number of frames alone")
            self.training_sampling = strategy
        if self.training_crop is not None:
            self.training_crop = _member(CropMode, self.training_crop, "training_crop")
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        for name in (
            "video_pooling_stride",
            "temporal_stride",
            "temporal_sampling_stride",
            "spatial_stride",
            "min_fast_frames",
        ):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        num_layers = self.text_config.num_hidden_layers
        self.hybrid_layers = sorted(set(self.hybrid_layers))
        outside = [layer for layer in self.hybrid_layers if not 0 <= layer < num_layers]
        require(not outside, f"hybrid_layers {outside} lie outside the decoder's {num_layers} layers")
        require(
            self.vision.grid_size >= self.video_pooling_stride,
            f"video_pooling_stride {self.video_pooling_stride} exceeds the {self.vision.grid_size} cells of a frame",
        )

    @property
    def vision(self) -> SlowFastVisionConfig:
        """`vision_config`, typed."""
        assert isinstance(self.vision_config, SlowFastVisionConfig)
        return self.vision_config

    @property
    def decoder_config(self) -> PreTrainedConfig:
        """`text_config`, typed."""
        assert isinstance(self.text_config, PreTrainedConfig)
        return self.text_config

    @property
    def stored_dtype(self) -> torch.dtype | None:
        """What the weights are stored in; None where config.json does not say."""
        return self.dtype if isinstance(self.dtype, torch.dtype) else None

    def grid_side(self, num_frames: int) -> int:
        """Visual tokens of a frame in each direction; those of an only frame are not pooled (reference)."""
        return self.vision.grid_size // (self.video_pooling_stride if num_frames > 1 else 1)


def require(condition: bool, message: str) -> None:
    """Raise CheckpointError with `message` about a config unless `condition` holds."""
    if not condition:
        raise CheckpointError(f"The model's config is contradictory: {message}.", "Check config.json.")


def _decoder_config(fields: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(fields, PreTrainedConfig):
        return fields
    fields = dict(fields or {})
    model_type = fields.pop("model_type", "qwen2")
    if model_type not in CONFIG_MAPPING:
        raise CheckpointError(f"The decoder type {model_type!r} is unknown to transformers.", "Check text_config.")
    return CONFIG_MAPPING[model_type](**fields)


def _member(enum: type[E], value: str, field: str) -> E:
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(enum)
        raise CheckpointError(f"{field} {value!r} is unknown.", f"It must be one of: {known}.") from None


REFERENCE_MODEL_TYPE = "llava_qwen_slow_fast"

VISION_TOWERS = {
    # timm's convnext_xxlarge at 576 px, the only tower the reference published.
    "convnext-576": {"image_size": 576, "depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072)}
}

SCOPES = {
    "text-only-vanilla-flashattn": SlowAttentionScope.TEXT,
    "text-only-vanilla-masksystem-flashattn": SlowAttentionScope.TEXT_AFTER_VIDEO,
    "vanilla-flashattn": SlowAttentionScope.ALL,
}

GATINGS = {"whole-dynamic-tanh-warmup": Gating.DYNAMIC_WARM_UP}

TENSOR_NAMES = (
    # The layer scale is published as `weight`; timm and we call it `gamma`. Both are read.
    (r"^model\.vision_tower\.vision_tower\.(stages\.\d+\.blocks\.\d+)\.weight", r"vision_tower.\1.gamma"),
    (r"^model\.vision_tower\.vision_tower\.", r"vision_tower."),
    (r"^model\.mm_projector\.0\.", r"projector.fc1."),
    (r"^model\.mm_projector\.2\.", r"projector.fc2."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_kv_proj\.", r"language_model.\1.slow_attention.kv_proj."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_gate_proj\.0\.", r"language_model.\1.slow_attention.gate_proj."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_warm_up_gate", r"language_model.\1.slow_attention.warm_up_gate"),
    (r"^model\.(embed_tokens|layers|norm)\.", r"language_model.\1."),
)
"""Patterns of the reference's tensor names and what we call them; the first that matches a name applies."""

UNUSED_TENSORS = (r"^vision_tower\.head\.",)
"""Ours after renaming: the classification head that the checkpoint carries and nothing computes with."""


def rename_tensor(name: str) -> str:
    """Our name of one of the reference's tensors.

    >>> rename_tensor("model.mm_projector.2.bias")
    'projector.fc2.bias'
    """
    for pattern, replacement in TENSOR_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def is_reference_config(fields: dict[str, Any]) -> bool:
    """Whether a config.json was written by the reference."""
    return fields.get("model_type") == REFERENCE_MODEL_TYPE


def read_reference_config(fields: dict[str, Any]) -> SlowFastConfig:
    """Translate the fields of the reference's config.json; raises CheckpointError on what we cannot compute."""
    _expect(fields, "mm_projector_type", "mlp2x_gelu")
    _expect(fields, "mm_patch_merge_type", "flat", default="flat")
    _expect(fields, "mm_use_im_start_end", False, default=False)
    decoder = _reference_decoder_config(fields)
    num_layers = decoder.num_hidden_layers
    max_depth = fields.get("cross_attn_max_layer_depth")
    return SlowFastConfig(
        vision_config=_vision_config(fields),
        text_config=decoder,
        video_pooling_stride=_read(fields, "mm_video_pooling_stride"),
        temporal_stride=_read(fields, "fast_token_temporal_stride"),
        temporal_sampling_stride=fields.get("fast_token_temporal_sampling_stride", 1),
        spatial_stride=fields.get("fast_token_spatial_stride", 1),
        min_fast_frames=fields.get("min_fast_frames") or 1,
        hybrid_layers=tuple(
            range(
                fields.get("cross_attn_min_layer_depth") or 0,
                num_layers if max_depth is None else max_depth,
                _read(fields, "cross_attn_every_n_layers"),
            )
        ),
        slow_attention_scope=_choose(fields, "cross_attn_implementation", SCOPES),
        gating=_choose(fields, "cross_attn_gating_type", GATINGS),
        training_num_frames=fields.get("mm_training_video_frames"),
        training_max_length=fields.get("tokenizer_model_max_length"),
        dtype=fields.get("torch_dtype") or fields.get("dtype"),
        architectures=["SlowFastForConditionalGeneration"],
    )


def _reference_decoder_config(fields: dict[str, Any]) -> Qwen2Config:
    names = {field.name for field in dataclasses.fields(Qwen2Config)} | {"rope_theta", "rope_scaling"}
    names -= {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "layer_types"}
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        _read(fields, name)
    return Qwen2Config(**{name: fields[name] for name in names if name in fields})


def _vision_config(fields: dict[str, Any]) -> SlowFastVisionConfig:
    # Checkpoints made with the reference at small scale spell out the tower they used in place of the one they name.
    if (spelled_out := fields.get("_tiny_vision")) is not None:
        return SlowFastVisionConfig(
            image_size=spelled_out["image_size"],
            depths=spelled_out["depths"],
            dims=spelled_out["dims"],
            layer_norm_eps=spelled_out["norm_eps"],
        )
    tower = SlowFastVisionConfig(**_choose(fields, "mm_vision_tower", VISION_TOWERS))
    _expect(fields, "mm_hidden_size", tower.dims[-1], default=tower.dims[-1])
    return tower


def _read(fields: dict[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise CheckpointError(f"The checkpoint's config.json has no {name}.", "Fetch the checkpoint again.")
    return fields[name]


def _expect(fields: dict[str, Any], name: str, value: object, default: object = None) -> None:
    found = fields.get(name, default)
    if found != value:
        raise CheckpointError(f"The checkpoint's {name} is {found!r}; only {value!r} is supported.")


def _choose(fields: dict[str, Any], name: str, choices: dict[str, Any]) -> Any:
    value = _read(fields, name)
    if value not in choices:
        known = ", ".join(choices)
        raise CheckpointError(f"The checkpoint's {name} {value!r} is unknown.", f"Supported: {known}.")
    return choices[value]


FETCH_AGAIN = "The checkpoint is incomplete or damaged: fetch it again."
CHECK_CONFIG = "Check config.json."
_WRITTEN_BESIDE = {"transformers_version", "torch_dtype", "auto_map", "quantization_config", "use_cache"}
"""Fields of a config.json that are in no config class: who wrote it, in training too, and how it is stored."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; CheckpointError when it is missing or damaged."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path.name} in {path.parent}.", "Name a checkpoint folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", FETCH_AGAIN) from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.", FETCH_AGAIN)
    return fields


def read_config(folder: str | Path) -> SlowFastConfig:
    """The config of a checkpoint folder in either format; raises CheckpointError, which names the file."""
    path = Path(folder) / "config.json"
    fields = read_json(path)
    try:
        return _build_config(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message.removesuffix('.')} (in {path}).", error.remedy) from error
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{path} does not describe a model: {reason_of(error)}.", "Check it.") from error


def _build_config(fields: dict[str, Any]) -> SlowFastConfig:
    if is_reference_config(fields):
        return read_reference_config(fields)
    if fields.get("model_type") != SlowFastConfig.model_type:
        raise CheckpointError(
            f"The model is of type {fields.get('model_type')!r}.", "Only slow-fast checkpoints can be loaded."
        )
    # Without these transformers would fall back on the defaults of a 7B model.
    for name in ("text_config", "vision_config"):
        if not isinstance(fields.get(name), dict):
            raise CheckpointError(f"{name} is {fields.get(name)!r}, not an object.", CHECK_CONFIG)
    _refuse_unknown_fields(fields, SlowFastConfig)
    _refuse_unknown_fields(fields["vision_config"], SlowFastVisionConfig)
    return SlowFastConfig.from_dict(fields)


def _refuse_unknown_fields(fields: dict[str, Any], config_class: type[PreTrainedConfig]) -> None:
    """CheckpointError for a field nothing reads: misspelt, it would leave another one at its default."""
    known = {field.name for field in dataclasses.fields(config_class)} | _WRITTEN_BESIDE | {"model_type"}
    for name in fields.keys() - known:
        if not name.startswith("_"):  # transformers' private ones
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else CHECK_CONFIG
            raise CheckpointError(f"There is no field {name}.", hint)


def reason_of(error: Exception) -> str:
    """What an exception says, in one line and without the pages that follow."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    text = " ".join(str(cause).split(". Errors:")[0].split())
    return text.removesuffix(".") or type(error).__name__
