"""The contact sheet shows, of every family, the frames that its question is about."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import ExitCode
from sfvqa.lab.comparison.questions import BenchmarkFamily
from sfvqa.lab.comparison.scenes import Timeline
from sfvqa.lab.comparison.show import events_asked_about, examples, main, moments_to_show


def test_a_sheet_is_written_with_a_row_for_every_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "sheet.png"
    main(["--output", str(path), "--frames", "10", "--shown", "32", "--size", "32", "--moments", "32"])
    with Image.open(path) as sheet:
        assert sheet.width > 10 * 32
        assert sheet.height > len(BenchmarkFamily) * 32
    printed = capsys.readouterr().out
    assert all(family in printed for family in BenchmarkFamily)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frames", "4"], "Ask for 10 to 128"),
        (["--frames", "200"], "Ask for 10 to 128"),
        (["--size", "63"], "Use an even number"),
        (["--size", "0"], "size is 0"),
        (["--per-family", "0"], "per_family is 0"),
        (["--moments", "8"], "16 moments or more"),
        (["--seconds", "nan"], "some seconds"),
        (["--quality", "60"], "from 0 to 51"),
        (["--output", "sheet"], "names no kind of picture"),
        (["--output", "/dev/null/sheet.png", "--shown", "8", "--size", "16"], "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_drawn_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (ExitCode.FAILED, ExitCode.USAGE)
    assert said in capsys.readouterr().err


def test_the_frames_of_the_events_are_among_those_shown() -> None:
    for item, question in examples(Timeline(), per_family=2):
        moments = moments_to_show(item.scene, question, 10)
        times = item.scene.timeline.seconds[moments]
        assert len(set(moments)) == len(moments) <= 10
        assert np.all(np.diff(moments) > 0)
        for span in events_asked_about(item.scene, question):
            assert span.holds(times).any()
