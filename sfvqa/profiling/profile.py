"""A profile: what was measured for each number of frames, against what, on what. Plain data, no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.floors import DeviceRates
from sfvqa.profiling.flops import Flops
from sfvqa.profiling.machine import Device
from sfvqa.profiling.spread import Spread

SCHEMA_VERSION = 1

Spreads = Mapping[str, Spread]
"""Measured figures by name, those of `measuring.Figures`."""


@dataclass(frozen=True)
class ProfilePoint:
    """One number of frames, really there. Peaks are of one run, None where unknown; `flops_counted` is None where the
    weights are quantized, since torch counts nothing of those. `floors` are seconds by the names of figures.
    """

    num_frames: int
    num_prompt_tokens: int
    num_fast_tokens: int
    num_slow_tokens: int
    spreads: Spreads
    peak_host_bytes: int | None
    peak_device_bytes: int | None
    flops: Flops
    flops_counted: Flops | None
    prefill_flops_all_in_self_attention: float
    floors: Mapping[str, float] | None

    @property
    def num_text_tokens(self) -> int:
        """Of the prompt, its template included."""
        return self.num_prompt_tokens - self.num_fast_tokens

    def median(self, name: str) -> float:
        """Of one figure."""
        return self.spreads[name].median

    def to_dict(self) -> dict[str, object]:
        """For JSON: medians by name, and least and most of each under `spread`."""
        return {
            "num_frames": self.num_frames,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_fast_tokens": self.num_fast_tokens,
            "num_slow_tokens": self.num_slow_tokens,
            "num_text_tokens": self.num_text_tokens,
            **_spreads_to_dict(self.spreads),
            "peak_host_bytes": self.peak_host_bytes,
            "peak_device_bytes": self.peak_device_bytes,
            "flops": self.flops.to_dict(),
            "flops_counted": self.flops_counted.to_dict() if self.flops_counted else None,
            "prefill_flops_all_in_self_attention": self.prefill_flops_all_in_self_attention,
            "floors": None if self.floors is None else dict(self.floors),
        }


@dataclass(frozen=True)
class BaselinePoint:
    """One other mode at one number of frames. FLOPs are by the formula; `decode_flops` are one token's."""

    baseline: Baseline
    num_frames: int
    num_prompt_tokens: int
    spreads: Spreads
    prefill_flops: float
    decode_flops: float

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "baseline": self.baseline.value,
            "num_frames": self.num_frames,
            "num_prompt_tokens": self.num_prompt_tokens,
            **_spreads_to_dict(self.spreads),
            "prefill_flops": self.prefill_flops,
            "decode_flops_per_token": self.decode_flops,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as long a baseline takes as the slow-fast model with `num_frames`, medians of one profile.

    The baseline of self-attention only has fewer frames itself, and is compared with every number of them.
    """

    baseline: Baseline
    num_frames: int
    prefill: float
    decode: float
    prefill_flops: float

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "baseline": self.baseline.value,
            "num_frames": self.num_frames,
            "prefill_baseline_over_slow_fast": self.prefill,
            "decode_baseline_over_slow_fast": self.decode,
            "prefill_flops_baseline_over_slow_fast": self.prefill_flops,
        }


@dataclass(frozen=True)
class Profile:
    """All of it; `baselines` is None when none was measured. `model` and `settings` are plain JSON objects.

    `prefill_flops_self_attention_only` are what as many frames as there are fast frames take, without slow tokens.
    """

    model: Mapping[str, object]
    device: Device
    settings: Mapping[str, object]
    points: tuple[ProfilePoint, ...]
    baselines: tuple[BaselinePoint, ...] | None
    prefill_flops_self_attention_only: float
    rates: DeviceRates | None
    warnings: tuple[str, ...] = ()

    def ratios(self) -> list[Ratio]:
        """Every baseline over the slow-fast model."""
        return [
            Ratio(
                of.baseline,
                point.num_frames,
                prefill=of.spreads["prefill_seconds"].median / point.median("prefill_seconds"),
                decode=of.spreads["decode_seconds_per_token"].median / point.median("decode_seconds_per_token"),
                prefill_flops=of.prefill_flops / point.flops.prefill,
            )
            for of in self.baselines or ()
            for point in self.points
            if of.num_frames == point.num_frames or of.baseline is Baseline.SELF_ATTENTION_ONLY
        ]

    def noisiest(self) -> tuple[str, int, float] | None:
        """The figure that differed most between the repeats, with its number of frames and by what share; None where
        nothing was repeated. Figures of less than a thousandth of the total are left out, however they jump.
        """
        found = [
            (name, point.num_frames, spread.noise)
            for point in self.points
            for name, spread in point.spreads.items()
            if spread.noise is not None and spread.median >= point.median("total_seconds") / 1000
        ]
        return max(found, key=lambda one: one[2]) if found else None

    def about(self, video: Path) -> "Profile":
        """The same with the video's path as the user gave it."""
        return replace(self, settings={**self.settings, "video": str(video)})

    def to_dict(self) -> dict[str, object]:
        """The object `sfvqa profile --json` prints."""
        noisiest = self.noisiest()
        return {
            "schema_version": SCHEMA_VERSION,
            "model": dict(self.model),
            "device": self.device.to_dict(),
            "rates": self.rates.to_dict() if self.rates else None,
            "settings": dict(self.settings),
            "points": [point.to_dict() for point in self.points],
            "prefill_flops_self_attention_only": self.prefill_flops_self_attention_only,
            "baselines": None if self.baselines is None else [point.to_dict() for point in self.baselines],
            "ratios": None if self.baselines is None else [ratio.to_dict() for ratio in self.ratios()],
            "noise": None
            if noisiest is None
            else {"largest": noisiest[2], "of": noisiest[0], "num_frames": noisiest[1]},
            "warnings": list(self.warnings),
        }


def _spreads_to_dict(spreads: Spreads) -> dict[str, object]:
    return {
        **{name: spread.median for name, spread in spreads.items()},
        "spread": {name: [spread.least, spread.most] for name, spread in spreads.items()},
        "num_repeats": next(iter(spreads.values())).num_repeats,
    }
