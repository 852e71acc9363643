"""What a schema adds to a token is measured on tokens that are written by it."""

import json
from pathlib import Path

import pytest

from sfvqa.lab.measurements.schema_cost import main

pytestmark = pytest.mark.lab


def test_both_ways_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    main(["--models", "tiny", "--new-tokens", "12", "--repeats", "2", "--json", str(out)])
    cost = json.loads(out.read_text())["figures"]["tiny"]
    assert 0 < cost["guide_seconds"] <= cost["guide_worst_seconds"]
    assert cost["guide_seconds"] < cost["token_by_schema_seconds"]
    assert cost["token_seconds"] > 0
    assert "| tiny | 768 |" in capsys.readouterr().out
