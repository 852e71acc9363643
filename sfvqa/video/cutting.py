"""A part of a video file becomes a file of its own: packets are copied, sound too, and nothing is encoded anew."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.tracks import choose_track, open_container, packets_of


def copy_part(path: Path, target: Path, start_seconds: float, end_seconds: float) -> float:
    """Copy what a video shows from `start_seconds` to `end_seconds`, with its sound, into a file named `target`.

    It begins at the last key frame before that, and returned is how long before. Seconds count from the first frame.
    UnreadableVideoError for what cannot be copied into a file with that ending, of which nothing stays behind.
    """
    try:
        with open_container(path) as source, av.open(str(target), "w") as copy:
            index = choose_track(path, source).index
            video = next(stream for stream in source.streams.video if stream.index == index)
            streams = {stream.index: copy.add_stream_from_template(stream) for stream in (video, *source.streams.audio)}
            zero = next(map(_seconds, packets_of(source, video)))
            start, end = zero + Fraction(start_seconds), zero + Fraction(end_seconds)
            packets = _packets_from_key_frame(source, video, list(streams), start, end)
            begin = next(packets, None)
            if begin is None:
                raise ValueError("no key frame stands before it")
            zero_seconds = _seconds(begin)
            for packet in (begin, *packets):
                if _seconds(packet) >= zero_seconds:  # what is shown before it has lost what it depends on
                    offset = round(zero_seconds / packet.time_base)
                    packet.pts = None if packet.pts is None else packet.pts - offset
                    packet.dts = None if packet.dts is None else packet.dts - offset
                    packet.stream = streams[packet.stream.index]
                    copy.mux(packet)
            return float(start - zero_seconds)
    except (av.FFmpegError, ValueError) as error:
        target.unlink(missing_ok=True)
        raise UnreadableVideoError(
            f"No clip can be copied out of “{path}”: {error}.", "Leave out the clips, or convert the video to mp4."
        ) from error


def _packets_from_key_frame(
    source: InputContainer, video: Any, indices: list[int], start: Fraction, end: Fraction
) -> Iterator[Any]:
    """The packets up to the end, the key frame of the picture first: sound that lies before it in the file after it."""
    source.seek(int(start / video.time_base), stream=video, backward=True)
    early: list[Any] = []
    has_begun, open_streams = False, set(indices)
    for packet in source.demux([source.streams[index] for index in indices]):
        if packet.pts is None and packet.dts is None:
            continue
        is_picture = packet.stream.index == video.index
        if _seconds(packet, by_file=True) >= end:
            open_streams.discard(packet.stream.index)
            if not open_streams:
                return
        elif has_begun:
            yield packet
        elif is_picture and packet.is_keyframe:
            has_begun = True
            yield packet
            yield from early
        elif not is_picture:
            early.append(packet)


def _seconds(packet: Any, *, by_file: bool = False) -> Fraction:
    """When it is shown or heard, or where it stands in the file by its time of decoding."""
    times = (packet.dts, packet.pts) if by_file else (packet.pts, packet.dts)
    return Fraction(next(time for time in times if time is not None) * packet.time_base)
