"""The little of each record that figures are made of, so that a million fit into memory; strange values are ignored."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfvqa.batch.record import Failure, Record, read_records
from sfvqa.batch.report.fields import FieldFact, field_facts_of
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Verdict, judge

STAGES = ("read", "encode", "prefill", "decode")
"""Where the time of an item goes, in order; in a record's `timings` each ends in `_seconds`."""

_OF_THE_ITEM = ("start_seconds", "end_seconds", "choices")  # what is requested for one item, not for the run
_NAMES, _NUMBERS = re.compile("“[^”]*”"), re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """How long one answer took, in seconds, by the stages of STAGES, and in all.

    Prefill and decode are shared by all `num_together` questions that were asked together.
    """

    stages: tuple[float, ...]
    total: float
    num_together: int

    @property
    def own(self) -> tuple[float, ...]:
        """The stages with this answer's part of what was shared, so that answers add up."""
        read, encode, prefill, decode = self.stages
        return read, encode, prefill / self.num_together, decode / self.num_together

    @property
    def own_total(self) -> float:
        """What this answer added to the run if nothing was done side by side."""
        return max(self.total - sum(self.stages) + sum(self.own), 0.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings requested for an item, and what answered it; JSON text, None where not recorded."""

    requested: str
    model: str | None
    revision: str | None
    settings: str | None
    versions: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a video, in any run, whatever the settings."""

    question: str
    start_seconds: float | None
    end_seconds: float | None
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """The true answer of an item, and the verdict."""

    expected: str
    verdict: Verdict
    group: str | None


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """An item by its last record, the `ordinal`-th of the file; the answer if it is wrong, or if all are kept."""

    ordinal: int
    video: str
    asked: Asked
    own_id: str | None
    answer: str | None
    finished: float | None
    failure: Failure | None
    seconds: StageSeconds | None
    new_tokens: int
    is_from_cache: bool
    warnings: tuple[str, ...]
    setup: Setup
    label: Label | None
    fields: tuple[FieldFact, ...] = ()

    @property
    def question(self) -> str:
        """The question as it was asked."""
        return self.asked.question


@dataclass
class RunFacts:
    """The items of a file of records, by item id in the order they first came in, judged by `rule`.

    `num_records` counts all records, `notices` report damaged lines, and `warning_examples` has one whole warning of
    each kind. Values that many items share are kept once, and answers that are not wrong only if `keeps_answers`.
    """

    path: Path = Path()
    rule: Rule = Rule.PHRASE
    keeps_answers: bool = False
    items: dict[str, ItemFacts] = field(default_factory=dict)
    num_records: int = 0
    notices: list[str] = field(default_factory=list)
    warning_examples: dict[str, str] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)  # by what was asked, the id of the item that failed

    def add(self, record: Record) -> ItemFacts:
        """The facts of the next record, which counts instead of earlier ones of its item."""
        is_ok = record.get("status") == "ok"
        label = self._label(record)
        keeps_answer = self.keeps_answers or (label is not None and label.verdict is Verdict.WRONG)
        facts = ItemFacts(
            ordinal=self.num_records,
            video=self._share(text_of(record, "video") or ""),
            asked=self._share(self._asked(record)),
            own_id=text_of(record, "id"),
            answer=self._share(text_of(record, "answer") or "") if is_ok and keeps_answer else None,
            finished=_moment(record.get("finished")),
            failure=None if is_ok else failure_of(record),
            seconds=_seconds_of(record) if is_ok else None,
            new_tokens=int(number(mapping_of(record, "tokens").get("new")) or 0) if is_ok else 0,
            is_from_cache=record.get("from_video_cache") is True,
            warnings=tuple(dict.fromkeys(map(self._warning_kind, texts_of(record, "warnings")))),
            setup=self._share(_setup_of(record)),
            label=label,
            fields=tuple(map(self._share, field_facts_of(record, self.rule))),
        )
        self._drop_superseded(record, is_ok=is_ok)
        self.items[record["item_id"]] = facts
        self.num_records += 1
        return facts

    def _drop_superseded(self, record: Record, *, is_ok: bool) -> None:
        """Forget that the same question failed before, about another content of the file: none, say."""
        if is_ok and not self._failed:
            return
        asked = json.dumps([record.get(name) for name in ("video_path", "question", "id", "requested")], sort_keys=True)
        if (before := self._failed.pop(asked, None)) not in (None, record["item_id"]):
            self.items.pop(before, None)
        if not is_ok:
            self._failed[asked] = record["item_id"]

    def _label(self, record: Record) -> Label | None:
        verdict = verdict_of(record, self.rule)
        if verdict is None:
            return None
        expected, group = self._share(text_of(record, "answer_expected")), self._share(text_of(record, "group"))
        return Label(expected, verdict, group)

    def _asked(self, record: Record) -> Asked:
        requested = mapping_of(record, "requested")
        start, end = (number(requested.get(name)) for name in ("start_seconds", "end_seconds"))
        question = self._share(text_of(record, "question") or "")
        return Asked(question, start, end, self._share(texts_of(requested, "choices")))

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def _warning_kind(self, text: str) -> str:
        kind = warning_kind(text)
        self.warning_examples.setdefault(kind, text)
        return str(self._share(kind))


