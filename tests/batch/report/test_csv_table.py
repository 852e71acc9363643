"""The table comes back as it was written, and no spreadsheet calculates with it."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.report.exports import defuse, write_csv
from sfvqa.evaluation.matching import Rule
from tests.batch.report.records import failed, item, ok


def rows_of(*records: dict[str, object]) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    assert write_csv(records, stream, Rule.PHRASE) == len(records)
    return list(csv.DictReader(io.StringIO(stream.getvalue(), newline=""), strict=True))


def test_a_row_an_item_however_many_lines_its_answer_has() -> None:
    answer = 'First, "red".\nThen blue;\r\nthen ünicode 🎈, all\tin one.'
    rows = rows_of(ok(item("a,b.mp4", answer="left", group="g"), answer), failed(item("c\nd.mp4")))
    assert [row["answer"] for row in rows] == [answer, ""]
    assert [row["video"] for row in rows] == ["a,b.mp4", "c\nd.mp4"]
    assert (rows[0]["verdict"], rows[0]["group"], rows[0]["read_seconds"], rows[0]["frames"]) == (
        "wrong",
        "g",
        "0.25",
        "4",
    )
    assert (rows[1]["status"], rows[1]["error_type"]) == ("error", "UnreadableVideoError")
    assert list(rows[0]) == [
        "video", "window_start_seconds", "window_end_seconds", "id", "question", "status", "answer", "answer_expected", "verdict", "group", "finish_reason",
        "error_type", "error_message", "warnings", "model", "revision", "frames", "new_tokens", "read_seconds",
        "encode_seconds", "prefill_seconds", "decode_seconds", "total_seconds", "asked_together", "finished", "host",
        "item_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\tleft",
        "\rleft",
        "  =1",
        "＝1",
        "﹦1",
        "\ufeff=1",
        "\u200b=1",
        "\u200b \u2060\u00ad@SUM(A1)",
        "\x00=1",
        "\u00a0=1",
        "\u034f\ufe0f=1",
        "\u3164=1",
        "\u2800-1",
        "\U000e0001+1",
        '=HYPERLINK("http://a","b")',
    ],
)
def test_formulas_are_defused_in_every_column(text: str) -> None:
    """Spreadsheets drop a byte order mark, and some a zero-width space: what comes behind it is then calculated."""
    record = ok(item(text, text, own_id=text, group=text, answer=text), text)
    (row,) = rows_of(record)
    for column in ("video", "question", "id", "group", "answer", "answer_expected"):
        assert row[column] == f"'{text}"


@given(st.text())
def test_taking_the_mark_away_gives_back_what_was_recorded(text: str) -> None:
    assert defuse(text).removeprefix("'") == text
    assert not defuse(text).lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_stay_numbers() -> None:
    """A cell that we calculate is no text of anybody's."""
    record = {**ok(), "finished": "-5"}
    (row,) = rows_of(record)
    assert row["total_seconds"] == "1.375"
    assert row["finished"] == "'-5"
