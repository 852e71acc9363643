"""The fields of answers by a schema: one by one in the table, counted and scored in the summary."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfvqa.batch.record import flat_fields
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Score, Verdict, judge

MOST_FIELDS = 200
"""Names that are tabulated: answers may come with fields of their own making."""

_LONGEST_VALUE = 100  # characters of one that may repeat
_NUM_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FieldFact:
    """A field of one answer: its text, None where it is missing or too long to repeat, and the verdict on it."""

    name: str
    text: str | None
    is_there: bool
    verdict: Verdict | None


def fields_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an answer as texts; of an answer without any, none."""
    return flat_fields(record.get("fields")) if record.get("status") == "ok" else {}


def field_verdicts_of(record: Mapping[str, Any], rule: Rule) -> dict[str, Verdict]:
    """Whether each field is the expected one by a rule; a missing one is wrong. None are where no schema was asked for.

    The question is not heard: a field names a value alone.
    """
    requested = record.get("requested")
    if not isinstance(requested, dict) or "json_schema" not in requested:
        return {}
    expected, said, is_ok = flat_fields(record.get("fields_expected")), fields_of(record), record.get("status") == "ok"
    return {
        name: (Verdict.WRONG if is_ok else Verdict.FAILED) if name not in said else judge(said[name], text, rule=rule)
        for name, text in expected.items()
    }


def field_facts_of(record: Mapping[str, Any], rule: Rule) -> tuple[FieldFact, ...]:
    """What figures are made of."""
    said, verdicts = fields_of(record), field_verdicts_of(record, rule)
    short = {name: text for name, text in said.items() if len(text) <= _LONGEST_VALUE}
    return tuple(
        FieldFact(name, short.get(name), name in said, verdicts.get(name)) for name in dict.fromkeys([*said, *verdicts])
    )


@dataclass(frozen=True)
class FieldSummary:
    """How many answers have a field, its values that repeat, the most frequent first, and its score, if any."""

    name: str
    count: int
    repeated: tuple[tuple[str, int], ...]
    score: Score | None


def summarise_fields(items: Sequence[Iterable[FieldFact]]) -> tuple[FieldSummary, ...]:
    """The first MOST_FIELDS fields, by the fields of each item."""
    counts: Counter[str] = Counter()
    values: dict[str, Counter[str]] = {}
    verdicts: dict[str, list[Verdict]] = {}
    for fact in (fact for facts in items for fact in facts):
        if fact.name not in values:
            if len(values) == MOST_FIELDS:
                continue
            values[fact.name], verdicts[fact.name] = Counter(), []
        counts[fact.name] += fact.is_there
        if fact.text is not None:
            values[fact.name][fact.text] += 1
        if fact.verdict is not None:
            verdicts[fact.name].append(fact.verdict)
    return tuple(
        FieldSummary(
            name,
            counts[name],
            tuple((text, count) for text, count in found.most_common() if count > 1),
            Score.of(verdicts[name]) if verdicts[name] else None,
        )
        for name, found in values.items()
    )


def values_text(field: FieldSummary) -> str:
    """The values that repeat most, in words.

    >>> values_text(FieldSummary("colour", 9, (("red", 5), ("blue", 2)), None))
    'red 5, blue 2, others 2'
    """
    shown = field.repeated[:_NUM_SHOWN]
    parts = [f"{text or '“”'} {count:,}" for text, count in shown]
    if (others := field.count - sum(count for _, count in shown)) and shown:
        parts.append(f"others {others:,}")
    return ", ".join(parts) or "all different"
