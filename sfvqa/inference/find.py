"""When does a video show something? Windows asked about one by one, coarse over all of it, then closer at what stands
out.

Every window is asked the same question, and counts by the log-probability of “Yes” against all else that the model
could say: one that would rather say that it cannot tell has not said yes. `inference.moments` says what that comes to.
"""

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import VideoError
from sfvqa.inference.answer import SCHEMA_VERSION
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.moments import (
    Calibration,
    FindOptions,
    Look,
    Moment,
    closer_lengths,
    log_odds,
    merge_into_moments,
    question_about,
    ranges_to_see_closer,
    replaced_by_closer,
)
from sfvqa.inference.question import PromptOptions
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.video.windows import Window, WindowOptions, plan_windows

if TYPE_CHECKING:
    from sfvqa.inference.video_qa import VideoQA

YES, NO = "Yes", "No"
_FRAMES_A_SECOND, _LEAST_FRAMES = 2.0, 8  # of the first look: what lasts a second is seen twice


class FindStage(StrEnum):
    """Which look windows are encoded and asked about for."""

    OVER_ALL = "Looking over the video"
    CLOSER = "Looking closer"


@dataclass(frozen=True)
class FindProgress:
    """`done` of about `total` windows of this stage were asked about."""

    stage: FindStage
    done: int
    total: int


@dataclass(frozen=True)
class Found:
    """The moments, likeliest first, and what they were found by.

    `looks` are those of the first look, over all of the video, and `calibration` is made of them. `num_frames` were
    looked at, of `num_windows`, closer looks and frames that were looked at twice included.
    """

    text: str
    question: str
    model: str
    video: VideoInfo
    options: FindOptions
    moments: tuple[Moment, ...]
    looks: tuple[Look, ...]
    calibration: Calibration
    num_windows: int
    num_frames: int
    warnings: tuple[str, ...] = ()

    @property
    def likeliest(self) -> Look:
        """The window of the first look that comes nearest to a moment."""
        return max(self.looks, key=lambda look: look.log_odds)

    def to_dict(self) -> dict[str, object]:
        """The object `sfvqa find --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "video": str(self.video.path),
            "text": self.text,
            "question": self.question,
            "model": self.model,
            "moments": list(map(asdict, self.moments)),
            "windows": {
                "count": self.num_windows,
                "frames": self.num_frames,
                "median_log_odds": self.calibration.median,
                "likeliest_probability": self.calibration.probability(self.likeliest.log_odds),
            },
            "warnings": list(self.warnings),
            "settings": asdict(self.options),
        }


def find_progressively(
    model: "VideoQA",
    video: str | Path | VideoReader,
    text: str,
    options: FindOptions | None = None,
    *,
    sampling: SamplingOptions | None = None,
    reading: ReadOptions | None = None,
    crop: CropMode | None = None,
    prompt: PromptOptions | None = None,
) -> Generator[FindProgress, None, Found]:
    """Look for `text` in a video, yielding progress by the window; what was found is the generator's value.

    The file is read once in order for the first look, then, around what stands out, once for each closer one.
    `sampling` says how many frames of a window are looked at (without it two a second of the first look, as far as the
    model was trained with so many), and which part of the video. Raises UsageError, VideoError, OutOfMemoryError.
    """
    options, question = options or FindOptions(), question_about(text)
    own = sampling_for(model.default_sampling, options)
    asked = sampling or own
    is_told = (asked.num_frames, asked.strategy) != (own.num_frames, own.strategy)
    with nullcontext(video) if isinstance(video, VideoReader) else open_video(video, reading) as opened:
        windows = plan_windows(opened, WindowOptions(options.every_seconds), asked)
        search = _Search(model, opened, question, asked, crop, prompt, is_told)
        return (yield from _find(search, windows, text, options))


def _find(
    search: "_Search", windows: Sequence[Window], text: str, options: FindOptions
) -> Generator[FindProgress, None, Found]:
    looks = yield from search.look(FindStage.OVER_ALL, windows)
    first, calibration = tuple(looks), Calibration.of(looks)
    within = windows[0].start_seconds, windows[-1].end_seconds
    for length in closer_lengths(options.every_seconds):
        ranges = ranges_to_see_closer(looks, calibration, margin_seconds=length, within=within)
        overlapping = WindowOptions(length, length / 2)
        closer = [window for part in ranges for window in overlapping.windows_within(*part)]
        looks = replaced_by_closer(looks, (yield from search.look(FindStage.CLOSER, closer)))
    return Found(
        text=text,
        question=search.question,
        model=search.model.checkpoint.location.name,
        video=search.video.info,
        options=options,
        moments=tuple(merge_into_moments(looks, calibration, options)),
        looks=first,
        calibration=calibration,
        num_windows=search.num_windows,
        num_frames=search.num_frames,
        warnings=tuple(search.warnings),
    )


def sampling_for(trained: SamplingOptions, options: FindOptions) -> SamplingOptions:
    """The frames of a window: two a second of the first look, at least eight, at most as many as in training."""
    wanted = max(round(options.every_seconds * _FRAMES_A_SECOND), _LEAST_FRAMES)
    return SamplingOptions(num_frames=min(trained.num_frames, wanted), strategy=SamplingStrategy.UNIFORM)


@dataclass
class _Search:
    """Asks about windows, and keeps count of them; `is_told` that somebody chose the sampling."""

    model: "VideoQA"
    video: VideoReader
    question: str
    sampling: SamplingOptions
    crop: CropMode | None
    prompt: PromptOptions | None
    is_told: bool
    num_windows: int = 0
    num_frames: int = 0
    warnings: list[str] = field(default_factory=list)

    def look(self, stage: FindStage, windows: Sequence[Window]) -> Generator[FindProgress, None, list[Look]]:
        """Ask about windows, which are in order; those that cannot be read are left out, unless nothing can."""
        looks: list[Look] = []
        error: VideoError | None = None
        encoding = self.model.windows(self.video, windows, self.sampling, crop=self.crop)
        for done, (window, encoded) in enumerate(encoding if windows else (), start=1):
            if isinstance(encoded, VideoError):
                error = encoded
                self._warn([f"{window} could not be looked at: {error.message}"])
            else:
                looks.append(self._ask(window, encoded))
            yield FindProgress(stage, done, len(windows))
        if error is not None and not looks and stage is FindStage.OVER_ALL:
            raise error
        return looks

    def _ask(self, window: Window, encoded: EncodedVideo) -> Look:
        model, num_frames = self.model, len(encoded.indices)
        options = GenerationOptions(evidence=bool(model.checkpoint.model.config.hybrid_layers))
        answer = model.ask(encoded, self.question, options, prompt=self.prompt, choices=(YES, NO))
        self.num_windows += 1
        self.num_frames += num_frames
        ours = [] if self.is_told else model.trained_with.warnings(self.sampling, num_frames, encoded.crop)
        self._warn([warning for warning in encoded.warnings if warning not in ours])
        yes = next(choice for choice in answer.choices if choice.text == YES)
        best_seconds, best_index = encoded.timestamps_seconds[num_frames // 2], encoded.indices[num_frames // 2]
        if answer.evidence:
            strongest = max(answer.evidence, key=lambda frame: frame.weight)
            best_seconds, best_index = strongest.timestamp_seconds, strongest.index
        return Look(
            start_seconds=window.start_seconds,
            end_seconds=window.end_seconds,
            log_odds=log_odds(yes.log_probability),
            best_seconds=best_seconds,
            best_index=best_index,
            is_looked_at=bool(answer.evidence),
        )

    def _warn(self, warnings: Sequence[str]) -> None:
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
