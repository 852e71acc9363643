"""The command that measures a batch beside a plain loop, on two short videos."""

from pathlib import Path

from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.measurements import throughput
from sfvqa.lab.measurements.throughput import LOOP, Case, Run
from tests.inference.conftest import write_video


def test_every_way_gives_the_same_answers(tmp_path: Path) -> None:
    videos = [tmp_path / f"{name}.mp4" for name in "ab"]
    for number, path in enumerate(videos):
        write_video(path, num_frames=8, colour=(80 * number, 80, 160))
    runs = throughput.measure(Case("tiny", 2, 8, 2), VideoQA.load("tiny", device="cpu"), videos, repeats=1)
    assert [run.way for run in runs] == [LOOP, "sfvqa batch, one at a time", "sfvqa batch, up to 16 at a time"]
    assert all(run.same_answers and run.seconds > 0 for run in runs)
    assert runs[0].waiting_share is None
    assert all(run.waiting_share is not None and 0 <= run.waiting_share <= 1 for run in runs[1:])


def test_medians_and_ratios_are_of_one_case() -> None:
    case, other = Case("tiny", 10, 32), Case("tiny", 10, 32, 3)
    runs = [Run(case, LOOP, 20.0, None), Run(case, "b", 10.0, 0.05), Run(other, LOOP, 60.0, None)]
    lines = throughput.table([*runs, Run(other, "b", 15.0, 0.5, same_answers=False)]).splitlines()[2:]
    assert lines[1] == "| `tiny`, 32 frames, 1 question | b | 10.0 s | 60.0 | 2.00 × | 5.0% | yes |"
    assert lines[3] == "| `tiny`, 32 frames, 3 questions | b | 15.0 s | 40.0 | 4.00 × | 50.0% | no |"
