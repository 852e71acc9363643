"""Figures in words, for the terminal and the page."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sfvqa import errors
from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.facts import ItemFacts
from sfvqa.batch.report.fields import values_text
from sfvqa.batch.report.summary import StageTime, Summary, TimeSpan
from sfvqa.evaluation.scores import PairedCounts, Share
from sfvqa.video import format_time
from sfvqa.wording import plural

RETRY = "Rerun “sfvqa batch” with --retry-errors to retry the failed items."

_ADVICE = {
    "VideoNotFoundError": "Put the video where the item says, or correct the item.",
    "EncryptedVideoError": "Replace the file by one without encryption.",
    "ReadTimeoutError": "Allow more with --item-timeout or --read-timeout.",
    "RangeOutsideVideoError": "Correct start and end; a corrected item is a new one.",
    "SubtitlesError": "Correct the subtitles.",
    "SchemaNotMetError": "Allow more with --max-new-tokens, or bound texts and lists in the schema.",
}
_ADVICE_BY_CODE = {
    errors.ExitCode.VIDEO: "Repair, convert or replace the file; asking again helps only where its reader was killed.",
    errors.ExitCode.OUT_OF_MEMORY: "Free memory, or ask with fewer frames or a smaller model.",
    errors.ExitCode.MODEL: "Check the model with “sfvqa models verify”.",
    errors.ExitCode.USAGE: "Correct the items or the options; a corrected item is a new one.",
}


def advice_for(kind: str) -> str:
    """What to do about errors of this type before asking again, by its place in the tree; empty if that is unknown."""
    code = getattr(getattr(errors, kind, None), "exit_code", errors.ExitCode.FAILED)
    return _ADVICE.get(kind) or _ADVICE_BY_CODE.get(code, "")


def duration(seconds: float) -> str:
    """Two units at most.

    >>> [duration(seconds) for seconds in (0.004, 0.25, 59.96, 150, 7260, 200_000)]
    ['0.00 s', '0.25 s', '60.0 s', '2 min 30 s', '2 h 01 min', '2 d 07 h']
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24:,} d {hours % 24:02} h"


def span_text(span: TimeSpan) -> str:
    """How long a run ran, and from when to when."""
    began, ended = (datetime.fromtimestamp(moment, UTC) for moment in (span.began, span.ended))
    until = f"{ended:%H:%M}" if began.date() == ended.date() else f"{ended:%Y-%m-%d %H:%M}"
    pauses = f", without {plural(span.num_pauses, 'pause')}" if span.num_pauses else ""
    return f"{duration(span.active_seconds)}, from {began:%Y-%m-%d %H:%M} to {until} UTC{pauses}"


def place_text(item: ItemFacts) -> str:
    """The video, and which part of it was asked about: `clip.mp4 0:30–1:00`."""
    start, end = item.asked.start_seconds, item.asked.end_seconds
    if start is None and end is None:
        return item.video
    return f"{item.video} {format_time(start or 0.0)}–{'' if end is None else format_time(end)}"


def stages_text(stages: Sequence[StageTime], span: TimeSpan | None) -> str:
    """What the stages add up to, compared with the time that the run took."""
    whole = sum(stage.sum_seconds for stage in stages)
    if span is None:
        return f"Together {duration(whole)}."
    if whole > span.active_seconds:
        return f"Together {duration(whole)} in a run of {duration(span.active_seconds)}: some of it ran side by side."
    rest = span.active_seconds - whole
    return (
        f"Together {duration(whole)} of the {duration(span.active_seconds)} that the run took; the other "
        f"{duration(rest)} went to opening videos, waiting, writing, and what failed."
    )


def percent(value: float) -> str:
    """`81.3 %`."""
    return f"{100 * value:.1f} %"


def share_text(share: Share) -> str:
    """`81.3 % (76.2–85.5)`; `–` of nothing."""
    if share.value is None:
        return "–"
    return f"{percent(share.value)} ({100 * share.interval.low:.1f}–{100 * share.interval.high:.1f})"


def score_table(summary: Summary) -> list[list[str]]:
    """A header, then a row for all answers and one for each group; nothing where no true answer is known.

    Errors have columns only where there are any.
    """
    if summary.score is None:
        return []
    rows = [["", "right", "wrong", "failed", "errors count as wrong", "errors left out"]]
    for name, score in (("all", summary.score), *summary.groups.items()):
        counts = [f"{count:,}" for count in (score.right, score.wrong, score.failed)]
        rows.append([name, *counts, share_text(score.of_all), share_text(score.of_answered)])
    if summary.score.failed:
        return rows
    return [[*rows[0][:3], "accuracy"], *([*row[:3], row[4]] for row in rows[1:])]


def field_table(summary: Summary) -> list[list[str]]:
    """A header, then a row for each field; nothing where there are none. An accuracy only where any is known."""
    rows = [["field", "answers", "values that repeat", "right (errors count as wrong)"]]
    for field in summary.fields:
        share = "" if field.score is None else share_text(field.score.of_all)
        rows.append([field.name, f"{field.count:,}", values_text(field), share])
    has_scores = any(field.score is not None for field in summary.fields)
    return [row if has_scores else row[:3] for row in rows] if summary.fields else []


def p_text(p_value: float) -> str:
    """`= 0.070`, `< 0.0001`."""
    return "< 0.0001" if p_value < 0.0001 else f"= {p_value:.4f}" if p_value < 0.01 else f"= {p_value:.3f}"


_CHANCE = 0.05  # of a p-value, below which chance alone is a poor explanation


