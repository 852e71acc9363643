"""`--json-schema` and `--json-object`: answers and records with fields, what fails, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sfvqa.batch.record import read_records
from sfvqa.cli.options import BUNDLED_VIDEOS
from sfvqa.errors import ExitCode
from tests.cli.conftest import RunCli

SHAPES, QUESTION = str(BUNDLED_VIDEOS / "shapes.mp4"), "Which digit is shown?"
SCHEMA = {
    "type": "object",
    "properties": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}, "seen": {"type": "boolean"}},
    "required": ["digit", "seen"],
    "additionalProperties": False,
}


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA, indent=2))
    return path


def is_by_schema(fields: Any) -> bool:
    return list(fields) == ["digit", "seen"] and fields["digit"] in range(10) and fields["seen"] in (True, False)


@pytest.mark.parametrize("together", [[], ["--batch-size", "2"]])
def test_ask_answers_by_a_schema(run_cli: RunCli, schema: Path, together: list[str]) -> None:
    command = ["ask", SHAPES, QUESTION, "Describe the video.", "--model", "tiny", "--json-schema", str(schema)]
    outcome = run_cli(*command, "--json", *together)
    answers = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert (outcome.exit_code, len(answers)) == (0, 2)
    for answer in answers:
        assert is_by_schema(answer["fields"])
        assert json.loads(answer["answer"]) == answer["fields"]
        assert json.loads(answer["settings"]["schema"]) == SCHEMA
    quiet = run_cli(*command, "-q", *together).stdout.splitlines()
    assert [json.loads(line) for line in quiet] == [answer["fields"] for answer in answers]


def test_ask_says_that_an_answer_is_cut(run_cli: RunCli, schema: Path) -> None:
    command = ["ask", SHAPES, QUESTION, "--model", "tiny", "--json-schema", str(schema), "--max-new-tokens", "3"]
    outcome = run_cli(*command)
    assert outcome.exit_code == ExitCode.FAILED
    assert "cut at 3 new tokens" in outcome.stderr
    assert "--max-new-tokens" in outcome.stderr
    as_json = run_cli(*command, "--json")
    error = json.loads(as_json.stdout)
    assert (as_json.exit_code, error["error"]["type"]) == (ExitCode.FAILED, "SchemaNotMetError")


def test_batch_records_fields_and_report_scores_them(run_cli: RunCli, schema: Path, tmp_path: Path) -> None:
    out, manifest, table = tmp_path / "out.jsonl", tmp_path / "manifest.csv", tmp_path / "table.csv"
    manifest.write_text(f"video,question,fields.digit\n{SHAPES},{QUESTION},7\n{SHAPES},Describe the video.,70\n")
    command = ["batch", str(manifest), "--model", "tiny", "-o", str(out), "-q"]
    by_schema = [*command, "--json-schema", str(schema)]
    assert run_cli(*by_schema).exit_code == 0
    records = list(read_records(out))
    assert all(is_by_schema(record["fields"]) for record in records)
    assert [record["fields_expected"] for record in records] == [{"digit": "7"}, {"digit": "70"}]
    assert {record["requested"]["json_schema"] for record in records} == {json.dumps(SCHEMA, separators=(",", ":"))}
    report = json.loads(run_cli("report", str(out), "--json", "--csv", str(table)).stdout)
    digit, seen = report["fields"]
    assert (digit["name"], digit["count"], seen["name"], seen["score"]) == ("digit", 2, "seen", None)
    assert digit["score"]["wrong"] >= 1  # no digit is 70
    assert "fields_verdict.digit" in table.read_text().splitlines()[0]
    shown = run_cli("report", str(out), "--html", str(tmp_path / "page.html"))
    assert "Fields\n" in shown.stdout
    assert "<h2>Fields</h2>" in (tmp_path / "page.html").read_text()

    # Another order of keys is another schema; the same one is not asked again; answers without one are other items.
    assert run_cli(*by_schema).exit_code == 0
    assert len(list(read_records(out))) == 2
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps({**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}))  # type: ignore[attr-defined]
    assert run_cli(*command, "--json-schema", str(turned)).exit_code == 0
    without = run_cli(*command)
    assert "only answers by a schema" in run_cli(*command[:-1]).stderr + without.stderr
    found = list(read_records(out))
    assert len({record["item_id"] for record in found}) == len(found) == 6
    assert [list(record["fields"] or ()) for record in found[2:4]] == [["seen", "digit"]] * 2
    assert [record["fields"] for record in found[4:]] == [None, None]


def test_batch_gives_an_error_record_to_an_answer_that_is_cut(run_cli: RunCli, schema: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = ["batch", SHAPES, "--question", QUESTION, "--model", "tiny", "-o", str(out), "-q"]
    cut = run_cli(*command, "--json-schema", str(schema), "--max-new-tokens", "3", "--json-object")
    assert cut.exit_code == ExitCode.USAGE
    assert run_cli(*command, "--json-schema", str(schema), "--max-new-tokens", "3").exit_code == ExitCode.BATCH_FAILURES
    (record,) = read_records(out)
    assert (record["status"], record["error"]["type"]) == ("error", "SchemaNotMetError")
    assert "answer" not in record


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--json-object", "--choices", "a,b"], "--choices and --json-object contradict"),
        (["--json-object", "--json-schema", "SCHEMA"], "--json-schema and --json-object contradict"),
        (["--json-schema", "nowhere.json"], "cannot be read"),
        (["--json-schema", "BROKEN"], "not valid JSON"),
        (["--json-schema", "BYTES"], "not UTF-8"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    run_cli: RunCli, schema: Path, tmp_path: Path, flags: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    files = {"SCHEMA": schema, "BROKEN": tmp_path / "broken.json", "BYTES": tmp_path / "bytes.json"}
    outcome = run_cli("ask", SHAPES, QUESTION, *(str(files.get(flag, flag)) for flag in flags))
    assert outcome.exit_code == ExitCode.USAGE
    assert says in " ".join(outcome.stderr.split())


def test_a_manifest_with_choices_contradicts_a_schema(run_cli: RunCli, schema: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f'video,question,choices\n{SHAPES},{QUESTION},"7,8"\n')
    command = ["batch", str(manifest), "--model", "tiny", "-o", str(tmp_path / "out.jsonl")]
    outcome = run_cli(*command, "--json-schema", str(schema))
    assert outcome.exit_code == ExitCode.USAGE
    assert "manifest has choices" in " ".join(outcome.stderr.split())
