"""What the page shows of each video: its items, grouped by the frames they saw, and thumbnails of those frames."""

import contextlib
import io
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from sfvqa.batch.record import Failure, Record
from sfvqa.batch.report.against import Comparison, Outcome
from sfvqa.batch.report.facts import (
    STAGES,
    failure_of,
    last_records,
    mapping_of,
    number,
    text_of,
    texts_of,
    verdict_of,
)
from sfvqa.batch.report.wording import duration
from sfvqa.errors import SfvqaError
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Verdict
from sfvqa.inference.answer import FrameEvidence, standing_out
from sfvqa.video import FitWithin, ReaderName, ReadOptions, format_time, open_video
from sfvqa.video.readers import num_available_cores
from sfvqa.wording import plural

_NUM_LIKELY = 6  # choices
_NUM_MOMENTS = 3
_SHORTEST_SECONDS = 0.005  # of a stage that is worth naming
_FIT = FitWithin(240, 180)
_QUALITY = 72
_TIMEOUT_SECONDS = 60.0
_SAME_TIME_SECONDS = 0.002


@dataclass(frozen=True)
class PageItem:
    """A question and what became of it.

    `likely` holds the likeliest choices and their probabilities, `looked_at` the frames that stand out in the evidence,
    and `facts` the small print: seconds by stage, tokens, the manifest's id and group. `old` is what another run has in
    its place, where a comparison finds that they differ.
    """

    question: str
    answer: str | None
    expected: str | None
    verdict: Verdict | None
    failure: Failure | None
    likely: tuple[tuple[str, float], ...]
    looked_at: tuple[FrameEvidence, ...]
    warnings: tuple[str, ...]
    facts: tuple[str, ...]
    old: "OldItem | None" = None


SeenFrames = tuple[tuple[int, float], ...]
"""The index and the time in seconds of each frame that some items looked at; empty for items that failed."""


@dataclass(frozen=True)
class OldItem:
    """An item in the run that is compared with, and the frames that it saw."""

    outcome: Outcome
    item: PageItem
    frames: SeenFrames


@dataclass
class VideoCard:
    """A video: its name in the records, where it was, the reader that read it, and its items by the frames they saw."""

    name: str
    recorded_path: Path | None
    reader: str | None = None
    views: dict[SeenFrames, list[PageItem]] = field(default_factory=dict)

    def old_views(self, frames: SeenFrames) -> list[SeenFrames]:
        """What the other run saw in place of these frames, where it differs."""
        seen = {item.old.frames: None for item in self.views[frames] if item.old is not None}
        return [each for each in seen if each and each != frames]


def gather_cards(records: Iterable[Record], rule: Rule, comparison: Comparison | None = None) -> list[VideoCard]:
    """The videos in the order of their first records, with their items judged by a rule."""
    cards: dict[str, VideoCard] = {}
    old_items = {} if comparison is None else _old_items(comparison)
    for record in records:
        name, path = text_of(record, "video") or "", text_of(record, "video_path")
        card = cards.setdefault(name, VideoCard(name, Path(path) if path else None))
        card.reader = card.reader or text_of(mapping_of(record, "settings"), "reader")
        frames = _frames_of(record)
        item = _item_of(record, frames, rule)
        card.views.setdefault(frames, []).append(replace(item, old=old_items.get(record["item_id"])))
    return list(cards.values())


def _old_items(comparison: Comparison) -> dict[str, OldItem]:
    """The old items that differ from their new ones, by the ids of these."""
    outcomes = {new: pair.outcome for new, pair in comparison.pairs.items() if pair.outcome is not Outcome.ALIKE}
    new_of = {old: new for new, old in comparison.pairing.pairs if new in outcomes}
    found: dict[str, OldItem] = {}
    shared: dict[SeenFrames, SeenFrames] = {}
    for record in last_records(comparison.old):
        if (new := new_of.get(record["item_id"])) is not None:
            frames = _frames_of(record)
            frames = shared.setdefault(frames, frames)
            found[new] = OldItem(outcomes[new], _item_of(record, frames, comparison.old.rule), frames)
    return found


def _item_of(record: Record, frames: SeenFrames, rule: Rule) -> PageItem:
    is_ok = record.get("status") == "ok"
    return PageItem(
        question=text_of(record, "question") or "",
        answer=text_of(record, "answer") or "" if is_ok else None,
        expected=text_of(record, "answer_expected"),
        verdict=verdict_of(record, rule),
        failure=None if is_ok else failure_of(record),
        likely=_likely_of(record),
        looked_at=_looked_at(record, frames),
        warnings=texts_of(record, "warnings"),
        facts=tuple(_facts_of(record)),
    )


def _facts_of(record: Record) -> Generator[str]:
    timings = mapping_of(record, "timings")
    for stage in (*STAGES, "total"):
        if (seconds := number(timings.get(f"{stage}_seconds")) or 0.0) >= _SHORTEST_SECONDS:
            yield f"{stage} {duration(seconds)}"
    if num_tokens := int(number(mapping_of(record, "tokens").get("new")) or 0):
        yield plural(num_tokens, "token")
    if (reason := text_of(record, "finish_reason")) not in (None, "stop", "choice"):
        yield f"ended by {reason}"
    for name in ("id", "group"):
        if (value := text_of(record, name)) is not None:
            yield f"{name} {value}"


