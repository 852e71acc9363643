"""The stages up to the first token that add up to it, in their order: what charts stack."""

from dataclasses import dataclass

from sfvqa.profiling.profile import ProfilePoint


@dataclass(frozen=True)
class Layer:
    """One part of a bar: its name for people, and the seconds it takes of a point."""

    name: str
    seconds: float


def layers_of(point: ProfilePoint) -> list[Layer]:
    """They add up to the time to the first token, but for choosing it; reading that overlaps is left out."""
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
