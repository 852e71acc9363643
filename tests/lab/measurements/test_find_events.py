"""A recording holds its events where its list says, and what a search found is counted against it."""

import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from sfvqa.errors import UsageError
from sfvqa.lab.measurements import find_events, long_recording
from sfvqa.lab.measurements.find_events import Decoded, Search, table
from sfvqa.lab.measurements.long_recording import FPS, Event, Shot, events_of, plan_shots

RED = np.array([230, 41, 41])


def test_events_are_spread_over_the_recording_and_lie_within_their_shots() -> None:
    shots = plan_shots(np.random.default_rng(0), 7200, 20, with_footage=True)
    events = events_of(shots)
    assert 7200 <= sum(shot.seconds for shot in shots) < 7245
    assert len(events) == 20
    assert all(0.9 < event.end_seconds - event.start_seconds < 3.1 for event in events)
    gaps = [later.start_seconds - sooner.end_seconds for sooner, later in pairwise(events)]
    assert min(gaps) > 7.9
    assert max(gaps) < 1000
    assert any(shot.name.startswith("footage") for shot in shots)
    assert shots == plan_shots(np.random.default_rng(0), 7200, 20, with_footage=True)
    with pytest.raises(UsageError):
        plan_shots(np.random.default_rng(0), 60, 20, with_footage=False)


def num_red(frame: av.VideoFrame) -> int:
    return int((np.abs(frame.to_ndarray(format="rgb24").astype(int) - RED).max(axis=2) < 40).sum())


def test_the_star_is_in_the_picture_when_the_list_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At 15 frames a second, after the joining of two shots of the same bytes."""
    shots = [Shot("scene-1", 30), Shot("scene-1", 30), Shot("event-0", 10 * FPS, Event(4.0, 5.0), seed=3)]
    monkeypatch.setattr(long_recording, "plan_shots", lambda *_args, **_more: shots)
    video = tmp_path / "recording.mp4"
    long_recording.main([str(video)])
    known = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    assert known["events"] == [{"start_seconds": 8.0, "end_seconds": 9.0}]
    with av.open(str(video)) as container:
        shown = [
            round(float(frame.time or 0) * FPS)
            for frame in container.decode(video=0)
            if 1000 < num_red(frame) < 50_000  # a flash is more
        ]
    assert shown == list(range(8 * FPS, 9 * FPS))


def test_recall_counts_events_and_precision_moments() -> None:
    events = [Event(10.0, 12.0), Event(50.0, 51.0), Event(90.0, 92.0)]
    search = Search("`find`", (11.0, 12.9, 52.1, 89.0), 32, Decoded(50, 1.0), 2.0, 10**8)
    assert (search.num_found(events), search.num_right(events)) == (2, 3)
    row = table([search], events, Decoded(100, 4.0)).splitlines()[-1]
    assert row == "| `find` | 2 of 3 | 3 of 4 | 32 | 0.500 | 0.250 | 2 s | 100 MB |"


def test_both_ways_of_searching_count_what_they_decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the bundled video, whose red circle is there all along."""
    video = tmp_path / "shapes.mp4"
    video.write_bytes(Path("sfvqa/assets/demo/shapes.mp4").read_bytes())
    known = {"event": "a red circle", "events": [{"start_seconds": 0.0, "end_seconds": 5.0}]}
    video.with_suffix(".json").write_text(json.dumps(known), encoding="utf-8")
    find_events.main([str(video), "--json", str(tmp_path / "figures.json")])
    uniform, found = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[-2:])
    assert uniform[1:4] == ["1 of 1", "1 of 1", "64"]
    assert found[1:3] == ["1 of 1", "1 of 1"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["whole"]["frames"] == 120
    assert 0 < figures["searches"][1]["decoded"]["frames"] <= 2 * 120 + 24
