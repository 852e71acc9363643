"""Which parts of a video stand out, by how likely the model says yes about each: calibration, finer looks, moments.

A model that is asked often is wrong often, and some say yes to everything. So a part counts by how far it lies above
the video's own median, and the more parts there are, the farther it has to. Numbers only: nothing is read or asked.
"""

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from sfvqa.errors import UsageError
from sfvqa.inference.question import check_text

FINEST_SECONDS = 2.0
"""Windows of this length, or less, are not looked at more closely."""
_SHORTEST_SECONDS = 0.1
_CLOSER = 4  # times shorter are the windows of a closer look
_OUTLIER = 3.0  # standard deviations above the median
_LEAST_DEVIATION = 0.5  # of log-odds, where nearly all windows are alike
_UPPER_SHARE, _UPPER_DEVIATIONS = 0.9, 1.2816  # a tenth of what is normally distributed lies that far above the middle
_WORTH_A_LOOK = 0.1  # of probability
_MOST_SHARE, _ALWAYS_SECONDS = 0.08, 120.0  # of the video are looked at more closely at most; so much at least may be
_MOST_LOG_ODDS = 30.0


@dataclass(frozen=True)
class FindOptions:
    """What is looked for how: in windows of `every_seconds`, down to `threshold`, the `top` likeliest.

    Raises UsageError when built.
    """

    every_seconds: float = 8.0
    threshold: float = 0.5
    top: int = 10

    def __post_init__(self) -> None:
        if not _SHORTEST_SECONDS <= self.every_seconds < math.inf:
            raise UsageError(
                f"Windows of {self.every_seconds:g} s are not possible.", f"Give --every {_SHORTEST_SECONDS} s or more."
            )
        if not 0 < self.threshold <= 1:  # above 0, all of the video is one moment
            raise UsageError(
                f"A threshold of {self.threshold:g} is not possible.", "Give --threshold above 0, up to 1."
            )
        if self.top < 1:
            raise UsageError(f"The {self.top} likeliest moments are none.", "Give --top a number above 0.")


def question_about(text: str) -> str:
    """How the model is asked whether a window shows `text`: what ends in a question mark is asked as it is.

    >>> question_about("a person falling"), question_about("Does anybody fall?")
    ('Does the video show a person falling?', 'Does anybody fall?')
    """
    text = check_text(text, "text to look for", "Say what the moment shows, for example “a person falling”.")
    return text if text.endswith("?") else f"Does the video show {text.rstrip('.!')}?"


def log_odds(log_probability: float) -> float:
    """Of an answer against all else that the model could say, within ±30.

    >>> log_odds(math.log(0.5)), round(log_odds(math.log(0.9)), 3), log_odds(0.0)
    (0.0, 2.197, 30.0)
    """
    against = -math.expm1(min(log_probability, 0.0))
    odds = log_probability - math.log(against) if against > 0 else _MOST_LOG_ODDS
    return max(-_MOST_LOG_ODDS, min(odds, _MOST_LOG_ODDS))


@dataclass(frozen=True)
class Look:
    """One window that the model was asked about: how likely yes, and the frame that counts for it.

    That is the one that the model looked at most, `is_looked_at`, or the middle one where it looks at none by itself.
    """

    start_seconds: float
    end_seconds: float
    log_odds: float
    best_seconds: float
    best_index: int
    is_looked_at: bool


@dataclass(frozen=True)
class Calibration:
    """What the model says of this video's windows anyhow; of fewer than three nothing is known."""

    num_windows: int
    median: float
    deviation: float

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Self:
        """By the median of all windows, and how far the highest tenth lies above it.

        >>> Calibration.of([Look(0, 8, odds, 4, 0, False) for odds in (-9, -8, -8, -7, -7, -7, -7, -7, -7, -7, 9)])
        Calibration(num_windows=11, median=-7, deviation=0.5)
        """
        odds = sorted(look.log_odds for look in looks)
        median = statistics.median(odds)
        upper = odds[int(_UPPER_SHARE * (len(odds) - 1))]
        return cls(len(odds), median, max((upper - median) / _UPPER_DEVIATIONS, _LEAST_DEVIATION))

    def probability(self, odds: float) -> float:
        """That a window with these log-odds shows what is looked for.

        Against a typical window, which is taken to show nothing, a window has to be likelier by as much as there are
        others: one of them is expected to show it, before any is looked at. It is never likelier than the model says.

        >>> sure, always = Calibration(101, -9.0, 1.0), Calibration(101, 6.0, 1.0)
        >>> [round(each.probability(7.0), 2) for each in (sure, always)]
        [1.0, 0.03]
        """
        return 1 / (1 + math.exp(self._against - odds))

    def log_odds_at(self, probability: float) -> float:
        """The log-odds of a window that is so likely.

        >>> round(Calibration(101, 6.0, 1.0).log_odds_at(0.5), 2)
        10.61
        """
        return self._against + (math.log(probability / (1 - probability)) if probability < 1 else _MOST_LOG_ODDS)

    @property
    def _against(self) -> float:
        """What is subtracted of the log-odds of each window."""
        return max(self.median + math.log(self.num_windows - 1), 0.0) if self.num_windows >= 3 else 0.0

    def stands_out(self, look: Look) -> bool:
        """Whether it is worth a closer look: the most of what such a window shows may be something else."""
        is_outlier = look.log_odds >= self.median + _OUTLIER * self.deviation
        return self.num_windows < 3 or is_outlier or self.probability(look.log_odds) >= _WORTH_A_LOOK


