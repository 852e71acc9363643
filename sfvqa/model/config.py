"""What a slow-fast model is made of: a vision tower, a decoder, and how visual tokens are split between them.

Reads config.json in our format and in the published reference's: strict about every field that changes the
mathematics, silent about those nothing reads.
"""

import copy
import dataclasses
import difflib
import json
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from sfvqa.errors import CheckpointError
from sfvqa.model.families import DEFAULT_VISION_TYPE, Family, family_of, published_family
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingStrategy

IMAGE_TOKEN_ID = -200
"""Stands in `input_ids` where a fast token goes; negative, so that it can never be a token of any vocabulary."""

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
class SlowFastConfig(PreTrainedConfig):
    """The whole model; strides and pooling are the paper's section 3, under names that say what they average.

    `hybrid_layers` are the indices of decoder layers that also attend to slow tokens. The fields `training_…` say how
    the checkpoint saw videos in training, and how many tokens in a row; None where unknown. Raises CheckpointError when
    fields contradict each other or name something that does not exist.
    """

    model_type = "slow_fast"
    sub_configs_defaults = {  # noqa: RUF012 - transformers' own convention
        "vision_config": SubConfigSpec(config_class=PreTrainedConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
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
        self.vision_config = _vision_config(self.vision_config)
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
    def vision(self) -> Any:
        """`vision_config`, which has what Family says of it."""
        return self.vision_config

    @property
    def family(self) -> Family:
        """The kind of video model this is."""
        family = family_of(self.vision.model_type)
        assert family is not None
        return family

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
        return int(self.vision.grid_size // (self.video_pooling_stride if num_frames > 1 else 1))


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


def _vision_config(fields: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(fields, PreTrainedConfig):
        return fields
    fields = dict(fields or {})
    model_type = fields.pop("model_type", DEFAULT_VISION_TYPE)
    family = family_of(model_type)
    if family is None:
        raise CheckpointError(f"The vision tower's type {model_type!r} is unknown.", "Check vision_config.")
    config: PreTrainedConfig = family.vision_config(**fields)
    return config


def _member(enum: type[E], value: str, field: str) -> E:
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(enum)
        raise CheckpointError(f"{field} {value!r} is unknown.", f"It must be one of: {known}.") from None


def read(fields: dict[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise CheckpointError(f"The checkpoint's config.json has no {name}.", "Fetch the checkpoint again.")
    return fields[name]


def expect(fields: dict[str, Any], name: str, value: object, default: object = None) -> None:
    found = fields.get(name, default)
    if found != value:
        raise CheckpointError(f"The checkpoint's {name} is {found!r}; only {value!r} is supported.")


def choose(fields: dict[str, Any], name: str, choices: dict[str, Any]) -> Any:
    value = read(fields, name)
    if value not in choices:
        known = ", ".join(choices)
        raise CheckpointError(f"The checkpoint's {name} {value!r} is unknown.", f"Supported: {known}.")
    return choices[value]


def shared_fields(config: PreTrainedConfig, config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """The fields of a config that another class has, too."""
    known = {field.name for field in dataclasses.fields(config_class)}
    return {name: value for name, value in config.to_dict().items() if name in known}


def read_processor(folder: Path) -> dict[str, Any]:
    """How a published checkpoint's frames become pixels, from the file that transformers takes it from."""
    together = folder / "processor_config.json"
    if together.is_file() and (fields := read_json(together).get("video_processor")):
        return dict(fields)
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            return read_json(folder / name)
    return {}


def as_published(fields: dict[str, Any]) -> Any:
    """The config as transformers' own class reads it: with the fields of older versions, such as rope_theta."""
    for name in ("text_config", "vision_config"):
        read(fields, name)
    return CONFIG_MAPPING[fields["model_type"]].from_dict(fields)


def plain_config(
    published: Any, vision: PreTrainedConfig, *, num_frames: int, sampling: SamplingStrategy
) -> SlowFastConfig:
    """The config of a published video model that is no slow-fast one: all visual tokens stand in its prompt."""
    decoder = copy.deepcopy(published.text_config)
    decoder.tie_word_embeddings = bool(published.tie_word_embeddings or decoder.tie_word_embeddings)
    return SlowFastConfig(
        vision_config=vision,
        text_config=decoder,
        video_pooling_stride=1,
        temporal_stride=1,
        min_fast_frames=1,
        hybrid_layers=(),
        training_num_frames=num_frames,
        training_sampling=sampling,
        training_crop=CropMode.SQUASH,
        dtype=published.dtype or decoder.dtype,
        architectures=["SlowFastForConditionalGeneration"],
    )


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
        return _build_config(path.parent, fields)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message.removesuffix('.')} (in {path}).", error.remedy) from error
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{path} does not describe a model: {reason_of(error)}.", "Check it.") from error


def _build_config(folder: Path, fields: dict[str, Any]) -> SlowFastConfig:
    if (published := published_family(fields.get("model_type"))) is not None:
        return published.read_published(folder, fields)
    if fields.get("model_type") != SlowFastConfig.model_type:
        raise CheckpointError(
            f"The model is of type {fields.get('model_type')!r}.", "Only slow-fast checkpoints can be loaded."
        )
    # Without these transformers would fall back on the defaults of a 7B model.
    for name in ("text_config", "vision_config"):
        if not isinstance(fields.get(name), dict):
            raise CheckpointError(f"{name} is {fields.get(name)!r}, not an object.", CHECK_CONFIG)
    _refuse_unknown_fields(fields, SlowFastConfig)
    config = SlowFastConfig.from_dict(fields)
    _refuse_unknown_fields(fields["vision_config"], type(config.vision))
    return config


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
