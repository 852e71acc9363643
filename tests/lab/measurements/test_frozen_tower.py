"""What a frozen tower saves is measured on runs that learn alike."""

from pathlib import Path

import pytest

from sfvqa.lab.measurements import frozen_tower
from sfvqa.lab.measurements.frozen_tower import ANEW, ONCE, main


def test_both_ways_learn_alike_and_are_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--model", "tiny", "--videos", "2", "--frames", "4", "--folder", str(tmp_path)]
    main([*arguments, "--only", ANEW])
    assert not (tmp_path / f"{ONCE}.json").exists()
    capsys.readouterr()
    main(arguments)
    *_, anew, once = capsys.readouterr().out.splitlines()
    assert "| nothing | 4 of 4 |" in anew
    assert "kB | 4 of 4 |" in once
    monkeypatch.setattr(frozen_tower, "measure", lambda *_: pytest.fail("it was measured before"))
    main(arguments)
    assert capsys.readouterr().out.splitlines()[-2:] == [anew, once]
