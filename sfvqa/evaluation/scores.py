"""Verdicts on single items become shares with their intervals, for all and for each group."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sfvqa.evaluation.intervals import Interval, wilson_interval
from sfvqa.evaluation.matching import Rule, is_match


class Verdict(StrEnum):
    """What became of an item whose true answer is known."""

    RIGHT = "right"
    WRONG = "wrong"
    FAILED = "failed"
    """There is no answer, only an error."""


def judge(
    answer: str | None,
    expected: str,
    choices: tuple[str, ...] = (),
    *,
    question: str = "",
    rule: Rule = Rule.PHRASE,
) -> Verdict:
    """The verdict on an answer, None where there is none, by a rule of `evaluation.matching`."""
    if answer is None:
        return Verdict.FAILED
    return Verdict.RIGHT if is_match(answer, expected, choices, question=question, rule=rule) else Verdict.WRONG


@dataclass(frozen=True)
class Share:
    """`right` of `total`, with the 95 % interval of that share by Wilson; `value` is None of nothing."""

    right: int
    total: int

    @property
    def value(self) -> float | None:
        """Between 0 and 1."""
        return self.right / self.total if self.total else None

    @property
    def interval(self) -> Interval:
        """Of 95 %."""
        return wilson_interval(self.right, self.total)


@dataclass(frozen=True)
class Score:
    """How many items are right, wrong, and without an answer."""

    right: int = 0
    wrong: int = 0
    failed: int = 0

    @property
    def of_all(self) -> Share:
        """Accuracy where an item without an answer is wrong."""
        return Share(self.right, self.right + self.wrong + self.failed)

    @property
    def of_answered(self) -> Share:
        """Accuracy over the answered items alone."""
        return Share(self.right, self.right + self.wrong)

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> "Score":
        """The score of some verdicts."""
        counts = dict.fromkeys(Verdict, 0)
        for verdict in verdicts:
            counts[verdict] += 1
        return cls(counts[Verdict.RIGHT], counts[Verdict.WRONG], counts[Verdict.FAILED])


def score_groups(verdicts: Iterable[tuple[str | None, Verdict]]) -> dict[str, Score]:
    """The score of each group, by its name in order; items without a group are in none."""
    groups: dict[str, list[Verdict]] = {}
    for group, verdict in verdicts:
        if group is not None:
            groups.setdefault(group, []).append(verdict)
    return {name: Score.of(groups[name]) for name in sorted(groups)}
