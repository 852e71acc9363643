"""The figures of a run: its time, the stages, the slowest items, errors, warnings, settings and scores."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from statistics import median
from typing import Any

from sfvqa.batch.report.facts import STAGES, ItemFacts, RunFacts, Setup
from sfvqa.batch.report.fields import MOST_FIELDS, FieldSummary, summarise_fields
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Score, Verdict, score_groups

PAUSE_SECONDS = 600.0
"""Time that no item accounts for, above which the run was paused: loading a model takes less."""
_NUM_SLOWEST = 5


@dataclass(frozen=True)
class TimeSpan:
    """From the start of the first item or batch to the end of the last, in seconds since 1970.

    `active_seconds` leaves out `num_pauses` pauses, which are longer than PAUSE_SECONDS beyond what the next item took,
    as when a run is interrupted and resumed. Loading the model before the first item does not count.
    """

    began: float
    ended: float
    active_seconds: float
    num_pauses: int


def measure_span(items: Iterable[ItemFacts]) -> TimeSpan | None:
    """The span of a run; None if no record says when it was finished."""
    ended = sorted(
        ((item.finished, item.seconds) for item in items if item.finished is not None), key=lambda end: end[0]
    )
    if not ended:
        return None
    num_first = ended[0][1].num_together if ended[0][1] else 1
    began = before = ended[0][0] - sum(seconds.own_total for _, seconds in ended[:num_first] if seconds)
    active, num_pauses = 0.0, 0
    for end, seconds in ended:
        taken = seconds.total if seconds else 0.0
        gap = end - before
        if gap > taken + PAUSE_SECONDS:
            gap, num_pauses = taken, num_pauses + 1
        active, before = active + gap, end
    return TimeSpan(began, before, active, num_pauses)


@dataclass(frozen=True)
class StageTime:
    """What one stage took for all answers, in seconds, with what a batch of questions shared counted once.

    The median is over the answers that went through the stage, of all that each waited for it.
    """

    stage: str
    sum_seconds: float
    median_seconds: float


@dataclass(frozen=True)
class SlowItem:
    """One of the answers that took longest, and the stage that took most of it."""

    video: str
    question: str
    total_seconds: float
    longest_stage: str


@dataclass(frozen=True)
class WrongItem:
    """An answer that is not the expected one."""

    video: str
    question: str
    expected: str
    answer: str


@dataclass(frozen=True)
class ErrorKind:
    """A type of error, how many items have it, and one of them."""

    kind: str
    count: int
    video: str
    question: str
    message: str


@dataclass(frozen=True)
class WarningKind:
    """Warnings that differ only in names and numbers: on how many items, and one of them."""

    count: int
    example: str


@dataclass(frozen=True)
class SettingsUse:
    """Settings requested by `count` items; `differing` has those that are not the same in the whole run."""

    count: int
    requested: dict[str, Any]
    differing: dict[str, Any]


@dataclass(frozen=True)
class Answerer:
    """What answered `count` items: a model, its revision, and the settings as used."""

    count: int
    model: str
    revision: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """All figures of one file of records."""

    num_records: int
    num_items: int
    num_ok: int
    num_failed: int
    num_videos: int
    new_tokens: int
    span: TimeSpan | None
    stages: tuple[StageTime, ...]
    slowest: tuple[SlowItem, ...]
    errors: tuple[ErrorKind, ...]
    warnings: tuple[WarningKind, ...]
    settings: tuple[SettingsUse, ...]
    answerers: tuple[Answerer, ...]
    versions: tuple[dict[str, Any], ...]
    hosts: dict[str, int]
    rule: Rule
    score: Score | None
    groups: dict[str, Score]
    wrong: tuple[WrongItem, ...]
    fields: tuple[FieldSummary, ...]
    notices: tuple[str, ...]

    @property
    def rates(self) -> dict[str, float | None]:
        """Items, videos and tokens in the time that the run was active; None if that is unknown or none."""
        seconds = self.span.active_seconds if self.span else 0.0
        counts = {
            "items_per_minute": 60 * self.num_items,
            "videos_per_minute": 60 * self.num_videos,
            "tokens_per_second": self.new_tokens,
        }
        return {name: count / seconds if seconds > 0 else None for name, count in counts.items()}


def summarise(run: RunFacts) -> Summary:
    """The figures of a run."""
    items = list(run.items.values())
    answered = [item for item in items if item.failure is None]
    labels = [item.label for item in items if item.label is not None]
    setups = Counter(item.setup for item in items)
    settings = _settings(setups)
    versions = tuple(_object(text) for text, _ in _count(setups, lambda setup: setup.versions))
    models = _count(
        setups, lambda setup: None if setup.model is None else (setup.model, setup.revision, setup.settings)
    )
    warnings = Counter(kind for item in items for kind in item.warnings)
    fields = summarise_fields([item.fields for item in items])
    return Summary(
        num_records=run.num_records,
        num_items=len(items),
        num_ok=len(answered),
        num_failed=len(items) - len(answered),
        num_videos=len({item.video for item in items}),
        new_tokens=sum(item.new_tokens for item in answered),
        span=measure_span(items),
        stages=_stages(answered),
        slowest=_slowest(answered),
        errors=_errors(items),
        warnings=tuple(WarningKind(count, run.warning_examples[kind]) for kind, count in warnings.most_common()),
        settings=settings,
        answerers=tuple(Answerer(count, model, revision, _object(used)) for (model, revision, used), count in models),
        versions=versions,
        hosts=dict(_count(setups, lambda setup: setup.host)),
        rule=run.rule,
        score=Score.of(label.verdict for label in labels) if labels else None,
        groups=score_groups((label.group, label.verdict) for label in labels),
        wrong=tuple(
            WrongItem(item.video, item.question, item.label.expected, item.answer or "")
            for item in items
            if item.label is not None and item.label.verdict is Verdict.WRONG
        ),
        fields=fields,
        notices=(*run.notices, *_mixed(settings, versions), *_too_many(fields)),
    )


def _stages(answered: Sequence[ItemFacts]) -> tuple[StageTime, ...]:
    times = []
    for place, stage in enumerate(STAGES):
        timed = [item.seconds for item in answered if item.seconds is not None]
        waited = [seconds.stages[place] for seconds in timed if seconds.stages[place]]
        times.append(StageTime(stage, sum(seconds.own[place] for seconds in timed), median(waited or [0.0])))
    return tuple(times)


def _slowest(answered: Sequence[ItemFacts]) -> tuple[SlowItem, ...]:
    timed = [(item.seconds.total, item.seconds.stages, item) for item in answered if item.seconds is not None]
    slowest = nlargest(_NUM_SLOWEST, timed, key=lambda entry: entry[0])
    return tuple(
        SlowItem(item.video, item.question, total, STAGES[stages.index(max(stages))])
        for total, stages, item in slowest
        if total > 0
    )


def _errors(items: Iterable[ItemFacts]) -> tuple[ErrorKind, ...]:
    first: dict[str, ItemFacts] = {}
    counts: Counter[str] = Counter()
    for item in items:
        if item.failure is not None:
            counts[item.failure.kind] += 1
            first.setdefault(item.failure.kind, item)
    return tuple(
        ErrorKind(kind, count, first[kind].video, first[kind].question, failure.message)
        for kind, count in counts.most_common()
        if (failure := first[kind].failure) is not None
    )


def _settings(setups: Counter[Setup]) -> tuple[SettingsUse, ...]:
    all_requested = [(_object(text), count) for text, count in _count(setups, lambda setup: setup.requested)]
    flat = [_flat(requested) for requested, _ in all_requested]
    names = sorted({name for values in flat for name in values})
    differing = [name for name in names if len({json.dumps(values.get(name)) for values in flat}) > 1]
    return tuple(
        SettingsUse(count, requested, {name: values.get(name) for name in differing})
        for (requested, count), values in zip(all_requested, flat, strict=True)
    )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """`{"sampling": {"num_frames": 4}}` as `{"sampling.num_frames": 4}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": deeper for inner, deeper in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _object(text: str | None) -> dict[str, Any]:
    """The object in JSON text, empty if there is none; NaN and infinity, which JSON lacks, become text."""
    values = json.loads(text, parse_constant=str) if text else {}
    return values if isinstance(values, dict) else {}


def _count(setups: Counter[Setup], part: Callable[[Setup], Any]) -> list[tuple[Any, int]]:
    """Each part of a setup that is recorded, with the number of its items, the most frequent first."""
    counts: Counter[Any] = Counter()
    for setup, count in setups.items():
        if (value := part(setup)) is not None:
            counts[value] += count
    return counts.most_common()


def _too_many(fields: Sequence[FieldSummary]) -> list[str]:
    if len(fields) < MOST_FIELDS:
        return []
    return [f"Only the first {MOST_FIELDS} fields are tabulated: forbid additionalProperties in the schema."]


def _mixed(settings: Sequence[SettingsUse], versions: Sequence[object]) -> list[str]:
    """Notices that the figures are of unlike items."""
    notices = []
    if len(settings) > 1:
        names = ", ".join(settings[0].differing)
        counts = ", ".join(f"{use.count:,}" for use in settings)
        notices.append(
            f"This file mixes items with {len(settings)} different settings ({counts} items), which differ in "
            f"{names}. Every figure is over all of them."
        )
    if len(versions) > 1:
        notices.append(f"{len(versions)} different sets of library versions made these records.")
    return notices
