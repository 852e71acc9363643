"""What is compared: a cell is a variant of the model with a seed and a number of steps. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sfvqa.model import Gating, SlowAttentionScope
from sfvqa.training.benchmark.scenes import Timeline


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
    twice as many layers as the others.
    """

    name: str
    num_frames: int
    tokens: Tokens = Tokens.SLOW_FAST
    num_fast_frames: int = 16
    hybrid_every: int = 2
    deep: bool = False
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

    def scaled(self, scale: float) -> Settings:
        """The same with steps and videos `scale` times as many, two steps and four videos at least."""

        def steps(number: int) -> int:
            return max(2, round(number * scale))

        return replace(
            self,
            see_steps=steps(self.see_steps),
            still_steps=steps(self.still_steps),
            few_steps=steps(self.few_steps),
            base_steps=steps(self.base_steps),
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
        Variant("self-attention-16", 16, Tokens.ALL),
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
        replace(base, name="slow-from-nothing", slow_from_decoder=False),
        replace(base, name="all-tokens-look", scope=SlowAttentionScope.ALL),
        *[
            replace(base, name=f"temporal-stride-{stride}", num_fast_frames=num_frames // stride)
            for stride in (2, 4, 8)
            if stride != num_frames // base.num_fast_frames
        ],
    ]
