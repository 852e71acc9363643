"""Two runs over the same items, perhaps with other settings: how each did on them, and where their answers differ."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sfvqa.batch.record import flat_fields
from sfvqa.batch.report.facts import ItemFacts, RunFacts
from sfvqa.batch.report.pairing import Pairing, pair_items
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import PairedCounts, Share, Verdict, agree, judge, swap_p_value


class Outcome(StrEnum):
    """What became of an item in the new run, compared with the old one."""

    BETTER = "better"
    """Only the new answer is right."""
    WORSE = "worse"
    """Only the old answer is right."""
    BOTH_WRONG = "both wrong"
    """Neither is right, and they do not agree."""
    DIFFERENT = "different"
    """They do not agree, and no true answer is known."""
    ALIKE = "alike"


@dataclass(frozen=True, slots=True)
class Pair:
    """An item in both runs, and the true answer, if it is known and the same in both, with a verdict on each answer.

    Answers that `agree` do so by the run's rule, those that `agree_exactly` by the exact one; without an answer nothing
    agrees.
    """

    new: ItemFacts
    old: ItemFacts
    expected: str | None
    new_verdict: Verdict | None
    old_verdict: Verdict | None
    agree: bool
    agree_exactly: bool

    @property
    def are_answered(self) -> bool:
        """Whether both runs have an answer."""
        return self.new.failure is None and self.old.failure is None

    @property
    def are_right(self) -> tuple[bool, bool]:
        """Whether the new answer is right, and the old one; one that is missing is not."""
        return self.new_verdict is Verdict.RIGHT, self.old_verdict is Verdict.RIGHT

    @property
    def group(self) -> str | None:
        """The group that the manifest puts it in."""
        label = self.new.label or self.old.label
        return None if label is None else label.group

    @property
    def outcome(self) -> Outcome:
        """How the answers compare; two failures are alike."""
        if self.are_right == (True, False):
            return Outcome.BETTER
        if self.are_right == (False, True):
            return Outcome.WORSE
        if self.agree or self.are_right == (True, True) or (self.new.failure and self.old.failure):
            return Outcome.ALIKE
        return Outcome.DIFFERENT if self.expected is None else Outcome.BOTH_WRONG


@dataclass(frozen=True)
class RunTime:
    """What the answers of one run took, in seconds a video, as if nothing had been done side by side.

    `num_from_cache` of them had their video from the cache, which takes next to no time.
    """

    seconds_per_video: float
    num_from_cache: int


@dataclass(frozen=True)
class SettingDifference:
    """A setting, or a version, with its values in each run, the most frequent first; none where it is not recorded."""

    name: str
    new: tuple[str, ...]
    old: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The items that both runs have, by their id in the new run.

    `counts` are of those with a true answer, where a missing answer is wrong; `answered` of those that both runs also
    answered; `groups` as `counts`. `by_videos` and `answered_by_videos` are the p-values by whole videos, McNemar's
    unless a video `has_several` questions. `exact` and `relaxed` are the shares that agree of all that both answered,
    as are the times of `num_videos`. In `relabelled` are items whose true answers in the two runs differ.
    """

    old: RunFacts
    new_name: str
    old_name: str
    pairing: Pairing
    pairs: dict[str, Pair]
    counts: PairedCounts
    answered: PairedCounts
    groups: dict[str, PairedCounts]
    has_several: bool
    by_videos: float
    answered_by_videos: float
    exact: Share
    relaxed: Share
    relabelled: int
    num_videos: int
    new_time: RunTime
    old_time: RunTime
    settings: tuple[SettingDifference, ...]

    @property
    def changes(self) -> list[Pair]:
        """The items whose answers are not alike, by their videos: the order of records is that of finishing."""
        changed = (pair for pair in self.pairs.values() if pair.outcome is not Outcome.ALIKE)
        return sorted(changed, key=lambda pair: (pair.new.video, pair.new.asked.start_seconds or 0.0))