def headline(comparison: Comparison) -> str:
    """Which run is better, by how much, and whether that could be chance; without true answers, whether they agree."""
    new, old, counts = comparison.new_name, comparison.old_name, comparison.counts
    if not comparison.pairs:
        return f"{new} and {old} have no question in common."
    if counts.difference is None:
        agreeing, exact = comparison.relaxed, comparison.exact
        return (
            f"{new} and {old} agree on {agreeing.right:,} of {plural(agreeing.total, 'question')} that both answered, "
            f"on {exact.right:,} of them word for word."
        )
    changed = counts.only_new + counts.only_old
    if not changed:
        return f"{new} and {old} are right about the same {counts.both:,} of {plural(counts.total, 'question')}."
    points = f"{100 * abs(counts.difference):.1f} points"
    better = f"{new} is {points} {'better' if counts.difference > 0 else 'worse'} than {old}"
    by_videos = " by whole videos" if comparison.has_several else ""
    chance = "this could be chance" if comparison.by_videos >= _CHANCE else "this is hardly chance"
    return (
        f"{better if counts.difference else f'{new} is as good as {old}'}: {changed:,} of "
        f"{plural(counts.total, 'question')} changed, {counts.only_new:,} for the better and {counts.only_old:,} for "
        f"the worse; p {p_text(comparison.by_videos)}{by_videos}: {chance}."
    )


def comparison_table(comparison: Comparison) -> list[list[str]]:
    """A header, then a row a figure; two columns where errors make a difference. Empty without true answers."""
    if not comparison.counts.total:
        return []
    has_errors = comparison.answered != comparison.counts
    columns = {"errors count as wrong": comparison.counts, "errors left out": comparison.answered}
    if not has_errors:
        columns = {plural(comparison.counts.total, "question"): comparison.counts}
    new, old = comparison.new_name, comparison.old_name
    figures: dict[str, Callable[[PairedCounts], str]] = {
        "questions": lambda counts: f"{counts.total:,}",
        f"right in {new}": lambda counts: share_text(Share(counts.new_right, counts.total)),
        f"right in {old}": lambda counts: share_text(Share(counts.old_right, counts.total)),
        f"right only in {new}": lambda counts: f"{counts.only_new:,}",
        f"right only in {old}": lambda counts: f"{counts.only_old:,}",
        "difference in points": points_text,
        "p, McNemar's exact test": lambda counts: p_text(counts.p_value).removeprefix("= "),
    }
    rows = [[name, *map(figure, columns.values())] for name, figure in figures.items()]
    if comparison.has_several:
        p_values = (comparison.by_videos, comparison.answered_by_videos)[: len(columns)]
        rows.append(["p by whole videos", *(p_text(p).removeprefix("= ") for p in p_values)])
    return [["", *columns], *(rows if has_errors else rows[1:])]


def comparison_groups_table(comparison: Comparison) -> list[list[str]]:
    """A header, then a row a group, errors counted as wrong; empty without groups."""
    rows = [["group", "questions", comparison.new_name, comparison.old_name, "difference in points"]]
    for name, counts in comparison.groups.items():
        new, old = (percent(right / counts.total) for right in (counts.new_right, counts.old_right))
        rows.append([name, f"{counts.total:,}", new, old, points_text(counts)])
    return rows if comparison.groups else []


def points_text(counts: PairedCounts) -> str:
    """`+28.6 (+2.6 to +50.7)`; `–` of nothing."""
    if counts.difference is None:
        return "–"
    low, high = counts.interval.low, counts.interval.high
    return f"{100 * counts.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def comparison_texts(comparison: Comparison) -> list[str]:
    """What else there is to know of a comparison: agreement, time, what is left out; a sentence or two each."""
    new, old, pairing = comparison.new_name, comparison.old_name, comparison.pairing
    texts = []
    if comparison.exact.total and comparison.counts.total:
        texts.append(
            f"The answers agree on {share_text(comparison.relaxed)} of the questions that both answered, on "
            f"{share_text(comparison.exact)} word for word."
        )
    times = {new: comparison.new_time, old: comparison.old_time}
    if all(time.seconds_per_video for time in times.values()):
        each = ", ".join(f"{name} {duration(time.seconds_per_video)}" for name, time in times.items())
        texts.append(f"Time per video, summed over its answers: {each}.")
        cached = [f"{time.num_from_cache:,} of {name}" for name, time in times.items() if time.num_from_cache]
        if cached:
            texts.append(f"The times do not compare: the video cache had seen the video of {', '.join(cached)}.")
    left_out = {
        f"only in {new}": pairing.only_in_new,
        f"only in {old}": pairing.only_in_old,
        "without a certain partner (asked with several settings, say)": pairing.num_unclear,
        "with another true answer in each file": comparison.relabelled,
    }
    parts = [f"{count:,} {where}" for where, count in left_out.items() if count]
    if parts:
        texts.append(f"Left out: {', '.join(parts)}.")
    for name, other in list(pairing.renamed.items())[:1]:
        texts.append(
            f"{plural(len(pairing.renamed), 'video')} matched by file name alone: “{name}” is taken for “{other}”."
        )
    return texts


def setting_difference_rows(comparison: Comparison) -> list[list[str]]:
    """A header, then a row a setting; empty where the runs do not differ."""
    rows = [["", comparison.new_name, comparison.old_name]]
    for setting in comparison.settings:
        rows.append([setting.name, *(", ".join(values) or "–" for values in (setting.new, setting.old))])
    return rows if comparison.settings else []


COMPARISON_METHOD = (
    "In brackets: 95 % intervals, of shares by Wilson's method, of differences by Newcombe's for paired shares. These "
    "and McNemar's test take questions as independent, which several about one video may not be; p by whole videos "
    "does not."
)