def closer_lengths(length_seconds: float) -> Iterator[float]:
    """How long the windows of closer looks are, one after the other, until they are close enough.

    >>> list(closer_lengths(30.0)), list(closer_lengths(8.0)), list(closer_lengths(2.0))
    ([7.5, 1.875], [2.0], [])
    """
    while length_seconds > FINEST_SECONDS:
        length_seconds /= _CLOSER
        yield length_seconds


def ranges_to_see_closer(
    looks: Iterable[Look], calibration: Calibration, *, margin_seconds: float, within: tuple[float, float]
) -> list[tuple[float, float]]:
    """The ranges of the windows that stand out, with a margin, in order; what they share comes once.

    The likeliest come first where they are more than may be looked at twice: 8 % of the video, or two minutes, but one
    window in any case.
    """
    most = max(_MOST_SHARE * (within[1] - within[0]), _ALWAYS_SECONDS)
    ranges: list[tuple[float, float]] = []
    for look in sorted(filter(calibration.stands_out, looks), key=lambda look: -look.log_odds):
        start = max(look.start_seconds - margin_seconds, within[0])
        wider = _joined([*ranges, (start, min(look.end_seconds + margin_seconds, within[1]))])
        if ranges and sum(end - start for start, end in wider) > most:
            break
        ranges = wider
    return ranges


def _joined(ranges: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """In order, those that touch or overlap as one.

    >>> _joined([(8.0, 16.0), (30.0, 38.0), (14.0, 24.0)])
    [(8.0, 24.0), (30.0, 38.0)]
    """
    joined: list[tuple[float, float]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def replaced_by_closer(looks: Iterable[Look], closer: Sequence[Look]) -> list[Look]:
    """The closer looks, and those of the others whose middle no closer one covers."""
    starts, ends = [look.start_seconds for look in closer], list(accumulate((look.end_seconds for look in closer), max))

    def is_covered(seconds: float) -> bool:
        begun = bisect_right(starts, seconds)
        return begun > 0 and seconds <= ends[begun - 1]

    kept = [look for look in looks if not is_covered((look.start_seconds + look.end_seconds) / 2)]
    return [*kept, *closer]


@dataclass(frozen=True)
class Moment:
    """A part of the video that shows what was looked for, as likely as its likeliest window.

    `best_seconds` and `best_index` are of the frame that counts most there, as in `Look`.
    """

    start_seconds: float
    end_seconds: float
    probability: float
    best_seconds: float
    best_index: int
    is_looked_at: bool


def merge_into_moments(looks: Iterable[Look], calibration: Calibration, options: FindOptions) -> list[Moment]:
    """The windows above the threshold, those that touch or overlap as one moment; the likeliest first."""
    groups: list[list[Look]] = []
    end = -math.inf
    for look in sorted(looks, key=lambda look: look.start_seconds):
        if calibration.probability(look.log_odds) < options.threshold:
            continue
        if look.start_seconds > end:
            groups.append([])
        groups[-1].append(look)
        end = max(end, look.end_seconds)
    moments = []
    for group in groups:
        best = max(group, key=lambda look: look.log_odds)
        moments.append(
            Moment(
                start_seconds=group[0].start_seconds,
                end_seconds=max(look.end_seconds for look in group),
                probability=calibration.probability(best.log_odds),
                best_seconds=best.best_seconds,
                best_index=best.best_index,
                is_looked_at=best.is_looked_at,
            )
        )
    return sorted(moments, key=lambda moment: -moment.probability)[: options.top]
