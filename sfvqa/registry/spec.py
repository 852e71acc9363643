"""ModelSpec: one model known by name, before anything of it is on this machine."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from sfvqa.errors import ModelError
from sfvqa.registry.architecture import Architecture

# The names of enums of sfvqa.video, written out because importing those would import numpy; a test compares.
SamplingName = Literal[
    "uniform",
    "fps",
    "keyframes",
    "scene",
    "timestamps",
    "reference-demo",
    "reference-training",
    "reference-evaluation",
]
CropName = Literal["center", "pad", "squash"]

_REPO_ID = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


class QuantizationName(StrEnum):
    """What `quantization` of a model may say; `auto` is the best that fits the free memory."""

    AUTO = "auto"
    NONE = "none"
    EIGHT_BIT = "8bit"
    FOUR_BIT = "4bit"


@dataclass(frozen=True)
class FastTokens:
    """How the fast tokens are made of the visual tokens, in training and so in use (paper, section 3.1).

    Raises ModelError for a number below 1.
    """

    temporal_stride: int
    min_fast_frames: int
    temporal_sampling_stride: int = 1
    spatial_stride: int = 1

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number < 1:
                raise ModelError(f"`{name}` of the fast tokens is {number}.", "Give a number above 0.")

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
    sampling: SamplingName = "uniform"
    crop: CropName = "center"
    quantization: QuantizationName = QuantizationName.NONE
    repo_id: str | None = None
    folder: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    source: str = field(default="models.toml", compare=False)

    def __post_init__(self) -> None:
        if self.repo_id is not None and self.folder is not None:
            raise self.invalid("has both `repo_id` and `folder`", "Keep one of them.")
        if min(self.size_bytes, self.num_frames, self.training_max_length) < 1:
            raise self.invalid("has a size, a number of frames or a length below 1", "Give positive numbers.")
        if self.fast_tokens.spatial_stride > (side := self.architecture.grid_side(num_frames=2)):
            raise self.invalid(
                f"averages over {self.fast_tokens.spatial_stride} cells, where a frame has {side} a side",
                "Correct spatial_stride, or the architecture.",
            )
        if self.repo_id is not None and not _is_repo_id(self.repo_id):
            raise self.invalid(f"has a `repo_id` that is none: {self.repo_id!r}", "Write it as owner/name.")
        if any(not name.strip() for name in self.all_names):
            raise self.invalid("has an empty name", "Give it one that can be typed.")

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


def _is_repo_id(text: str) -> bool:
    """Whether the Hugging Face hub could have a repository of this name: its client raises for any other.

    >>> [_is_repo_id(text) for text in ("acme/small-1.5", "gpt2", "a/b/c", "../..", "acme/no blanks", "")]
    [True, True, False, False, False, False]
    """
    is_formed = _REPO_ID.fullmatch(text) is not None
    return is_formed and "--" not in text and ".." not in text and not text.endswith(".git")
