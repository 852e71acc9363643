"""A part of a video file becomes a file of its own: packets are copied, sound too, and nothing is encoded anew."""

import errno
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from sfvqa.errors import SfvqaError, UnreadableVideoError
from sfvqa.video.readers.tracks import open_container, packets_of

CLIP_FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
    ".mkv": "matroska",
}
"""Endings of videos whose clips have the same, with what FFmpeg calls the format; of all others they are Matroska."""

_LONGEST_LAG_SECONDS = 10  # of sound behind the picture in a file
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def copy_part(
    path: Path, track: int, target: Path, format: str, keys: Sequence[Fraction], start: Fraction, end: Fraction
) -> float:
    """Copy what a video track shows from `start` to `end`, with all sound, into the file `target`.

    It begins at the last key frame before that, and returned is how many seconds before. Times are the container's, in
    seconds; `keys` are those of key frames up to the start, the last one last, and none where pictures have only times
    of decoding: then the file is looked through. Raises UnreadableVideoError for what such a format cannot hold, and
    SfvqaError where the disk is full.
    """
    try:
        with open_container(path) as source, av.open(str(target.absolute()), "w", format=format) as copy:
            video: Any = source.streams[track]
            sound = [stream for stream in source.streams.audio if stream.codec_context is not None]
            streams = {stream.index: copy.add_stream_from_template(stream) for stream in (video, *sound)}
            found = keys or _keys_before(source, video, start)
            zero = found[-1]
            for packet in _packets_from(source, video, sound, found, end):
                offset = round(zero / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - offset
                packet.dts = None if packet.dts is None else packet.dts - offset
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
            return float(start - zero)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise SfvqaError(f"The clip cannot be written: {error.strerror}.", "Free some space.") from error
        raise UnreadableVideoError(
            f"No clip can be copied out of “{path}”: {' '.join(str(error).split()).removesuffix('.')}.",
            "Leave out the clips, or convert the video to mp4.",
        ) from error


def _keys_before(source: InputContainer, video: Any, start: Fraction) -> list[Fraction]:
    """When the key frames up to the start are decoded, in order. ValueError where there is none."""
    keys: list[Fraction] = []
    for packet in packets_of(source, video):
        seconds = _seconds(packet)
        if seconds is not None and seconds > start:
            break
        if packet.is_keyframe and seconds is not None:
            keys.append(seconds)
    if not keys:
        raise ValueError("no key frame with a time stands before it")
    return keys


def _packets_from(
    source: InputContainer, video: Any, sound: Sequence[Any], keys: Sequence[Fraction], end: Fraction
) -> Iterator[Any]:
    """The packets from the last of the key frames to the end, that key frame first, wherever a seek really lands."""
    zero = keys[-1]
    for target in (*keys[:-4:-1], min(keys[0], Fraction(0))):  # some containers go to a place behind the wanted one
        source.seek(int(target / video.time_base), stream=video, backward=True)
        early: list[Any] = []  # sound that lies before the key frame in the file, and is heard after it
        packets = packets_of(source, video, *sound)
        for packet in packets:
            seconds = _seconds(packet)
            if packet.stream.index == video.index:
                if packet.is_keyframe and seconds is not None and seconds >= zero:
                    break
            elif seconds is not None and seconds >= zero:
                early.append(packet)
        else:
            continue
        if seconds == zero:
            yield packet
            yield from early
            for packet in _until(packets, video, sound, end):
                seconds = _seconds(packet)
                if seconds is not None and seconds >= zero:  # what is shown before has lost what it depends on
                    yield packet
            return
    raise ValueError("the key frame before it cannot be reached")


def _until(packets: Iterator[Any], video: Any, sound: Sequence[Any], end: Fraction) -> Iterator[Any]:
    """Those that are to be decoded before the end, of each stream."""
    open_streams = {stream.index for stream in (video, *sound)}
    for packet in packets:
        seconds = _seconds(packet, by_file=True)
        if seconds is None:
            continue
        if seconds >= end:
            open_streams.discard(packet.stream.index)
        elif packet.stream.index in open_streams:
            yield packet
        if not open_streams or (packet.stream.index == video.index and seconds >= end + _LONGEST_LAG_SECONDS):
            return


def _seconds(packet: Any, *, by_file: bool = False) -> Fraction | None:
    """When it is shown or heard, or where it stands in the file by its time of decoding; None of a packet without."""
    times = (packet.dts, packet.pts) if by_file else (packet.pts, packet.dts)
    return next((Fraction(time * packet.time_base) for time in times if time is not None), None)
