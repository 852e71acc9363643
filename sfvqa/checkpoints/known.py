"""What is known about a model before it is loaded: its sizes, and how it was trained on videos.

From models.toml, or from a folder's config.json, for which alone torch is imported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfvqa.checkpoints.adapter import TRAINING_FILE, Adapter
from sfvqa.checkpoints.find import find
from sfvqa.checkpoints.host import computes_in_bfloat16
from sfvqa.errors import CheckpointError
from sfvqa.registry import Architecture, FastTokens, ModelSpec, QuantizationName
from sfvqa.video.fitting import CropMode, Fit, FitSquare
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.wording import plural

_WORTH_ROUNDING = 20_000_000  # parameters; a smaller model is fast in float32 too
DEFAULT_NUM_FRAMES = 64  # where neither models.toml nor the checkpoint says
_NUM_FRAMES_FIELDS = ("training_num_frames", "mm_training_video_frames")  # ours, the reference's
_WITH_THESE_FIELDS = ("slow_fast", "llava_qwen_slow_fast")  # model types; of others only the family's own code knows
_CROPS = {CropMode.CENTER: "the centre crop", CropMode.PAD: "padding", CropMode.SQUASH: "squashing"}
_SAMPLED_BY = [strategy for strategy in SamplingStrategy if strategy.needs_number_alone]
_EVENLY_SPREAD = {
    SamplingStrategy.UNIFORM,
    SamplingStrategy.REFERENCE_DEMO,
    SamplingStrategy.REFERENCE_TRAINING,
    SamplingStrategy.REFERENCE_EVALUATION,
}


@dataclass(frozen=True)
class TrainedWith:
    """Frames per video in training (None if unknown), how they were sampled, and how they were made square."""

    num_frames: int | None
    strategy: SamplingStrategy = SamplingStrategy.UNIFORM
    crop: CropMode = CropMode.CENTER

    @classmethod
    def of(
        cls, spec: ModelSpec | None, num_frames: int | None = None, strategy: str | None = None, crop: str | None = None
    ) -> "TrainedWith":
        """What models.toml says of a registered model, else what the checkpoint's config says, None where it does not.

        Raises ValueError for a strategy or crop that does not exist.
        """
        if spec is None:
            return cls(num_frames, SamplingStrategy(strategy or cls.strategy), CropMode(crop or cls.crop))
        return cls(spec.num_frames, SamplingStrategy(spec.sampling), CropMode(spec.crop))

    @property
    def sampling(self) -> SamplingOptions:
        """The frames to take unless told otherwise."""
        return SamplingOptions(num_frames=self.num_frames or DEFAULT_NUM_FRAMES, strategy=self.strategy)

    def warnings(self, asked: SamplingOptions, num_chosen: int, crop: CropMode) -> list[str]:
        """Warnings about the chosen frames: a departure from training, and fewer frames than requested.

        num_chosen: those that turned out to be missing included. What is as by default nobody asked for.

        >>> TrainedWith(None).warnings(SamplingOptions(500), 120, CropMode.CENTER)
        ['500 frames were asked for, but there are only 120 to choose by uniform sampling.']
        """
        departure = self.departure(asked, num_chosen, crop)
        said = [departure] if departure else []
        if num_chosen < asked.num_frames != self.sampling.num_frames and asked.strategy.needs_number_alone:
            there = f"there {'is' if num_chosen == 1 else 'are'} only {num_chosen:,}"
            said.append(
                f"{asked.num_frames:,} frames were asked for, but {there} to choose by {asked.strategy} sampling."
            )
        return said

    def departure(self, asked: SamplingOptions, num_chosen: int, crop: CropMode) -> str | None:
        """The warning that frames differ from the model's training; None if they do not.

        num_chosen: those that turned out to be missing included. It is no departure that a short video has fewer frames
        than were asked for, nor that the reference's samplers round otherwise.

        >>> TrainedWith(32).departure(SamplingOptions(8), 8, CropMode.PAD)
        'The model was trained with 32 frames (here 8), the centre crop (here padding).'
        >>> TrainedWith(32).departure(SamplingOptions(32), 20, CropMode.CENTER)
        """
        parts = []
        spread_otherwise = asked.strategy is not self.strategy and not {asked.strategy, self.strategy} <= _EVENLY_SPREAD
        if self.num_frames is not None and num_chosen != self.num_frames:
            num_asked = len(asked.timestamps_seconds or ()) or asked.num_frames
            if spread_otherwise or num_chosen > self.num_frames or num_asked < self.num_frames:
                parts.append(f"{plural(self.num_frames, 'frame')} (here {num_chosen:,})")
        if spread_otherwise:
            parts.append(f"{self.strategy} sampling (here {asked.strategy})")
        if crop is not self.crop:
            parts.append(f"{_CROPS[self.crop]} (here {_CROPS[crop]})")
        return f"The model was trained with {', '.join(parts)}." if parts else None


def read_trained_with(model: ModelSpec | Path) -> TrainedWith:
    """Read it for a registered model, downloaded or not, or from a checkpoint folder's config.json.

    Raises CheckpointError for a folder without one that can be read.
    """
    if isinstance(model, ModelSpec):
        return TrainedWith.of(model)
    path = model / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path.name} in {model}.", "Name a checkpoint folder.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", "Fetch the checkpoint again.") from error
    named = fields if isinstance(fields, dict) else {}
    if named.get("model_type") not in (*_WITH_THESE_FIELDS, None):
        from sfvqa.model import read_config

        config = read_config(model)
        return TrainedWith.of(None, config.training_num_frames, config.training_sampling, config.training_crop)
    return _stated(path, named)


def trained_with_adapter(adapter: Adapter) -> TrainedWith:
    """The same for an adapter that states it. Raises CheckpointError."""
    return _stated(adapter.folder / TRAINING_FILE, adapter.trained)


def _stated(path: Path, named: dict[str, Any]) -> TrainedWith:
    num_frames = next((named[field] for field in _NUM_FRAMES_FIELDS if named.get(field) is not None), None)
    strategy, crop = named.get("training_sampling"), named.get("training_crop")
    for what, value, is_known in (
        ("frames", num_frames, isinstance(num_frames, int) and num_frames > 0),
        ("sampling", strategy, strategy in _SAMPLED_BY),
        ("crop", crop, crop in list(CropMode)),
    ):
        if value is not None and not is_known:
            raise CheckpointError(f"{path} states {value!r} as the {what} of training.", "Fetch the checkpoint again.")
    return TrainedWith.of(None, num_frames, strategy, crop)


def expected_fit(spec: ModelSpec, crop: CropMode) -> Fit | None:
    """What is done to each frame, by models.toml alone; None where that does not say it.

    SmolVLM's frames pass through a size of which only its own files know before they are squashed.
    """
    sizes = spec.architecture
    return None if sizes.family == "smolvlm" and crop is CropMode.SQUASH else FitSquare(sizes.image_size, crop)


@dataclass(frozen=True)
class ModelSizes:
    """`dtype`, what it computes in where the machine can, and `quantization` are as models.toml or its files say.

    A folder has no `spec`.
    """

    name: str
    sizes: Architecture
    fast: FastTokens
    trained_with: TrainedWith
    dtype: str
    quantization: QuantizationName
    training_max_length: int | None
    spec: ModelSpec | None = None

    def auto_dtype(self, device: str) -> str:
        """What it computes in on a kind of device unless told otherwise: on a CPU without bfloat16 it is float32."""
        if device != "cpu" or self.dtype == "float32":
            return self.dtype
        return "bfloat16" if computes_in_bfloat16() else "float32"


def read_sizes(model: str | Path, adapter: str | Path | None = None) -> ModelSizes:
    """Read the sizes of a registered model from models.toml, of a folder from its config.json. Raises ModelError.

    With an adapter it was trained as that says.
    """
    found = find(model)
    trained_with = read_trained_with(found)
    if adapter is not None and (changed_by := Adapter.of(adapter)).trained:
        trained_with = trained_with_adapter(changed_by)
    if isinstance(found, ModelSpec):
        return ModelSizes(
            found.name,
            found.architecture,
            found.fast_tokens,
            trained_with,
            found.dtype,
            found.quantization,
            found.training_max_length,
            found,
        )
    from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
    from sfvqa.model import read_config, read_quantization

    config, stored = read_config(found), QuantizationName(read_quantization(found).value)
    sizes, stored_dtype = architecture_of(config), str(config.stored_dtype).removeprefix("torch.")
    is_small = sizes.num_parameters < _WORTH_ROUNDING
    dtype = "float32" if is_small else stored_dtype if stored_dtype in ("bfloat16", "float16") else "bfloat16"
    default = QuantizationName.AUTO if stored is QuantizationName.NONE else stored
    return ModelSizes(
        str(model),
        sizes,
        fast_tokens_of(config),
        trained_with,
        dtype,
        default,
        config.training_max_length,
    )