def collect(path: Path, rule: Rule = Rule.PHRASE, *, keeps_answers: bool = False) -> RunFacts:
    """Read a file of records. UsageError if the file cannot be read."""
    run = RunFacts(path, rule, keeps_answers)
    for record in read_records(path, run.notices):
        run.add(record)
    return run


def last_records(run: RunFacts) -> Iterator[Record]:
    """The last record of each item, whole, in the order of the file, by another pass over it.

    What another process has appended since `collect` is left out.
    """
    for ordinal, record in enumerate(read_records(run.path)):
        facts = run.items.get(record["item_id"])
        if facts is not None and facts.ordinal == ordinal:
            yield record


def warning_kind(text: str) -> str:
    """A warning without its names and numbers, by which similar warnings are counted together.

    >>> warning_kind("“a.mp4” ends early: 1.5 s of 2 are missing.")
    '“…” ends early: # s of # are missing.'
    """
    return _NUMBERS.sub("#", _NAMES.sub("“…”", text))


def text_of(record: Mapping[str, Any], name: str) -> str | None:
    """The text that a record holds under a name, also of a number; None for anything else."""
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def texts_of(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts of a list."""
    value = record.get(name)
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def mapping_of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object that a record holds under a name, an empty one where there is none."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """A finite number that is not negative; None for anything else, so that no record spoils a sum."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 1e15 and math.isfinite(value) else None


def failure_of(record: Mapping[str, Any]) -> Failure:
    """What an error record says."""
    error = mapping_of(record, "error")
    return Failure(text_of(error, "type") or "Unknown", text_of(error, "message") or "Nothing is recorded of it.")


def verdict_of(record: Mapping[str, Any], rule: Rule) -> Verdict | None:
    """Whether the answer is the expected one by a rule; None where none is expected."""
    expected = text_of(record, "answer_expected")
    if expected is None:
        return None
    answer = text_of(record, "answer") if record.get("status") == "ok" else None
    choices = texts_of(mapping_of(record, "requested"), "choices")
    return judge(answer, expected, choices, question=text_of(record, "question") or "", rule=rule)


def _setup_of(record: Mapping[str, Any]) -> Setup:
    requested = {name: value for name, value in mapping_of(record, "requested").items() if name not in _OF_THE_ITEM}
    return Setup(
        requested=_canonical(requested),
        model=text_of(record, "model"),
        revision=text_of(record, "revision"),
        settings=_canonical(record["settings"]) if "settings" in record else None,
        versions=_canonical(record["versions"]) if "versions" in record else None,
        host=text_of(record, "host"),
    )


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _seconds_of(record: Mapping[str, Any]) -> StageSeconds:
    timings = mapping_of(record, "timings")
    stages = tuple(number(timings.get(f"{stage}_seconds")) or 0.0 for stage in STAGES)
    total = number(timings.get("total_seconds"))
    num_together = int(number(timings.get("asked_together")) or 1)
    return StageSeconds(stages, sum(stages) if total is None else total, max(num_together, 1))


def _moment(text: object) -> float | None:
    """Seconds since 1970 of an ISO time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        if moment is None:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
