"""Writes videos with sound that is known: silence with short tones, each at a time from the first frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

TONE_SECONDS = 0.25
_FRAME = 1024
_PICTURES_A_SECOND = 10


@dataclass(frozen=True)
class Sound:
    """A sound track: `tones_at` and `starts_at` in seconds from the first frame; `without` are seconds left out."""

    tones_at: Sequence[float]
    starts_at: float = 0.0
    seconds: float = 6.0
    without: tuple[float, float] = (0.0, 0.0)
    is_default: bool = True
    rate: int = 48_000


def write_with_sound(
    path: Path,
    *sounds: Sound,
    picture_starts_at: float = 0.0,
    seconds: float = 6.0,
    codec: str = "aac",
    spoil: Callable[[bytes, float], bytes] = lambda data, _seconds: data,
) -> Path:
    """Write a video. `picture_starts_at` is by the container's clock; `spoil` may change the bytes of sound packets."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=_PICTURES_A_SECOND)
        assert isinstance(video, VideoStream)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.options = {"bf": "0"}
        tracks: list[AudioStream] = []
        for sound in sounds:
            track = container.add_stream(codec, rate=sound.rate, layout="mono")
            assert isinstance(track, AudioStream)
            tracks.append(track)
            track.disposition = Disposition.default if sound.is_default else Disposition(0)
        packets: list[av.Packet[Any]] = []
        for number in range(round(seconds * _PICTURES_A_SECOND)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 3 % 256, np.uint8), format="rgb24")
            frame.time_base, frame.pts = (
                Fraction(1, 1000),
                round(1000 * (picture_starts_at + number / _PICTURES_A_SECOND)),
            )
            packets += video.encode(frame)
        packets += video.encode(None)
        for track, sound in zip(tracks, sounds, strict=True):
            packets += _packets(track, sound, picture_starts_at, spoil)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            container.mux(packet)
    return path


def _packets(
    track: AudioStream, sound: Sound, zero: float, spoil: Callable[[bytes, float], bytes]
) -> "list[av.Packet[Any]]":
    begin = zero + sound.starts_at
    wave = tones([at - sound.starts_at for at in sound.tones_at], sound.seconds, sound.rate)
    packets = []
    for start in range(0, len(wave) - _FRAME, _FRAME):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + _FRAME], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = round(begin * sound.rate) + start
        packets += track.encode(frame)
    packets += track.encode(None)
    kept = []
    for packet in packets:
        at = float((packet.pts or 0) * packet.time_base) - zero
        if sound.without[0] <= at < sound.without[1]:
            continue
        changed: av.Packet[Any] = av.Packet(spoil(bytes(packet), at))
        changed.stream, changed.pts, changed.dts = track, packet.pts, packet.dts
        changed.time_base, changed.duration = packet.time_base, packet.duration
        kept.append(changed)
    return kept


def tones(at: Sequence[float], seconds: float, rate: int) -> NDArray[np.float32]:
    """Silence of a length, [N] float32, with a tone at each of the times."""
    wave = np.zeros(round(seconds * rate), np.float32)
    for start in at:
        first = round(start * rate)
        count = min(round(TONE_SECONDS * rate), len(wave) - first)
        wave[first : first + count] = 0.5 * np.sin(np.arange(count) * 2 * np.pi * 1000 / rate)
    return wave


def tones_in(samples: NDArray[np.int16] | NDArray[np.float32], rate: int) -> list[tuple[float, float]]:
    """When tones begin and end in samples, in seconds."""
    loudest = 32768.0 if samples.dtype == np.int16 else 1.0
    loud = np.flatnonzero(np.abs(samples.astype(np.float32)) > 0.1 * loudest)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > rate // 10)
    firsts, lasts = [loud[0], *loud[breaks + 1]], [*loud[breaks], loud[-1]]
    return [(float(first) / rate, float(last) / rate) for first, last in zip(firsts, lasts, strict=True)]
