"""A profile: measurements by number of frames, baselines and device, as JSON and as a table. No tensors."""

import csv
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.floors import DeviceRates
from sfvqa.registry.architecture import Flops
from sfvqa.wording import plural


@dataclass(frozen=True)
class Spread:
    """`noise` is how far apart least and most are, as a share of the median; None where that says nothing.

    >>> spread = Spread.of([1.0, 1.3, 1.1])
    >>> spread.median, spread.least, spread.most, round(spread.noise, 2)
    (1.1, 1.0, 1.3, 0.27)
    """

    median: float
    least: float
    most: float
    num_repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @property
    def noise(self) -> float | None:
        """None for a single repeat, and for a median of 0."""
        return None if self.num_repeats < 2 or not self.median else (self.most - self.least) / self.median

    def overlaps(self, other: "Spread") -> bool:
        """Whether some value may have been seen in both."""
        return self.least <= other.most and other.least <= self.most


_CPU_FACTS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Device:
    """Where the network ran. `load_average` is the machine's own of the last minute, before the first run; None where
    unknown.
    """

    kind: str
    name: str
    num_threads: int
    num_cores: int | None
    load_average: float | None
    torch_version: str
    transformers_version: str
    python_version: str

    @classmethod
    def of(cls, device: torch.device) -> "Device":
        """The current facts about a device."""
        return cls(
            kind=device.type,
            name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            num_threads=torch.get_num_threads(),
            num_cores=os.cpu_count(),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            torch_version=torch.__version__,
            transformers_version=version("transformers"),
            python_version=platform.python_version(),
        )

    @property
    def title(self) -> str:
        """`NVIDIA H200`, `Intel Xeon, 2 threads`."""
        return self.name if self.kind == "cuda" else f"{self.name}, {plural(self.num_threads, 'thread')}"


def _processor() -> str:
    """The processor's name, which Linux keeps in a file."""
    try:
        lines = _CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
        """For JSON."""
        return _to_dict(self) | {"num_text_tokens": self.num_text_tokens}


@dataclass(frozen=True)
class BaselinePoint:
    """A baseline at one number of frames. FLOPs are by formula."""

    baseline: Baseline
    num_frames: int
    num_prompt_tokens: int
    spreads: Spreads
    prefill_flops: float
    decode_flops_per_token: float

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return _to_dict(self)


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
        named = ("baseline", "num_frames")
        return {name if name in named else f"{name}_baseline_over_slow_fast": of for name, of in asdict(self).items()}


@dataclass(frozen=True)
class Profile:
    """A whole profile; `baselines` is None if none was measured. `model` and `settings` are plain JSON objects.

    `prefill_flops_self_attention_only` are what as many frames as there are fast frames take, without slow tokens.
    """

    model: Mapping[str, Any]
    device: Device
    settings: Mapping[str, Any]
    points: tuple[ProfilePoint, ...]
    baselines: tuple[BaselinePoint, ...] | None
    prefill_flops_self_attention_only: float
    rates: DeviceRates | None
    warnings: tuple[str, ...] = ()

    def ratios(self) -> list[Ratio]:
        """Ratios of every baseline to the slow-fast model."""
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
            "device": asdict(self.device),
            "rates": asdict(self.rates) if self.rates else None,
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


def _to_dict(point: ProfilePoint | BaselinePoint) -> dict[str, object]:
    """With the medians by name, and least and most of each under `spread`, in place of `spreads`."""
    fields, spreads = asdict(point), point.spreads
    del fields["spreads"]
    return {
        **fields,
        **{name: spread.median for name, spread in spreads.items()},
        "spread": {name: [spread.least, spread.most] for name, spread in spreads.items()},
        "num_repeats": next(iter(spreads.values())).num_repeats,
    }


@dataclass(frozen=True)
class Layer:
    """One part of a bar: its display name and its seconds."""

    name: str
    seconds: float


def layers_of(point: ProfilePoint) -> list[Layer]:
    """Parts of the time to the first token, without choosing it and without reading that overlaps."""
    median = point.median
    slow = median("slow_keys_values_seconds")
    return [
        Layer("open and read", max(0.0, median("open_seconds") + median("read_seconds") - median("overlap_seconds"))),
        Layer("preprocess", median("preprocess_seconds")),
        Layer("vision tower", median("vision_tower_seconds")),
        Layer("projector and pooling", median("projector_seconds")),
        Layer("slow keys and values", slow),
        Layer("rest of the prefill", median("prefill_seconds") - slow),
    ]


SLOW_FAST = "slow_fast"
"""What the mode column says of the model as it is; else it names a baseline."""


def write_csv(profile: Profile, stream: TextIO) -> int:
    """Write a profile as CSV and return the number of rows; unknown values stay empty."""

    def row(point: ProfilePoint | BaselinePoint, mode: str, flops: Mapping[str, float]) -> dict[str, object]:
        tokens = ("num_frames", "num_prompt_tokens", "num_fast_tokens", "num_slow_tokens")
        cells: dict[str, object] = {"mode": mode} | {name: getattr(point, name, None) for name in tokens}
        for name, spread in point.spreads.items():
            cells |= {name: spread.median, f"{name}_least": spread.least, f"{name}_most": spread.most}
        cells["num_repeats"] = next(iter(point.spreads.values())).num_repeats
        cells |= {name: getattr(point, name, None) for name in ("peak_host_bytes", "peak_device_bytes")}
        return cells | {f"{name}_flops": value for name, value in flops.items()}

    rows = [row(point, SLOW_FAST, asdict(point.flops)) for point in profile.points]
    for point in profile.baselines or ():
        flops = {"prefill": point.prefill_flops, "decode_per_token": point.decode_flops_per_token}
        rows.append(row(point, point.baseline.value, flops))
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return len(rows)
