"""The paper's claims are judged by what a profile measured."""

import json
import math
from pathlib import Path

import pytest

from sfvqa.lab.measurements.claims import as_table, judge, main
from sfvqa.profiling.compare import read_profile
from tests.profiling.made import ALL_BASELINES, made_point, made_profile

FULL = made_profile(baselines=ALL_BASELINES)


def test_the_claims_are_judged_by_their_bounds() -> None:
    claims = judge(FULL.to_dict())
    assert [claim.holds for claim in claims] == [True] * 4
    assert [claim.measured for claim in claims] == [1.0, 1.0, 8.0, 1.75]
    slower = made_profile(made_point(16), made_point(64), made_point(128, seconds=1.3), baselines=ALL_BASELINES)
    judged = judge(slower.to_dict())
    assert [claim.holds for claim in judged] == [False, False, True, True]
    assert "| prefill, 128 frames over 64 | 1.30× | at most 1.05× | **no** |" in as_table(judged)
    with pytest.raises(ValueError, match="baselines"):
        judge(made_profile().to_dict())


def test_a_kept_profile_is_judged_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(FULL.to_dict(), allow_nan=False), encoding="utf-8")
    main(["--profile", str(path)])
    assert "each token, 64 frames" in capsys.readouterr().out
    assert not math.isnan(judge(read_profile(path))[0].measured)