def compare_runs(new: RunFacts, old: RunFacts) -> Comparison:
    """Compare item by item; ValueError unless both keep their answers and are judged by the same rule."""
    if not new.keeps_answers or not old.keeps_answers or new.rule != old.rule:
        raise ValueError("runs to compare keep their answers and are judged by the same rule")
    pairing = pair_items(new, old)
    by_id = {one: _pair(new.items[one], old.items[other], new.rule) for one, other in pairing.pairs}
    pairs = list(by_id.values())
    labelled = [pair for pair in pairs if pair.expected is not None]
    answered = [pair for pair in pairs if pair.are_answered]
    both = [pair for pair in labelled if pair.are_answered]
    groups = sorted({pair.group for pair in labelled if pair.group is not None})
    num_videos = len({pair.new.video for pair in answered})
    are_named_alike = new.path.name == old.path.name
    return Comparison(
        old=old,
        new_name=str(new.path) if are_named_alike else new.path.name,
        old_name=str(old.path) if are_named_alike else old.path.name,
        pairing=pairing,
        pairs=by_id,
        counts=_count(labelled),
        answered=_count(both),
        groups={name: _count(pair for pair in labelled if pair.group == name) for name in groups},
        has_several=len({pair.new.video for pair in labelled}) < len(labelled),
        by_videos=_p_by_videos(labelled),
        answered_by_videos=_p_by_videos(both),
        exact=Share(sum(pair.agree_exactly for pair in answered), len(answered)),
        relaxed=Share(sum(pair.agree for pair in answered), len(answered)),
        relabelled=sum(pair.expected is None and pair.new.label is not None for pair in pairs),
        num_videos=num_videos,
        new_time=_time([pair.new for pair in answered], num_videos),
        old_time=_time([pair.old for pair in answered], num_videos),
        settings=_differing_settings([pair.new for pair in pairs], [pair.old for pair in pairs]),
    )


def _pair(new: ItemFacts, old: ItemFacts, rule: Rule) -> Pair:
    choices, question = new.asked.choices, new.question
    labels = [label.expected for label in (new.label, old.label) if label is not None]
    is_one = bool(labels) and agree(labels[0], labels[-1], choices, question=question, rule=Rule.EXACT)
    expected = labels[0] if is_one else None

    def verdict_on(item: ItemFacts) -> Verdict | None:
        if expected is None:
            return None
        if item.label is not None:
            return item.label.verdict
        return judge(item.answer, expected, choices, question=question, rule=rule)

    def do_agree(by: Rule) -> bool:
        if new.answer is None or old.answer is None:
            return False
        return agree(new.answer, old.answer, choices, question=question, rule=by)

    agree_exactly = do_agree(Rule.EXACT)
    return Pair(new, old, expected, verdict_on(new), verdict_on(old), agree_exactly or do_agree(rule), agree_exactly)


def _count(pairs: Iterable[Pair]) -> PairedCounts:
    right = Counter(pair.are_right for pair in pairs)
    return PairedCounts(
        both=right[True, True], only_new=right[True, False], only_old=right[False, True], neither=right[False, False]
    )


def _p_by_videos(pairs: Iterable[Pair]) -> float:
    differences: Counter[str] = Counter()
    for pair in pairs:
        is_right, was_right = pair.are_right
        differences[pair.new.video] += is_right - was_right
    return swap_p_value(differences.values())


def _time(items: Sequence[ItemFacts], num_videos: int) -> RunTime:
    seconds = sum(item.seconds.own_total for item in items if item.seconds is not None)
    return RunTime(seconds / num_videos if num_videos else 0.0, sum(item.is_from_cache for item in items))


def _differing_settings(new: Iterable[ItemFacts], old: Iterable[ItemFacts]) -> tuple[SettingDifference, ...]:
    new_values, old_values = _values(new), _values(old)
    return tuple(
        SettingDifference(name, new_values.get(name, ()), old_values.get(name, ()))
        for name in dict.fromkeys([*new_values, *old_values])
        if set(new_values.get(name, ())) != set(old_values.get(name, ()))
    )


def _values(items: Iterable[ItemFacts]) -> dict[str, tuple[str, ...]]:
    """The model, the settings of some items as used, or else as asked for, and the versions and machines used."""
    asked: dict[str, Counter[str]] = {}
    used: dict[str, Counter[str]] = {}
    for setup, count in Counter(item.setup for item in items).items():
        facts = {"model": setup.model, "revision": setup.revision}
        rest = {"host": setup.host, "version": _parsed(setup.versions)}
        for values, found in ((asked, _parsed(setup.requested)), (used, facts | _parsed(setup.settings) | rest)):
            for name, text in flat_fields(found).items():
                values.setdefault(name, Counter())[text] += count
    return {name: tuple(text for text, _ in counts.most_common()) for name, counts in (asked | used).items()}


def _parsed(text: str | None) -> dict[str, object]:
    values = json.loads(text) if text else {}
    return values if isinstance(values, dict) else {}
