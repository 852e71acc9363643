"""The figures of a run as one JSON object: what `sfvqa report --json` prints."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.span import TimeSpan
from sfvqa.batch.report.summary import Summary
from sfvqa.evaluation.intervals import Interval
from sfvqa.evaluation.scores import Score, Share

SCHEMA_VERSION = 1


def summary_document(summary: Summary, comparison: Comparison | None = None) -> dict[str, Any]:
    """Everything that the summary has; times in ISO 8601, shares between 0 and 1, None for what is not known."""
    return {
        "schema_version": SCHEMA_VERSION,
        "records": summary.num_records,
        "items": summary.num_items,
        "ok": summary.num_ok,
        "failed": summary.num_failed,
        "videos": summary.num_videos,
        "new_tokens": summary.new_tokens,
        "time": None if summary.span is None else _span(summary.span, summary),
        "stages": {
            stage.stage: {"sum_seconds": stage.sum_seconds, "median_seconds": stage.median_seconds}
            for stage in summary.stages
        },
        "slowest": [asdict(item) for item in summary.slowest],
        "errors": [asdict(error) for error in summary.errors],
        "warnings": [asdict(warning) for warning in summary.warnings],
        "settings": [asdict(use) for use in summary.settings],
        "answered_by": [asdict(answerer) for answerer in summary.answerers],
        "versions": list(summary.versions),
        "hosts": summary.hosts,
        "matching": {"rule": summary.rule, "statement": summary.rule.statement},
        "score": None if summary.score is None else _score(summary.score),
        "groups": {name: _score(score) for name, score in summary.groups.items()},
        "wrong": [asdict(item) for item in summary.wrong],
        "comparison": None if comparison is None else _comparison(comparison),
        "notices": list(summary.notices),
    }


def _span(span: TimeSpan, summary: Summary) -> dict[str, Any]:
    return {
        "began": _iso(span.began),
        "ended": _iso(span.ended),
        "active_seconds": span.active_seconds,
        "pauses": span.num_pauses,
        "items_per_minute": span.per_minute(summary.num_items),
        "videos_per_minute": span.per_minute(summary.num_videos),
        "tokens_per_second": span.per_second(summary.new_tokens),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _score(score: Score) -> dict[str, Any]:
    return {
        **asdict(score),
        "errors_count_as_wrong": _share(score.of_all),
        "errors_left_out": _share(score.of_answered),
    }


def _share(share: Share) -> dict[str, Any]:
    return {"right": share.right, "total": share.total, "accuracy": share.value, "interval_95": _ends(share.interval)}


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    counts = comparison.counts
    return {
        **asdict(counts),
        "items": counts.total,
        "difference": counts.difference,
        "interval_95": _ends(counts.interval),
        "p_value": counts.p_value,
        "only_in_new": comparison.only_in_new,
        "only_in_old": comparison.only_in_old,
        "repeated": comparison.repeated,
        "relabelled": comparison.relabelled,
        "changes": [asdict(change) for change in comparison.changes],
    }
