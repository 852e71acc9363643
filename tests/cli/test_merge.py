"""`sfvqa merge`: what shards wrote becomes one file, and what became of the records is said."""

import json
from pathlib import Path

import pytest

from sfvqa.batch.record import to_line
from tests.batch.made import error_of, id_of, ok_of
from tests.cli.conftest import RunCli


@pytest.fixture
def parts(tmp_path: Path) -> list[str]:
    """Two shards, with an answer in dispute and one that is torn."""
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_bytes(to_line(ok_of(0)) + to_line(error_of(1)) + to_line(ok_of(2, "Left.")) + to_line(ok_of(3))[:80])
    second.write_bytes(to_line(ok_of(0)) + to_line(ok_of(1)) + to_line(ok_of(2, "Right.")) + to_line(error_of(4)))
    return [str(first), str(second)]


def test_merging_says_what_became_of_the_records(run_cli: RunCli, parts: list[str], tmp_path: Path) -> None:
    output = tmp_path / "all.jsonl"
    run = run_cli("merge", str(output), *parts)
    assert (run.exit_code, run.stdout) == (0, "")
    assert run.stderr.splitlines() == [
        f"Warning: Skipped 1 torn or damaged line of “{parts[0]}”: 4.",
        f"Warning: 1 item had different answers; the first was kept: {id_of(2)}.",
        f"{output}: 3 answers and 1 error; left out: 1 repeated answer, 1 older error.",
    ]
    assert output.read_bytes().count(b"\n") == 4


def test_merging_as_json(run_cli: RunCli, parts: list[str], tmp_path: Path) -> None:
    run = run_cli("merge", str(tmp_path / "all.jsonl"), *parts, "--json", "-q")
    document = json.loads(run.stdout)
    warnings = document.pop("warnings")
    assert run.exit_code == 0
    assert all(line.startswith("Warning: ") for line in run.stderr.splitlines())
    assert warnings == [f"Skipped 1 torn or damaged line of “{parts[0]}”: 4."]
    assert document == {
        "schema_version": 1, "output": str(tmp_path / "all.jsonl"), "records": 4, "ok": 3, "errors": 1, "repeated": 1,
        "superseded": 1, "conflicts": [id_of(2)],
    }  # fmt: skip


def test_what_is_there_is_kept_unless_asked(run_cli: RunCli, parts: list[str], tmp_path: Path) -> None:
    """Also where OUT was forgotten, and the first part would have been it."""
    before = Path(parts[0]).read_bytes()
    run = run_cli("merge", *parts)
    assert (run.exit_code, run.stdout) == (2, "")
    assert "already exists" in run.stderr
    assert Path(parts[0]).read_bytes() == before
    assert run_cli("merge", *parts, "--overwrite").exit_code == 0
    assert (tmp_path / "1.jsonl.old").read_bytes() == before


def test_what_is_no_part_is_an_error(run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("merge", str(tmp_path / "all.jsonl"), str(tmp_path / "absent.jsonl"), "--json")
    assert run.exit_code == 2
    assert json.loads(run.stdout)["error"]["type"] == "UsageError"
    assert run_cli("merge", str(tmp_path / "all.jsonl")).exit_code == 2
