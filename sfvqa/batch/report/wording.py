"""Figures in words, for the terminal and the page."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sfvqa import errors
from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.fields import values_text
from sfvqa.batch.report.summary import StageTime, Summary, TimeSpan
from sfvqa.evaluation.scores import Interval, Share
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


def difference_texts(comparison: Comparison) -> list[str]:
    """How two runs differ, and which items are left out; a sentence each."""
    counts = comparison.counts
    sentences = []
    if counts.difference is None:
        sentences.append("The two runs have no item with a true answer in common.")
    else:
        sentences.append(
            f"Accuracy {percent(counts.new_right / counts.total)}, before {percent(counts.old_right / counts.total)}: "
            f"{100 * counts.difference:+.1f} points ({_points(counts.interval)}), p {p_text(counts.p_value)}."
        )
    left_out = {
        "only in this file": comparison.only_in_new,
        "only in the other": comparison.only_in_old,
        "more than once in a file, with other settings": comparison.repeated,
        "with another true answer than before": comparison.relabelled,
    }
    parts = [f"{count:,} {where}" for where, count in left_out.items() if count]
    return [*sentences, f"Left out: {', '.join(parts)}."] if parts else sentences


def _points(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
