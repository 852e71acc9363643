"""Compare a profile with an earlier one: which figures changed beyond the noise of both.

The rule: a figure changed when no value of the one profile lies within the range of the other's, and the medians are
at least 5 % apart. Where one of them was measured only once its noise is unknown, and so is whether it changed.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfvqa.errors import UsageError
from sfvqa.profiling.profile import SCHEMA_VERSION, Profile, Spread

LEAST_CHANGE = 0.05
"""Less is not worth a mark, however steady both were: another day, another temperature."""

_COMPARED = ("model", "device", "settings")
_OF_THE_MOMENT = ("load_average", "video", "video_info")


@dataclass(frozen=True)
class Change:
    """One figure in both profiles."""

    num_frames: int
    name: str
    old: Spread
    new: Spread

    @property
    def ratio(self) -> float | None:
        """New over old; None if the old one is 0."""
        return self.new.median / self.old.median if self.old.median else None

    @property
    def is_beyond_noise(self) -> bool | None:
        """By the rule above; None if it cannot be told.

        >>> steady, slower = Spread(1.0, 0.9, 1.1, 3), Spread(1.3, 1.2, 1.4, 3)
        >>> Change(8, "ttft_seconds", steady, slower).is_beyond_noise
        True
        >>> Change(8, "ttft_seconds", steady, Spread(1.2, 1.05, 1.3, 3)).is_beyond_noise
        False
        """
        if min(self.old.num_repeats, self.new.num_repeats) < 2 or self.ratio is None:
            return None
        return abs(self.ratio - 1) >= LEAST_CHANGE and not self.old.overlaps(self.new)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "num_frames": self.num_frames,
            "figure": self.name,
            "old": self.old.median,
            "new": self.new.median,
            "ratio": self.ratio,
            "is_beyond_noise": self.is_beyond_noise,
        }


@dataclass(frozen=True)
class Comparison:
    """Every figure of both profiles; `differences` are settings that differ, which may explain a change."""

    changes: tuple[Change, ...]
    differences: tuple[str, ...]

    @property
    def beyond_noise(self) -> list[Change]:
        """Those that changed."""
        return [change for change in self.changes if change.is_beyond_noise]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"changes": [change.to_dict() for change in self.changes], "differences": list(self.differences)}


def read_profile(path: Path) -> dict[str, Any]:
    """Read the output of `sfvqa profile --json`. Raises UsageError for anything else, or another version."""
    remedy = "Name a file that `sfvqa profile --json` wrote."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The profile {path} cannot be read: {error.strerror or error}.", remedy) from error
    except ValueError as error:
        raise UsageError(f"{path} is not a profile: it is not JSON ({error}).", remedy) from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION or "points" not in found:
        raise UsageError(f"{path} is not a profile of version {SCHEMA_VERSION}.", remedy)
    try:
        for part in _COMPARED:
            if not isinstance(found[part], dict):
                raise TypeError(f"{part} is no object")
        for point in found["points"]:
            if type(point["num_frames"]) is not int:
                raise TypeError(f"num_frames is {point['num_frames']!r}")
            dict(_spreads(point))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"The profile {path} is damaged: {type(error).__name__}: {error}.", remedy) from error
    return found


def check_comparable(old: Mapping[str, Any], frame_counts: Sequence[int]) -> None:
    """Raise UsageError if an earlier profile shares no number of frames with those to be measured."""
    before = [point["num_frames"] for point in old["points"]]
    if not set(before) & set(frame_counts):
        raise UsageError(
            f"The old profile covers {_list(before)} frames, this {_list(frame_counts)}: there is nothing to compare.",
            f"Use --frames {','.join(map(str, before))}." if before else "Name another profile.",
        )


def compare(old: Mapping[str, Any], new: Profile) -> Comparison:
    """Compare an earlier profile, from `read_profile`, with this one."""
    document = new.to_dict()
    before = {point["num_frames"]: dict(_spreads(point)) for point in old["points"]}
    changes = [
        Change(point.num_frames, name, before[point.num_frames][name], spread)
        for point in new.points
        for name, spread in point.spreads.items()
        if name in before.get(point.num_frames, {})
    ]
    return Comparison(tuple(changes), tuple(_differences(old, document)))


def _list(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) or "no"


def _spreads(point: Mapping[str, Any]) -> Iterator[tuple[str, Spread]]:
    for name, (least, most) in point["spread"].items():
        spread = Spread(float(point[name]), float(least), float(most), int(point["num_repeats"]))
        if not (math.isfinite(spread.median) and spread.least <= spread.median <= spread.most):
            raise ValueError(f"{name} is no measured figure")
        yield name, spread


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for part in _COMPARED:
        one, other = (document.get(part) or {} for document in (old, new))
        for name in dict.fromkeys([*one, *other]):
            if name not in _OF_THE_MOMENT and one.get(name) != other.get(name):
                yield f"{part}.{name}: {one.get(name)} before, {other.get(name)} now"
    settings = [document.get("settings") or {} for document in (old, new)]
    if settings[0].get("video_info") != settings[1].get("video_info"):
        yield f"the video: {settings[0].get('video')} before, {settings[1].get('video')} now"
