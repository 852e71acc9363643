"""What is compared: a cell is a variant of the model with a seed and a number of steps. Trains nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sfvqa.errors import UsageError
from sfvqa.model import Gating, SlowAttentionScope
from sfvqa.training.benchmark.compression import check_quality
from sfvqa.training.benchmark.scenes import Timeline
from sfvqa.training.small_model import OPEN

FAST_FRAMES = 16  # averages over time that a prompt holds, whatever the number of frames
HYBRID_EVERY = 2  # layers


class Tokens(StrEnum):
    """Which visual tokens go where."""

    SLOW_FAST = "slow_fast"
    """Averages over time in the prompt, all of them for cross-attention."""
    FAST_ONLY = "fast_only"
    """The same averages in the prompt, nothing else."""
    ALL = "all"
    """All of them in the prompt, nothing else."""


@dataclass(frozen=True)
class Variant:
    """A model to compare. `hybrid_every` is how many layers apart those with cross-attention are; a `deep` one has
    twice as many layers as the others; `first_gate` is what warm-up gates start from, in the paper 0.
    """

    name: str
    num_frames: int
    tokens: Tokens = Tokens.SLOW_FAST
    num_fast_frames: int = FAST_FRAMES
    hybrid_every: int = HYBRID_EVERY
    deep: bool = False
    first_gate: float = OPEN
    gating: Gating = Gating.DYNAMIC_WARM_UP
    slow_from_decoder: bool = True
    scope: SlowAttentionScope = SlowAttentionScope.TEXT


@dataclass(frozen=True)
class Cell:
    """One model to train: `group` says which table it belongs to."""

    group: str
    variant: Variant
    seed: int
    num_steps: int

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.group}-{self.variant.name}-seed{self.seed}"


@dataclass(frozen=True)
class Settings:
    """Everything that cells share: sizes of model and videos, and how much is trained.

    `see_steps` are the vision tower's. `base_steps` are those of the plain decoder that every cell starts from: it
    learns to answer, all in self-attention: from single frames first, the `still_steps`; then, the `few_steps`, from
    a few plates, of which a question means one; then from frames that show every event. What is left to cells
    is to find them among many.
    """

    width: int = 96
    num_layers: int = 4
    vision_dims: tuple[int, int] = (32, 96)
    image_size: int = 64
    timeline: Timeline = field(default_factory=Timeline)
    quality: int = 23  # x264's constant rate factor of the videos
    vocab_size: int = 640  # every word of the benchmark is one token then
    see_steps: int = 3000
    see_scenes: int = 8  # a step
    num_training_videos: int = 4000  # 0.4 MB each; 600 were learned by heart before any was understood
    num_test_videos: int = 300
    still_steps: int = 600
    few_steps: int = 500
    base_steps: int = 2600  # both among them
    num_steps: int = 400
    num_small_steps: int = 200
    rows_per_step: int = 16
    rows_at_once: int = 8
    num_turns: int = 12
    see_rate: float = 8e-3
    learning_rate: float = 3e-3
    save_every: int = 50
    num_seeds: int = 3
    num_frames: int = 64  # of the comparison at one number of frames

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be built, or compares nothing."""
        for name, value in vars(self).items():
            if name not in ("timeline", "vision_dims", "few_steps", "still_steps", "quality") and not value > 0:
                raise UsageError(f"{name} is {value}.", "It must be above 0.")
        check_quality(self.quality)
        if self.width % 8:
            raise UsageError(f"Four even heads cannot share a width of {self.width}.", "Use a multiple of 8.")
        early = (self.still_steps, self.few_steps)
        if min(early) < 0 or sum(early) >= self.base_steps:
            raise UsageError(
                f"Of base_steps {self.base_steps}, {early[0]} and {early[1]} are on few frames.",
                "Leave some for frames that show every event.",
            )
        if self.num_frames % FAST_FRAMES or not FAST_FRAMES < self.num_frames <= self.timeline.num_moments:
            raise UsageError(
                f"The comparison cannot be of {self.num_frames} frames.",
                f"Use a multiple of {FAST_FRAMES}, above it and up to {self.timeline.num_moments}: "
                "there are as many averages over time, and they must be fewer than what they are made of.",
            )

    def scaled(self, scale: float) -> Settings:
        """The same with steps and videos `scale` times as many, two steps and four videos at least."""
        if not 0 < scale < math.inf:
            raise UsageError(f"scale is {scale}.", "It must be above 0.")

        def steps(number: int) -> int:
            return max(2, round(number * scale))

        return replace(
            self,
            see_steps=steps(self.see_steps),
            still_steps=steps(self.still_steps),
            few_steps=steps(self.few_steps),
            base_steps=max(steps(self.base_steps), steps(self.still_steps) + steps(self.few_steps) + 2),
            num_steps=steps(self.num_steps),
            num_small_steps=steps(self.num_small_steps),
            num_training_videos=max(4, round(self.num_training_videos * scale)),
            num_test_videos=max(4, round(self.num_test_videos * min(1.0, 2 * scale))),
        )


MAIN, SMALL = "main", "small"
BASE = Variant("base", 24, Tokens.ALL)


def plan(settings: Settings) -> list[Cell]:
    """All cells, those of the first seed first: the main comparison, then what one seed and fewer steps tell."""
    main = [
        Cell(MAIN, variant, seed, settings.num_steps)
        for seed in range(settings.num_seeds)
        for variant in main_variants(settings.num_frames, settings.timeline.num_moments)
    ]
    small = [Cell(SMALL, variant, 0, settings.num_small_steps) for variant in small_variants(settings)]
    return main + small


def main_variants(num_frames: int, most_frames: int) -> list[Variant]:
    """Slow-fast against what it replaces, at one number of frames; then slow-fast at other numbers."""
    compared = [
        Variant(f"slow-fast-{num_frames}", num_frames),
        Variant(f"fast-only-{num_frames}", num_frames, Tokens.FAST_ONLY),
        Variant(f"all-{num_frames}", num_frames, Tokens.ALL),
        Variant(f"self-attention-{FAST_FRAMES}", FAST_FRAMES, Tokens.ALL),
    ]
    others = [frames for frames in (16, 32, 64, 128) if frames != num_frames and frames <= most_frames]
    return compared + [Variant(f"slow-fast-{frames}", frames) for frames in others]


def small_variants(settings: Settings) -> list[Variant]:
    """One thing changed at a time; spacings of hybrid layers are compared in twice as many layers."""
    num_frames = settings.num_frames
    base = Variant("as-it-is", num_frames)
    depth = 2 * settings.num_layers
    spacings = [every for every in (1, 2, 4, 8) if every <= depth]
    return [
        base,
        *[replace(base, name=f"every-{every}-of-{depth}", hybrid_every=every, deep=True) for every in spacings],
        *[
            replace(base, name=f"gating-{gating.replace('_', '-')}", gating=gating)
            for gating in (Gating.NONE, Gating.WARM_UP, Gating.DYNAMIC)
        ],
        replace(base, name="gates-from-zero", first_gate=0.0),
        replace(base, name="slow-from-nothing", slow_from_decoder=False),
        replace(base, name="all-tokens-look", scope=SlowAttentionScope.ALL),
        *[
            replace(base, name=f"temporal-stride-{stride}", num_fast_frames=num_frames // stride)
            for stride in (2, 4, 8)
            if stride != num_frames // base.num_fast_frames
        ],
    ]