def _likely_of(record: Record) -> tuple[tuple[str, float], ...]:
    shares = ((text_of(choice, "text"), number(choice.get("probability"))) for choice in _objects(record, "choices"))
    found = [(text or "", share) for text, share in shares if share is not None]
    return tuple(sorted(found, key=lambda choice: -choice[1])[:_NUM_LIKELY])


def _looked_at(record: Record, frames: SeenFrames) -> tuple[FrameEvidence, ...]:
    """The frames that stand out; none unless every frame that was seen has its weight."""
    weights = [number(frame.get("weight")) for frame in _objects(record, "evidence")]
    weighed = zip(frames, weights, strict=False)
    found = [FrameEvidence(time, index, weight) for (index, time), weight in weighed if weight is not None]
    is_whole = len(found) == len(weights) == len(frames)
    return tuple(standing_out(found, _NUM_MOMENTS)) if is_whole else ()


def _objects(record: Record, name: str) -> list[dict[str, Any]]:
    value = record.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _frames_of(record: Record) -> SeenFrames:
    """The frames of a record; none where indices and times do not belong together."""
    frames = mapping_of(record, "frames")
    indices, times = frames.get("indices"), frames.get("timestamps_seconds")
    if not isinstance(indices, list) or not isinstance(times, list) or len(indices) != len(times):
        return ()
    if not all(type(index) is int and index >= 0 for index in indices) or indices != sorted(set(indices)):
        return ()
    seen = tuple((index, time) for index, time in zip(indices, map(number, times), strict=True) if time is not None)
    return seen if len(seen) == len(times) else ()


@dataclass(frozen=True)
class Thumbnails:
    """JPEG pictures of a video by frame index; `failure` says why there are none, or not all.

    `changed` says how the file differs from the one in which some frames were seen: no picture is of these.
    """

    pictures: dict[int, bytes]
    failure: str | None = None
    changed: Mapping[SeenFrames, str] = field(default_factory=dict)

    def of(self, frames: SeenFrames) -> dict[int, bytes]:
        """Those that show what was seen."""
        return {} if frames in self.changed else self.pictures


def spread(frames: SeenFrames, num: int) -> dict[int, float]:
    """`num` of the frames, evenly spread from the first to the last: the time of each by its index.

    >>> spread(((0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)), 3)
    {0: 0.0, 20: 2.0, 30: 3.0}
    """
    count = len(frames)
    if num >= count:
        return dict(frames)
    places = [count // 2] if num == 1 else [round(step * (count - 1) / (num - 1)) for step in range(num)]
    return dict(frames[place] for place in places)


def find_video(card: VideoCard, records: Path, videos: Path | None) -> Path | None:
    """Where the video is now: by its name in the folder `videos`, or else where it was when it was asked about.

    Without `videos` it is looked for where it was, in the working directory, and beside the file of records.
    """
    recorded = [card.recorded_path] if card.recorded_path is not None else []
    beside = [Path(card.name), records.resolve().parent / card.name]
    for path in (*recorded, *beside) if videos is None else (videos / card.name, *recorded):
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            if path.exists():
                return path
    return None


def read_thumbnails(
    videos: Iterable[tuple[Path | None, dict[SeenFrames, set[int]], str | None]],
) -> Generator[Thumbnails]:
    """Read the pictures of each video, in order, given its path, which of the frames seen to read, and its reader."""
    num_side_by_side = num_available_cores()
    waiting: deque[Future[Thumbnails]] = deque()
    executor = ThreadPoolExecutor(num_side_by_side, thread_name_prefix="thumbnails")
    try:
        for video in videos:
            waiting.append(executor.submit(_read, *video))
            if len(waiting) >= 2 * num_side_by_side:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _read(path: Path | None, wanted: dict[SeenFrames, set[int]], reader: str | None) -> Thumbnails:
    if not wanted:
        return Thumbnails({})
    if path is None:
        return Thumbnails({}, "The video is no longer here.")
    name = ReaderName(reader) if reader in set(ReaderName) else ReaderName.AUTO
    pictures: dict[int, bytes] = {}
    changed: dict[SeenFrames, str] = {}
    try:
        options = ReadOptions(reader=name, num_threads=1, timeout_seconds=_TIMEOUT_SECONDS)
        with open_video(path, options) as video:
            changed |= {frames: how for frames in wanted if (how := _difference(frames, video.timestamps_seconds))}
            indices = set[int]().union(*(some for frames, some in wanted.items() if frames not in changed))
            for frame in video.read(sorted(indices), _FIT):
                file = io.BytesIO()
                Image.fromarray(frame.pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
                pictures[frame.index] = file.getvalue()
    except SfvqaError as error:
        return Thumbnails(pictures, error.message, changed)
    except OSError as error:
        return Thumbnails(pictures, f"The system refused something: {error}.", changed)
    return Thumbnails(pictures, None if len(pictures) == len(indices) else "Some frames cannot be read.", changed)


def _difference(frames: SeenFrames, timestamps_seconds: Sequence[float]) -> str | None:
    """How a file with these frames differs from the one in which some were seen; None if it has them all."""
    for index, time in frames:
        if index >= len(timestamps_seconds):
            return f"it has {plural(len(timestamps_seconds), 'frame')} now, and frame {index:,} was seen."
        if abs(timestamps_seconds[index] - time) > _SAME_TIME_SECONDS:
            now = format_time(timestamps_seconds[index])
            return f"frame {index:,} was seen at {format_time(time)}, and is at {now} now."
    return None
