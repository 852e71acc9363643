"""What a report gives to other programs: records as a CSV table, and the summary as a JSON document."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from typing import IO, Any

from sfvqa.batch.record import Record
from sfvqa.batch.report.against import Comparison, Pair
from sfvqa.batch.report.facts import STAGES, failure_of, mapping_of, number, text_of, texts_of, verdict_of
from sfvqa.batch.report.fields import FieldSummary, field_verdicts_of, fields_of
from sfvqa.batch.report.summary import Summary, TimeSpan
from sfvqa.batch.report.wording import headline
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import PairedCounts, Score, Share
from sfvqa.spreadsheet import defuse

SCHEMA_VERSION = 1  # of the document


def write_csv(records: Iterable[Record], stream: IO[str], rule: Rule, fields: Sequence[FieldSummary] = ()) -> int:
    """Write a header and a row a record, judged by a rule; the number of rows. `stream` must not translate newlines.

    Behind the columns that every table has are those of the `fields`.

    Cells with newlines, commas or quotes are quoted by RFC 4180; see `defuse` for cells that look like formulas.
    """
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(_row({}, rule, fields))
    num_rows = 0
    for num_rows, record in enumerate(records, start=1):  # noqa: B007  their number in the end
        cells = _row(record, rule, fields).values()
        writer.writerow([defuse(value) if isinstance(value, str) else value for value in cells])
    return num_rows


def _row(record: Record, rule: Rule, fields: Sequence[FieldSummary]) -> dict[str, Any]:
    """The cells of one record by their columns, in order; numbers as numbers."""
    is_ok = record.get("status") == "ok"
    failure = None if is_ok else failure_of(record)
    timings = mapping_of(record, "timings")

    def texts(*names: str) -> dict[str, str | None]:
        return {name: text_of(record, name) for name in names}

    return {
        "video": text_of(record, "video"),
        **{f"window_{end}": number(mapping_of(record, "window").get(end)) for end in ("start_seconds", "end_seconds")},
        **texts("id", "question", "status"),
        "answer": text_of(record, "answer") if is_ok else None,
        **texts("answer_expected"),
        "verdict": verdict_of(record, rule),
        **texts("group", "finish_reason"),
        "error_type": failure.kind if failure else None,
        "error_message": failure.message if failure else None,
        "warnings": "\n".join(texts_of(record, "warnings")),
        **texts("model", "revision"),
        "frames": _whole(mapping_of(record, "frames").get("count")),
        "new_tokens": _whole(mapping_of(record, "tokens").get("new")),
        **{f"{stage}_seconds": number(timings.get(f"{stage}_seconds")) for stage in (*STAGES, "total")},
        "asked_together": _whole(timings.get("asked_together")),
        **texts("finished", "host", "item_id"),
        **_field_cells(record, rule, fields),
    }


def _field_cells(record: Record, rule: Rule, fields: Sequence[FieldSummary]) -> dict[str, str | None]:
    said, expected, verdicts = fields_of(record), mapping_of(record, "fields_expected"), field_verdicts_of(record, rule)
    cells: dict[str, str | None] = {}
    for name in (field.name for field in fields):
        cells[f"fields.{name}"] = said.get(name)
    for name in (field.name for field in fields if field.score is not None):
        cells[f"fields_expected.{name}"] = text_of(expected, name)
        cells[f"fields_verdict.{name}"] = verdicts.get(name)
    return cells


def _whole(value: object) -> int | None:
    count = number(value)
    return None if count is None else int(count)


def summary_document(summary: Summary, comparison: Comparison | None = None) -> dict[str, Any]:
    """All of the summary; times in ISO 8601, shares between 0 and 1, None for what is unknown."""
    return {
        "schema_version": SCHEMA_VERSION,
        "records": summary.num_records,
        "items": summary.num_items,
        "ok": summary.num_ok,
        "failed": summary.num_failed,
        "videos": summary.num_videos,
        "new_tokens": summary.new_tokens,
        "time": None if summary.span is None else {**_span(summary.span), **summary.rates},
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
        "fields": [
            {
                "name": field.name,
                "count": field.count,
                "repeated": dict(field.repeated),
                "score": None if field.score is None else _score(field.score),
            }
            for field in summary.fields
        ],
        "comparison": None if comparison is None else _comparison(comparison),
        "notices": list(summary.notices),
    }


def _span(span: TimeSpan) -> dict[str, Any]:
    return {
        "began": _iso(span.began),
        "ended": _iso(span.ended),
        "active_seconds": span.active_seconds,
        "pauses": span.num_pauses,
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
    return {"right": share.right, "total": share.total, "accuracy": share.value, "interval_95": astuple(share.interval)}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    times = {"new": comparison.new_time, "old": comparison.old_time}
    return {
        "new": comparison.new_name,
        "old": comparison.old_name,
        "headline": headline(comparison),
        **_counts(comparison.counts),
        "p_value_by_videos": comparison.by_videos,
        "errors_left_out": {**_counts(comparison.answered), "p_value_by_videos": comparison.answered_by_videos},
        "groups": {name: _counts(counts) for name, counts in comparison.groups.items()},
        "agreement": {"exact": _agreement(comparison.exact), "relaxed": _agreement(comparison.relaxed)},
        "time": {"videos": comparison.num_videos, **{name: asdict(time) for name, time in times.items()}},
        "only_in_new": comparison.pairing.only_in_new,
        "only_in_old": comparison.pairing.only_in_old,
        "partner_unclear": comparison.pairing.num_unclear,
        "relabelled": comparison.relabelled,
        "matched_by_file_name": comparison.pairing.renamed,
        "settings": [asdict(setting) for setting in comparison.settings],
        "changes": [_change(pair) for pair in comparison.changes],
    }


def _counts(counts: PairedCounts) -> dict[str, Any]:
    return {
        **asdict(counts),
        "items": counts.total,
        "new_accuracy": Share(counts.new_right, counts.total).value,
        "old_accuracy": Share(counts.old_right, counts.total).value,
        "difference": counts.difference,
        "interval_95": astuple(counts.interval),
        "p_value": counts.p_value,
    }


def _agreement(share: Share) -> dict[str, Any]:
    return {"agreeing": share.right, "total": share.total, "share": share.value, "interval_95": astuple(share.interval)}


def _change(pair: Pair) -> dict[str, Any]:
    return {
        "outcome": pair.outcome,
        "video": pair.new.video,
        **asdict(pair.new.asked),
        "id": pair.new.own_id,
        "expected": pair.expected,
        "old": pair.old_verdict,
        "new": pair.new_verdict,
        "old_answer": pair.old.answer,
        "new_answer": pair.new.answer,
    }
