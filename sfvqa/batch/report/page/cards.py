"""What the page shows of each video: its items, together with those that looked at the same frames."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfvqa.batch.record import Record
from sfvqa.batch.report.facts import (
    STAGES,
    Failure,
    failure_of,
    mapping_of,
    number,
    text_of,
    texts_of,
    verdict_of,
)
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Verdict
from sfvqa.inference.answer import FrameEvidence, standing_out

_NUM_MOMENTS = 3


@dataclass(frozen=True)
class PageItem:
    """A question, and what became of it; `likely` has each choice with its probability, `looked_at` the moments that
    stand out in the answer's evidence.
    """

    question: str
    answer: str | None
    expected: str | None
    verdict: Verdict | None
    failure: Failure | None
    finish_reason: str | None
    likely: tuple[tuple[str, float], ...]
    looked_at: tuple[FrameEvidence, ...]
    warnings: tuple[str, ...]
    own_id: str | None
    group: str | None
    seconds: dict[str, float]
    new_tokens: int


@dataclass(frozen=True)
class SeenFrames:
    """The frames that some items looked at: places in the file, and times in seconds. None for items that failed."""

    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]


@dataclass
class VideoCard:
    """A video: its name in the records, where it lay, what it was read with, and its items by the frames they saw."""

    name: str
    recorded_path: Path | None
    reader: str | None = None
    views: dict[SeenFrames, list[PageItem]] = field(default_factory=dict)


def gather_cards(records: Iterable[Record], rule: Rule) -> list[VideoCard]:
    """The videos in the order they first come in the records, their items judged by a rule."""
    cards: dict[str, VideoCard] = {}
    for record in records:
        name = text_of(record, "video") or ""
        path = text_of(record, "video_path")
        card = cards.setdefault(name, VideoCard(name, Path(path) if path else None))
        card.reader = card.reader or text_of(mapping_of(record, "settings"), "reader")
        frames = _frames_of(record)
        card.views.setdefault(frames, []).append(_item_of(record, frames, rule))
    return list(cards.values())


def _item_of(record: Record, frames: SeenFrames, rule: Rule) -> PageItem:
    is_ok = record.get("status") == "ok"
    timings = mapping_of(record, "timings")
    seconds = {stage: number(timings.get(f"{stage}_seconds")) for stage in (*STAGES, "total")}
    return PageItem(
        question=text_of(record, "question") or "",
        answer=text_of(record, "answer") or "" if is_ok else None,
        expected=text_of(record, "answer_expected"),
        verdict=verdict_of(record, rule),
        failure=None if is_ok else failure_of(record),
        finish_reason=text_of(record, "finish_reason"),
        likely=_likely_of(record),
        looked_at=_looked_at(record, frames),
        warnings=texts_of(record, "warnings"),
        own_id=text_of(record, "id"),
        group=text_of(record, "group"),
        seconds={stage: value for stage, value in seconds.items() if value is not None},
        new_tokens=int(number(mapping_of(record, "tokens").get("new")) or 0),
    )


def _likely_of(record: Record) -> tuple[tuple[str, float], ...]:
    choices = record.get("choices")
    found = []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (share := number(choice.get("probability"))) is not None:
            found.append((text_of(choice, "text") or "", share))
    return tuple(found)


def _looked_at(record: Record, frames: SeenFrames) -> tuple[FrameEvidence, ...]:
    """None where not every frame that was seen has its weight."""
    evidence = record.get("evidence")
    weights = (
        [number(frame.get("weight")) for frame in evidence if isinstance(frame, dict)]
        if isinstance(evidence, list)
        else []
    )
    found = [
        FrameEvidence(time, index, weight)
        for time, index, weight in zip(frames.timestamps_seconds, frames.indices, weights, strict=False)
        if weight is not None
    ]
    return tuple(standing_out(found, _NUM_MOMENTS)) if len(found) == len(weights) == len(frames.indices) else ()


def _frames_of(record: Mapping[str, Any]) -> SeenFrames:
    """The frames of a record; none where indices and times do not belong together."""
    frames = mapping_of(record, "frames")
    indices, times = frames.get("indices"), frames.get("timestamps_seconds")
    if not isinstance(indices, list) or not isinstance(times, list) or len(indices) != len(times):
        return SeenFrames((), ())
    numbers = [number(time) for time in times]
    is_sound = all(type(index) is int and index >= 0 for index in indices) and indices == sorted(set(indices))
    if not is_sound or None in numbers:
        return SeenFrames((), ())
    return SeenFrames(tuple(indices), tuple(time for time in numbers if time is not None))
