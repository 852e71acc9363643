"""A profile as a table for a spreadsheet: a row a mode and number of frames, a column a figure."""

import csv
from collections.abc import Iterator
from typing import TextIO

from sfvqa.profiling.profile import Profile, ProfilePoint, Spreads

SLOW_FAST = "slow_fast"
"""What the mode column says of the model as it is; else it names a baseline."""

_TOKENS = ("num_prompt_tokens", "num_fast_tokens", "num_slow_tokens")
_PEAKS = ("peak_host_bytes", "peak_device_bytes")


def write_csv(profile: Profile, stream: TextIO) -> int:
    """Write it, and say how many rows there are; what is unknown stays empty."""
    figures = list(profile.points[0].spreads)
    flops = list(profile.points[0].flops.to_dict())
    columns = [
        *("mode", "num_frames", *_TOKENS),
        *(column for name in figures for column in (name, f"{name}_least", f"{name}_most")),
        *("num_repeats", *_PEAKS, *(f"{name}_flops" for name in flops)),
    ]
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    rows = [*map(_row, profile.points), *_baseline_rows(profile)]
    writer.writerows(rows)
    return len(rows)


def _row(point: ProfilePoint) -> dict[str, object]:
    return {
        "mode": SLOW_FAST,
        "num_frames": point.num_frames,
        **{name: getattr(point, name) for name in _TOKENS},
        **_figures(point.spreads),
        **{name: getattr(point, name) for name in _PEAKS},
        **{f"{name}_flops": value for name, value in point.flops.to_dict().items()},
    }


def _baseline_rows(profile: Profile) -> Iterator[dict[str, object]]:
    for point in profile.baselines or ():
        yield {
            "mode": point.baseline.value,
            "num_frames": point.num_frames,
            "num_prompt_tokens": point.num_prompt_tokens,
            **_figures(point.spreads),
            "prefill_flops": point.prefill_flops,
            "decode_per_token_flops": point.decode_flops,
        }


def _figures(spreads: Spreads) -> dict[str, object]:
    cells: dict[str, object] = {}
    for name, spread in spreads.items():
        cells |= {name: spread.median, f"{name}_least": spread.least, f"{name}_most": spread.most}
        cells["num_repeats"] = spread.num_repeats
    return cells
