"""ModelSpec: one model known by name, before anything of it is on this machine."""

from dataclasses import dataclass, field
from enum import StrEnum

from sfvqa.errors import ModelError
from sfvqa.registry.architecture import Architecture


class QuantizationName(StrEnum):
    """What `quantization` of a model may say; `auto` is the best that fits the free memory."""

    AUTO = "auto"
    NONE = "none"
    EIGHT_BIT = "8bit"
    FOUR_BIT = "4bit"


@dataclass(frozen=True)
class FastTokens:
    """How the fast tokens are made of the visual tokens, in training and so in use (paper, section 3.1)."""

    temporal_stride: int
    min_fast_frames: int
    temporal_sampling_stride: int = 1
    spatial_stride: int = 1

    def num_averages(self, num_frames: int) -> int:
        """How many averages over time `num_frames` become; sfvqa.model computes them, and a test compares.

        >>> released = FastTokens(temporal_stride=4, min_fast_frames=16)
        >>> [released.num_averages(num_frames) for num_frames in (8, 32, 64, 96)]
        [8, 16, 16, 24]
        """
        kept = num_frames
        if self.temporal_sampling_stride > 1 and num_frames >= self.min_fast_frames:
            kept = max(num_frames // self.temporal_sampling_stride, self.min_fast_frames)
        windows = kept // self.temporal_stride
        return windows if windows >= self.min_fast_frames else min(kept, self.min_fast_frames)


@dataclass(frozen=True)
class ModelSpec:
    """One model known by name: where its weights are, and what to know before using it.

    Its weights are in `repo_id` (Hugging Face) or in `folder` (relative to the package); a model with neither has an
    architecture only, and runs with random weights. `sampling` and `crop` name a `SamplingStrategy` and a `CropMode`;
    `can_answer` finishes the sentence "It can answer questions about …". `size_bytes` is that of the tensors as
    stored; `memory_hint` is a sentence on what it takes to run.
    """

    name: str
    description: str
    can_answer: str
    license: str
    size_bytes: int
    num_frames: int
    architecture: Architecture
    fast_tokens: FastTokens
    training_max_length: int
    memory_hint: str
    sampling: str = "uniform"
    crop: str = "center"
    quantization: QuantizationName = QuantizationName.NONE
    repo_id: str | None = None
    folder: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    source: str = field(default="models.toml", compare=False)

    def __post_init__(self) -> None:
        if self.repo_id is not None and self.folder is not None:
            raise self.invalid("has both `repo_id` and `folder`", "Keep one of them.")
        if self.size_bytes < 1 or self.num_frames < 1:
            raise self.invalid("has a size or a number of frames below 1", "Give positive numbers.")

    @property
    def is_bundled(self) -> bool:
        """Whether the package carries the weights."""
        return self.folder is not None

    @property
    def has_weights(self) -> bool:
        """Whether there are trained weights anywhere; without, it runs with random ones only."""
        return self.folder is not None or self.repo_id is not None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name it answers to: its own, its aliases, its repository."""
        return (self.name, *self.aliases, *((self.repo_id,) if self.repo_id else ()))

    def invalid(self, what: str, remedy: str) -> ModelError:
        """The error that something in the file is wrong with this model."""
        return ModelError(f"The model {self.name!r} in {self.source} {what}.", remedy)
