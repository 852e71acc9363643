"""The sound track of a file as samples with times, in bounded memory. What is said in it is none of this module's.

Times are those of the pictures: 0 is when the first frame is shown. A file may hold nothing for a while, or the same
time twice; what is yielded says where it belongs and never overlaps.
"""

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.stream import Disposition
from numpy.typing import NDArray

from sfvqa.video.readers.tracks import open_container, packets_of
from sfvqa.wording import plural

if TYPE_CHECKING:
    from av.container import InputContainer

Samples: TypeAlias = NDArray[np.int16]
SAMPLE_RATE = 16_000  # what speech models hear
_CHUNK_SECONDS = 30
# By how much a frame may come late, or early, before its time counts: containers round times, and FFmpeg guesses those
# within a packet of a transport stream by the first sample rate.
_LATEST_SECONDS, _EARLIEST_SECONDS = 0.1, 0.3
_SHORTEST_LOSS_SECONDS = 1.0  # that is worth a warning
_FOR_SOME_PEOPLE = Disposition.visual_impaired | Disposition.comment


def read_sound(path: Path, zero_seconds: float) -> "Generator[tuple[float, Samples] | str]":
    """Yield (start in seconds from the first frame, samples [N] int16 mono at SAMPLE_RATE), in order; and warnings.

    `zero_seconds` is when the container shows the first frame; what sounds before it is left out. Of several tracks:
    the one marked as default, else the first; commentaries and descriptions last. A file without sound yields only a
    warning. Raises UnreadableVideoError.
    """
    with open_container(path) as container:
        tracks = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not tracks:
            is_odd = len(container.streams.audio) > 0
            yield "The sound is in a format that this FFmpeg cannot decode." if is_odd else "The video has no sound."
            return
        plain = [track for track in tracks if not track.disposition & _FOR_SOME_PEOPLE] or tracks
        track = next((track for track in plain if track.disposition & Disposition.default), plain[0])
        if len(tracks) > 1:
            yield f"The file has {len(tracks)} sound tracks; {_name(track)} is heard."
        yield from _Hearing(container, track, zero_seconds).chunks()


def _name(track: AudioStream) -> str:
    return f"track {track.index} ({track.codec_context.name}, {track.language or 'language unknown'})"


class _Hearing:
    """One pass over a sound track. A *run* is sound without a gap, put together by counting samples, not by times."""

    def __init__(self, container: "InputContainer", track: AudioStream, zero_seconds: float) -> None:
        self._container = container
        self._track = track
        self._zero_seconds = Fraction(zero_seconds)
        self._num_damaged = 0
        self._ends_early = False
        self._dropped_seconds = 0.0

    def chunks(self) -> "Generator[tuple[float, Samples] | str]":
        place = 0  # of the next sample that may be yielded
        for start, samples in self._gathered():
            late = min(max(place - start, 0), len(samples))
            self._dropped_seconds += late / SAMPLE_RATE if place else 0.0  # not what comes before the first frame
            if late < len(samples):
                yield (start + late) / SAMPLE_RATE, samples[late:]
                place = start + len(samples)
        yield from self._warnings()

    def _warnings(self) -> Iterator[str]:
        if self._num_damaged:
            yield f"The sound is damaged in {plural(self._num_damaged, 'place')}, where nothing is heard."
        if self._ends_early:
            yield "The sound is damaged and cannot be heard to its end."
        if self._dropped_seconds > _SHORTEST_LOSS_SECONDS:
            yield f"{self._dropped_seconds:.1f} s of sound have times of what came before, and are left out."

    def _gathered(self) -> Iterator[tuple[int, Samples]]:
        """(place of the first sample, samples), each at most about _CHUNK_SECONDS long."""
        start, parts, num_samples = 0, list[Samples](), 0
        for place, samples in self._resampled():
            if parts and (place != start + num_samples or num_samples >= _CHUNK_SECONDS * SAMPLE_RATE):
                yield start, np.concatenate(parts)
                parts, num_samples = [], 0
            start = start if parts else place
            parts.append(samples)
            num_samples += len(samples)
        if parts:
            yield start, np.concatenate(parts)

    def _resampled(self) -> Iterator[tuple[int, Samples]]:
        """(place, samples) of every piece that comes out of the resampler, a new one of which begins every run."""
        resampler: AudioResampler | None = None
        form: object = None
        expected = Fraction(0)  # when the next frame begins if it goes on where the last one ended
        place = 0

        def heard(frame: AudioFrame | None) -> Iterator[tuple[int, Samples]]:
            nonlocal place
            for out in resampler.resample(frame) if resampler else ():
                samples = out.to_ndarray()[0]
                yield place, samples
                place += len(samples)

        for frame in self._frames():
            begin = self._seconds(frame, expected)
            if not -_EARLIEST_SECONDS <= begin - expected <= _LATEST_SECONDS or form != _form(frame):
                yield from heard(None)
                resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
                form, expected, place = _form(frame), begin, round(begin * SAMPLE_RATE)
            expected += Fraction(frame.samples, frame.sample_rate)
            frame.pts = None  # the resampler would mend times by itself
            yield from heard(frame)
        yield from heard(None)

    def _seconds(self, frame: AudioFrame, expected: Fraction) -> Fraction:
        if frame.pts is None or frame.time_base is None:
            return expected
        return frame.pts * frame.time_base - self._zero_seconds

    def _frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded."""
        try:
            for packet in packets_of(self._container, self._track):
                try:
                    frames = packet.decode()
                except (av.FFmpegError, ValueError):
                    self._num_damaged += 1
                    continue
                yield from (frame for frame in frames if frame.samples and frame.sample_rate)
        except (av.FFmpegError, OSError):
            self._ends_early = True


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
