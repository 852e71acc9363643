"""The first reader: PyAV, exact to the frame by presentation time, in damaged files too."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import VideoInfo
from sfvqa.video.readers.frame_table import Demuxed, FrameTable, build_table, demux
from sfvqa.video.readers.interface import DEEPEST_REORDERING, Pixels, ReaderName, VideoReader, early_end_warning
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST
from sfvqa.video.readers.pictures import Orientation, PictureConverter
from sfvqa.video.readers.pyav_plans import read_group_start, read_in_order, read_planned

_CHECKED_FRAMES = 16  # as many as H.264 may reorder: enough to see that packet times are not the frames' times
_ASSUMED_RATE = Fraction(25)


class PyAVReader(VideoReader):
    """Reads with PyAV.

    A demux pass gives the exact time of every frame without decoding; the wanted frames are then reached with one seek
    a key frame. Where packets carry no presentation times (most AVI files, elementary streams) everything is decoded in
    order, which is slower, and a warning says so.
    """

    name = ReaderName.PYAV

    def __init__(self, path: Path) -> None:
        """Open a checked local file (see local_file); raises UnreadableVideoError if no frame of it can be read."""
        self._path = path
        self._container, self._stream = _open(path)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        demuxed = demux(self._container, self._stream, self._path)
        if not demuxed.packets:
            raise UnreadableVideoError(f"“{self._path}” holds no frame of video.", "Check that the file plays.")
        warnings: list[str] = []
        self._converter = PictureConverter(self._stream)
        time_base = Fraction(self._stream.time_base or 1)
        table = build_table(demuxed)
        if table is not None and not table.times:
            raise _nothing_decodable(self._path)
        first = None if table is None else self._first_frame(table)
        if table is None or first is None:
            self._table = None
            first, seconds, last_seconds = self._decode_everything(demuxed, warnings)
        else:
            self._table = table
            seconds = _seconds(table.times, time_base)
            last_seconds = float(demuxed.last_duration * time_base)
        duration = seconds[-1] + last_seconds
        if demuxed.ends_early:
            warnings.append(early_end_warning(demuxed.claimed_seconds, duration))
        warnings.extend(self._converter.warnings_about(first))
        super().__init__(self._describe(first, seconds, duration), seconds, warnings)

    def _first_frame(self, table: FrameTable) -> VideoFrame | None:
        """Decode the start of the first sound group; None if its frames have other times than the packets said.

        Raises UnreadableVideoError if no group has a sound frame.
        """
        for place in range(len(table.keys)):
            frames = list(islice(read_group_start(self._container, self._stream, table, place), _CHECKED_FRAMES))
            if frames:
                times = [frame.pts for frame in frames if frame.pts is None or frame.pts <= table.times[-1]]
                begin = bisect_left(table.times, times[0] or 0) if times else 0
                return frames[0] if tuple(times) == table.times[begin : begin + len(times)] else None
        raise _nothing_decodable(self._path)

    def _decode_everything(self, demuxed: Demuxed, warnings: list[str]) -> tuple[VideoFrame, tuple[float, ...], float]:
        """Decode the whole file to find the times: (first frame, seconds of every frame, duration of the last)."""
        self._reopen()
        first: VideoFrame | None = None
        times: list[int | None] = []
        places: list[int] = []
        last_key = 0
        for place, frame in read_in_order(self._container, self._stream):
            first = first or frame
            last_key = len(times) if frame.key_frame else last_key
            times.append(frame.pts)
            places.append(place)
        num_shown = places[-1] + 1 if places else 0
        if demuxed.ends_early:
            # The incomplete group, as in build_table; of a single one what no lost frame can come before.
            whole = last_key or max(len(times) - DEEPEST_REORDERING, 0)
            times, places = times[:whole], places[:whole]
        if first is None or not times:
            raise _nothing_decodable(self._path)
        known = [time for time in times if time is not None]
        is_timed = len(known) == len(times) and all(earlier < later for earlier, later in pairwise(known))
        what = (
            "The packets of this file carry no usable presentation times, so it was decoded in full to find its frames"
        )
        slots = demuxed.decode_times
        if is_timed:
            warnings.append(f"{what}.")
            seconds = _seconds(known, Fraction(self._stream.time_base or 1))
        elif num_shown == len(slots):
            # An AVI file has slots rather than times: the n-th frame shown fills the n-th one that is not empty.
            warnings.append(f"{what}; times are those of the file's slots for frames.")
            seconds = _seconds([slots[place] for place in places], Fraction(self._stream.time_base or 1))
        else:
            rate = self._stream.average_rate or self._stream.guessed_rate or _ASSUMED_RATE
            warnings.append(f"{what}; times assume a constant rate of {float(rate):.4g} frames a second.")
            seconds = tuple(float((place - places[0]) / rate) for place in places)
        return first, seconds, seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 0.0

    def _describe(self, first: VideoFrame, seconds: tuple[float, ...], duration: float) -> VideoInfo:
        width, height = self._converter.size_shown(first)
        rotation = Orientation.of(first).rotation
        # Of a single frame there is only the container's word.
        fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else float(self._stream.average_rate or 0)
        codec = self._stream.codec_context.name
        return VideoInfo(self._path, len(seconds), fps, duration, width, height, codec, rotation)

    def _read_pixels(self, indices: list[int]) -> Iterator[tuple[int, Pixels]]:
        if self._table is None:
            frames = self._read_in_order(indices)
        else:
            frames = read_planned(self._container, self._stream, self._table, indices)
        for index, frame in frames:
            yield index, self._converter.convert(frame)

    def _read_in_order(self, indices: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the wanted frames by their place in another full pass, which gives the same frames as the first."""
        self._reopen()
        wanted = set(indices)
        frames = islice(read_in_order(self._container, self._stream), indices[-1] + 1 if indices else 0)
        for index, (_, frame) in enumerate(frames):
            if index in wanted:
                yield index, frame

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = _open(self._path)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._container.close()


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open the file, no other file or host, and pick its first moving picture (not a cover image)."""
    options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    try:
        # An absolute path cannot be taken for a protocol ("concat:a.mp4").
        container = av.open(str(path.absolute()), options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideoError(
            f"“{path}” cannot be read as a video.",
            "Check that it is a video file and complete (mp4, mkv, webm, mov, avi, …).",
        ) from error
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        has_sound = bool(container.streams.audio)
        container.close()
        what = "has sound but no moving picture" if has_sound else "has no moving picture"
        raise UnreadableVideoError(f"“{path}” {what}.", "Give a video file.")
    stream = streams[0]
    if stream.codec_context is None:
        container.close()
        raise UnreadableVideoError(
            f"The video in “{path}” is in a format that this FFmpeg cannot decode.", "Convert it to H.264."
        )
    stream.thread_count = 1  # errors then belong to the packet just sent
    return container, stream


def _nothing_decodable(path: Path) -> UnreadableVideoError:
    return UnreadableVideoError(
        f"No frame of “{path}” can be decoded: it is damaged or cut off.", "Copy or download it again."
    )


def _seconds(times: Sequence[int], time_base: Fraction) -> tuple[float, ...]:
    """Presentation times as seconds from the first one."""
    return tuple((time - times[0]) * time_base.numerator / time_base.denominator for time in times)
