"""Records as a CSV table, a row an item, that no spreadsheet takes for formulas."""

import csv
import unicodedata
from collections.abc import Iterable
from typing import IO, Any

from sfvqa.batch.record import Record
from sfvqa.batch.report.facts import STAGES, failure_of, mapping_of, number, text_of, texts_of, verdict_of
from sfvqa.evaluation.matching import Rule

COLUMNS = (
    "video", "id", "question", "status", "answer", "answer_expected", "verdict", "group", "finish_reason",
    "error_type", "error_message", "warnings", "model", "revision", "frames", "new_tokens",
    *(f"{stage}_seconds" for stage in STAGES), "total_seconds", "asked_together", "finished",
    "host", "item_id",
)  # fmt: skip

_STARTS_A_FORMULA = ("=", "+", "-", "@")
_MAY_BE_DROPPED = ("\t", "\r", "\n")
_INVISIBLE_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers, and a pattern without dots


def write_csv(records: Iterable[Record], stream: IO[str], rule: Rule) -> int:
    """Write a header and a row a record, judged by a rule, and say how many; `stream` must not translate newlines.

    Cells with newlines, commas or quotes are quoted as RFC 4180 has it; see `defuse` for cells that look like formulas.
    """
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    num_rows = 0
    for record in records:
        row = _row(record, rule)
        writer.writerow([defuse(value) if isinstance(value, str) else value for value in map(row.get, COLUMNS)])
        num_rows += 1
    return num_rows


def defuse(text: str) -> str:
    """Text that a spreadsheet would calculate gets a `'` before it, and so does text that begins with one already.

    That is text whose first visible character is one of = + - @ (full-width ones too), or that begins with a tab or a
    line's end. So taking one `'` away from every text cell that begins with it gives back exactly what was recorded.

    >>> defuse("=1+1"), defuse("'tis"), defuse("left")
    ("'=1+1", "''tis", 'left')
    """
    first = next((char for char in text if not _is_invisible(char)), "")
    is_formula = unicodedata.normalize("NFKC", first).startswith(_STARTS_A_FORMULA)
    return f"'{text}" if is_formula or text.startswith(("'", *_MAY_BE_DROPPED)) else text


def _is_invisible(char: str) -> bool:
    """Blanks, controls and formatting characters, marks that stand on nothing: spreadsheets drop some of them."""
    return unicodedata.category(char)[0] in "CZM" or char in _INVISIBLE_LETTERS


def _row(record: Record, rule: Rule) -> dict[str, Any]:
    """The cells of one record, numbers as numbers."""
    is_ok = record.get("status") == "ok"
    failure = None if is_ok else failure_of(record)
    timings = mapping_of(record, "timings")
    as_text = (
        "video", "id", "question", "status", "answer_expected", "group", "finish_reason", "model", "revision",
        "finished", "host", "item_id",
    )  # fmt: skip
    return {
        **{name: text_of(record, name) for name in as_text},
        "answer": text_of(record, "answer") if is_ok else None,
        "verdict": verdict_of(record, rule),
        "error_type": failure.kind if failure else None,
        "error_message": failure.message if failure else None,
        "warnings": "\n".join(texts_of(record, "warnings")),
        "frames": _whole(mapping_of(record, "frames").get("count")),
        "new_tokens": _whole(mapping_of(record, "tokens").get("new")),
        **{f"{stage}_seconds": number(timings.get(f"{stage}_seconds")) for stage in STAGES},
        "total_seconds": number(timings.get("total_seconds")),
        "asked_together": _whole(timings.get("asked_together")),
    }


def _whole(value: object) -> int | None:
    count = number(value)
    return None if count is None else int(count)
