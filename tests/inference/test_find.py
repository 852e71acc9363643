"""Finding moments in a real file, by a model whose word on each window is scripted: what it sees is real."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.errors import RangeOutsideVideoError, UsageError, VideoError
from sfvqa.inference.answer import Answer, ChoiceProbability, FrameEvidence
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.find import FindProgress, Found, find_progressively
from sfvqa.inference.moments import FindOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import SamplingOptions
from sfvqa.video.windows import Window
from tests.inference.conftest import write_video

EVENT = 31.5


class Watching(VideoQA):
    """Says yes of a window in which a frame within half a second of the event is, and looks at that frame."""

    def __init__(self, qa: VideoQA, *, yes: float = 0.9, otherwise: float = 1e-4, looks: bool = True) -> None:
        super().__init__(qa.checkpoint)
        self.yes, self.otherwise, self.looks = yes, otherwise, looks
        self.asked: list[tuple[str, tuple[float, ...]]] = []
        self.example = qa.ask(None, "?", choices=("Yes", "No"))

    def ask(self, video: object, question: str, options: GenerationOptions | None = None, **more: object) -> Answer:
        """Without a model."""
        assert isinstance(video, EncodedVideo)
        assert more["choices"] == ("Yes", "No")
        times = video.timestamps_seconds
        self.asked.append((question, times))
        nearest = min(times, key=lambda time: abs(time - EVENT))
        chance = self.yes if abs(nearest - EVENT) <= 0.5 else self.otherwise
        choices = (ChoiceProbability("Yes", chance, math.log(chance)), ChoiceProbability("No", 1 - chance, -1.0))
        frames = zip(times, video.indices, strict=True)
        evidence = [FrameEvidence(time, index, float(time == nearest)) for time, index in frames]
        wanted = options is not None and options.evidence
        return replace(self.example, choices=choices, evidence=tuple(evidence) if wanted and self.looks else None)


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute at ten frames a second."""
    return write_video(tmp_path_factory.mktemp("minute") / "minute.mp4", num_frames=600, colour=(40, 80, 160))


def test_a_coarse_look_over_all_and_a_closer_one_around_what_stands_out(qa: VideoQA, minute: Path) -> None:
    model = Watching(qa)
    found = model.find(minute, "a fall")
    (moment,) = found.moments
    assert moment.start_seconds <= EVENT <= moment.end_seconds <= moment.start_seconds + 5
    assert abs(moment.best_seconds - EVENT) <= 0.5
    assert moment.best_index == round(moment.best_seconds * 10)
    assert moment.is_looked_at
    assert {question for question, _ in model.asked} == {"Does the video show a fall?"}
    first = model.asked[: len(found.looks)]
    assert [(look.start_seconds, look.end_seconds) for look in found.looks][:2] == [(0.0, 8.0), (8.0, 16.0)]
    assert all(6.5 < times[-1] - times[0] <= 8.0 for _, times in first[:-1])
    closer = model.asked[len(found.looks) :]
    assert closer
    assert all(21 <= times[0] < times[-1] <= 42.01 and times[-1] - times[0] <= 2.0 for _, times in closer)
    assert (found.num_windows, found.num_frames) == (len(model.asked), sum(len(times) for _, times in model.asked))


def test_a_model_that_says_yes_to_everything_finds_nothing(qa: VideoQA, minute: Path) -> None:
    found = Watching(qa, yes=0.9, otherwise=0.9).find(minute, "a fall")
    assert found.moments == ()
    assert found.calibration.median == pytest.approx(2.197, abs=0.001)


def test_where_it_looks_at_no_frame_the_middle_one_counts(qa: VideoQA, minute: Path) -> None:
    (moment,) = Watching(qa, looks=False).find(minute, "Does anyone fall?").moments
    assert not moment.is_looked_at
    assert abs(moment.best_seconds - EVENT) <= 1.5


def test_only_the_part_that_is_asked_for_is_looked_at_and_by_so_many_frames(qa: VideoQA, minute: Path) -> None:
    model = Watching(qa)
    found = model.find(minute, "a fall", sampling=SamplingOptions(num_frames=4, start_seconds=24.0, end_seconds=40.0))
    assert len(found.moments) == 1
    assert all(len(times) == 4 and 24.0 <= times[0] <= times[-1] <= 40.01 for _, times in model.asked)
    with pytest.raises(RangeOutsideVideoError):
        model.find(minute, "a fall", sampling=SamplingOptions(start_seconds=100.0))


def test_each_window_is_progress(qa: VideoQA, minute: Path) -> None:
    steps: list[FindProgress] = []
    search = find_progressively(Watching(qa), minute, "a fall", FindOptions(every_seconds=4.0))
    while True:
        try:
            steps.append(next(search))
        except StopIteration as end:
            found: Found = end.value
            break
    assert len(steps) == found.num_windows
    over_all = [step for step in steps if step.stage is steps[0].stage]
    assert [(step.done, step.total) for step in over_all] == [(place + 1, 15) for place in range(15)]


def test_a_window_that_cannot_be_read_is_left_out_with_a_warning(
    qa: VideoQA, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Watching(qa)
    windows: Callable[..., Iterator[tuple[Window, EncodedVideo | VideoError]]] = VideoQA.windows

    def partly(*args: object, **more: object) -> Iterator[tuple[Window, EncodedVideo | VideoError]]:
        for number, (window, encoded) in enumerate(windows(*args, **more)):
            yield window, VideoError("It is damaged.") if number == 1 or only_errors else encoded

    monkeypatch.setattr(Watching, "windows", partly)
    only_errors = False
    found = model.find(minute, "a fall")
    assert len(found.moments) == 1
    assert "0:08–0:16 could not be looked at: It is damaged." in found.warnings
    only_errors = True
    with pytest.raises(VideoError, match="damaged"):
        model.find(minute, "a fall")


def test_what_cannot_be_looked_at_closer_stays_as_it_was_seen(
    qa: VideoQA, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: Callable[..., Iterator[tuple[Window, EncodedVideo | VideoError]]] = VideoQA.windows

    def coarsely(*args: object, **more: object) -> Iterator[tuple[Window, EncodedVideo | VideoError]]:
        for window, encoded in windows(*args, **more):
            is_short = window.end_seconds - window.start_seconds < 4
            yield window, VideoError("It is damaged.") if is_short else encoded

    monkeypatch.setattr(Watching, "windows", coarsely)
    (moment,) = Watching(qa).find(minute, "a fall").moments
    assert (moment.start_seconds, moment.end_seconds) == (24.0, 40.0)  # the frame at 32 s is in both windows


def test_an_empty_text_is_refused_before_the_file_is_opened(qa: VideoQA, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        Watching(qa).find(tmp_path / "absent.mp4", "  ")
