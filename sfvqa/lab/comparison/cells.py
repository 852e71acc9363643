"""What is compared: a cell is a variant of the model with a seed and a number of steps. Trains nothing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import nn

from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.errors import UsageError
from sfvqa.lab.comparison.scenes import Timeline
from sfvqa.lab.network import OPEN, prepare, small_decoder
from sfvqa.lab.tiny.render import check_quality
from sfvqa.model import (
    Gating,
    SlowAttentionScope,
    SlowFastConfig,
    SlowFastForConditionalGeneration,
)
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.registry.architecture import PromptSize, prefill_flops, prompt_size
from sfvqa.training.convert import interleave

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedTokenizerFast
from sfvqa.model.families.slowfast import SlowFastVisionConfig

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


MAX_POSITIONS = 4096
_LAYER = re.compile(r"(language_model\.layers\.)(\d+)(\..+)")


def config_of(settings: Settings, variant: Variant, tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """All differences between variants but the first values of the slow keys and values."""
    num_layers = settings.num_layers * (2 if variant.deep else 1)
    everything = variant.tokens is Tokens.ALL
    num_fast_frames = variant.num_frames if everything else min(variant.num_fast_frames, variant.num_frames)
    has_slow = variant.tokens is Tokens.SLOW_FAST
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(
            image_size=settings.image_size, depths=(2,) * len(settings.vision_dims), dims=settings.vision_dims
        ),
        text_config=small_decoder(tokenizer, settings.width, num_layers=num_layers, max_positions=MAX_POSITIONS),
        video_pooling_stride=2,
        temporal_stride=variant.num_frames // num_fast_frames,
        min_fast_frames=num_fast_frames,
        hybrid_layers=tuple(range(0, num_layers, variant.hybrid_every)) if has_slow else (),
        slow_attention_scope=variant.scope,
        gating=variant.gating,
        training_num_frames=variant.num_frames,
        tie_word_embeddings=True,
    )


def build(
    settings: Settings,
    variant: Variant,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    learned: Mapping[str, Tensor] | None = None,
) -> SlowFastForConditionalGeneration:
    """A model that starts from what was `learned`, and fresh where that has nothing.

    What variants have in common starts from the same values for the same seed.
    """
    torch.manual_seed(seed)
    model = SlowFastForConditionalGeneration(config_of(settings, variant, tokenizer))
    _draw_again(model, seed)
    torch.manual_seed(seed)
    prepare(model, variant.first_gate)
    model.load_state_dict(deepened(learned) if learned and variant.deep else learned or {}, strict=False)
    if variant.slow_from_decoder:
        for layer in model.config.hybrid_layers:
            slow_from_decoder(model.language_model.get_submodule(f"layers.{layer}.self_attn"))
    return model


def _draw_again(model: SlowFastForConditionalGeneration, seed: int) -> None:
    """First values of the decoder, module by module: those of slow attention must not shift what comes after them."""
    deviation = model.config.decoder_config.initializer_range
    for slow in (False, True):
        generator = torch.Generator().manual_seed(seed + slow)
        for name, parameter in model.language_model.named_parameters():
            if ("slow_attention" in name) == slow and parameter.ndim == 2:
                nn.init.normal_(parameter, std=deviation, generator=generator)


def deepened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a decoder of twice as many layers with the same logits: behind each layer comes a copy of it that
    adds nothing yet, since its last projections are zero.
    """
    found = {}
    for name, value in state.items():
        layer = _LAYER.match(name)
        if layer is None:
            found[name] = value
            continue
        before, number, after = layer.groups()
        found[f"{before}{2 * int(number)}{after}"] = value
        is_last = after in (".self_attn.o_proj.weight", ".mlp.down_proj.weight")
        found[f"{before}{2 * int(number) + 1}{after}"] = torch.zeros_like(value) if is_last else value
    return found


@torch.no_grad()
def slow_from_decoder(attention: nn.Module) -> None:
    """Give slow attention the layer's own keys and values to start from, interleaved head by head as it reads them."""
    slow = attention.slow_attention
    assert isinstance(slow, GatedSlowAttention)
    for name in ("weight", "bias"):
        keys, values = (getattr(projection, name) for projection in (attention.k_proj, attention.v_proj))
        getattr(slow.kv_proj, name).copy_(interleave(keys, values, slow.num_key_value_heads))


def prompt_flops(config: SlowFastConfig, num_frames: int, num_text: int) -> float:
    """Floating-point operations of the decoder's pass over a prompt about a video, cross-attention included."""
    sizes = architecture_of(config)
    prompt = prompt_size(sizes, fast_tokens_of(config), num_frames, num_text)
    if config.slow_attention_scope is SlowAttentionScope.ALL:
        prompt = PromptSize(prompt.length, prompt.num_slow, num_looking=prompt.length)
    if not config.hybrid_layers:
        prompt = PromptSize(prompt.length)
    return prefill_flops(sizes, prompt)
