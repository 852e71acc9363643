"""Fields of answers by a schema: a column each, their values counted, and scored against the manifest's."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.record import Record, flat_fields
from sfvqa.batch.report.exports import summary_document, write_csv
from sfvqa.batch.report.facts import collect
from sfvqa.batch.report.fields import MOST_FIELDS, FieldSummary
from sfvqa.batch.report.summary import Summary, summarise
from sfvqa.batch.report.wording import field_table
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Score
from tests.batch.report.records import SETTINGS, failed, item, ok, write

BY_SCHEMA = {**SETTINGS, "json_schema": '{"type":"object"}'}


def answered(name: str, fields: object, **true: str) -> Record:
    return ok(item(name, fields=tuple(true.items())), str(fields), settings=BY_SCHEMA, fields=fields)


def summary_of(folder: Path, *records: Record, rule: Rule = Rule.PHRASE) -> Summary:
    return summarise(collect(write(folder / "out.jsonl", records), rule))


def rows_of(summary: Summary, *records: Record) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    write_csv(records, stream, Rule.PHRASE, summary.fields)
    return list(csv.DictReader(io.StringIO(stream.getvalue(), newline=""), strict=True))


def test_fields_are_counted_and_scored(tmp_path: Path) -> None:
    records = [
        answered("a", {"colour": "red", "number": 2, "box": {"x": 1}}, colour="Red", number="two"),
        answered("b", {"colour": "red", "number": 3, "why": "so"}, colour="blue"),
        answered("c", {"colour": None, "number": 2}, colour="red", missing="x"),
        failed(item("d", fields=(("colour", "red"),)), settings=BY_SCHEMA),
    ]
    summary = summary_of(tmp_path, *records)
    assert summary.fields == (
        FieldSummary("colour", 2, (("red", 2),), Score(1, 2, 1)),
        FieldSummary("number", 3, (("2", 2),), Score(1, 0, 0)),
        FieldSummary("box.x", 1, (), None),
        FieldSummary("why", 1, (), None),
        FieldSummary("missing", 0, (), Score(0, 1, 0)),
    )
    first, second, third, fourth = rows_of(summary, *records)
    names = ("fields.colour", "fields_expected.colour", "fields_verdict.colour")
    assert [first[name] for name in names] == ["red", "Red", "right"]
    assert [second[name] for name in names] == ["red", "blue", "wrong"]
    assert [third[name] for name in names] == ["", "red", "wrong"]
    assert [fourth[name] for name in names] == ["", "red", "failed"]
    assert (first["fields.number"], first["fields_verdict.number"], first["fields.box.x"]) == ("2", "right", "1")
    assert (second["fields_verdict.number"], "fields_verdict.why" in second) == ("", False)
    header, colour, number, box, *_ = field_table(summary)
    assert header == ["field", "answers", "values that repeat", "right (errors count as wrong)"]
    assert colour[:3] == ["colour", "2", "red 2"]
    assert colour[3].startswith("25.0 %")
    assert (number[2], box[2:]) == ("2 2, others 1", ["all different", ""])
    document: Any = summary_document(summary)
    assert document["fields"][0]["repeated"] == {"red": 2}
    assert document["fields"][0]["score"]["errors_count_as_wrong"]["total"] == 4


def test_the_exact_rule_is_that_of_answers(tmp_path: Path) -> None:
    record = answered("a", {"where": "dark red", "number": 2.0}, where="red", number="2")
    verdicts = {field.name: field.score for field in summary_of(tmp_path, record).fields}
    assert verdicts == {"where": Score(1, 0, 0), "number": Score(1, 0, 0)}
    exact = summary_of(tmp_path, record, rule=Rule.EXACT)
    assert [field.score for field in exact.fields] == [Score(0, 1, 0), Score(0, 1, 0)]


def test_only_the_last_record_of_an_item_counts(tmp_path: Path) -> None:
    before, after = answered("a", {"colour": "red"}), answered("a", {"colour": "blue"})
    assert before["item_id"] == after["item_id"]
    (field,) = summary_of(tmp_path, before, after, answered("b", {"colour": "blue"})).fields
    assert field.repeated == (("blue", 2),)


def test_answers_without_a_schema_have_no_fields_and_the_table_is_as_it_was(tmp_path: Path) -> None:
    record = ok(item("a", fields=(("colour", "red"),)))
    summary = summary_of(tmp_path, record)
    assert (summary.fields, field_table(summary)) == ((), [])
    assert not any(name.startswith("fields") for name in rows_of(summary, record)[0])
    old = {name: value for name, value in record.items() if not name.startswith("fields")}
    assert summary_of(tmp_path, old).fields == ()


@pytest.mark.parametrize("fields", [[1, 2], "red", 3, None, {}])
def test_a_value_that_is_no_object_has_no_fields(tmp_path: Path, fields: object) -> None:
    assert summary_of(tmp_path, answered("a", fields)).fields == ()


def test_names_without_end_are_cut_and_said(tmp_path: Path) -> None:
    record = answered("a", {f"name {number}": number for number in range(MOST_FIELDS + 50)})
    summary = summary_of(tmp_path, record)
    assert len(summary.fields) == MOST_FIELDS
    assert any(f"first {MOST_FIELDS} fields" in notice for notice in summary.notices)


def test_long_texts_are_in_the_table_and_not_counted(tmp_path: Path) -> None:
    records = [answered(name, {"why": "because " * 100}) for name in "ab"]
    summary = summary_of(tmp_path, *records)
    assert summary.fields == (FieldSummary("why", 2, (), None),)
    assert rows_of(summary, *records)[0]["fields.why"] == "because " * 100


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(_VALUES)
def test_any_value_is_flat_text(value: object) -> None:
    flat = flat_fields(value)
    assert all(isinstance(text, str) for text in flat.values())
    assert isinstance(value, dict) or not flat
    nested: Any = {"deep": "end"}
    for _ in range(500):
        nested = {"a": nested}
    assert len(flat_fields(nested)) == 1
