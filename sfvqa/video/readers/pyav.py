"""The first reader: PyAV, exact to the frame by presentation time, in damaged files too, on several threads."""

import itertools
import math
import queue
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from av.video.frame import VideoFrame

from sfvqa.errors import DamagedVideoError, UnreadableVideoError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import (
    DEEPEST_REORDERING,
    NO_PICTURE,
    ReaderName,
    VideoReader,
    early_end_warning,
    nothing_decodable,
    num_available_cores,
)
from sfvqa.video.readers.container_bytes import check_not_encrypted
from sfvqa.video.readers.cutting import copy_part
from sfvqa.video.readers.frame_table import Demuxed, FrameTable, build_table, demux, increases
from sfvqa.video.readers.local_file import FileState
from sfvqa.video.readers.picture_converter import UPRIGHT, Orientation
from sfvqa.video.readers.seeking import Damage, Handle, can_be_entered, read_group, read_group_start, read_in_order
from sfvqa.video.readers.sound import Samples, read_sound
from sfvqa.video.readers.tracks import read_text_track
from sfvqa.video.sampling import format_time
from sfvqa.video.subtitles import Subtitles
from sfvqa.wording import plural

_CHECKED_FRAMES = 16  # as many as H.264 may reorder: enough to see that packet times are not the frames' times
_ASSUMED_RATE = Fraction(25)
_RATE_TOLERANCE = 0.001
_MOST_HANDLES = 8  # unless asked for: each holds the pictures that its decoder may still need


class PyAVReader(VideoReader):
    """Reads with PyAV.

    A demux pass gives the exact time of every frame without decoding; the wanted frames are then reached with one seek
    a key frame, groups side by side on several handles. Where packets carry no presentation times (most AVI files,
    elementary streams), or the container cannot go to a place (Flash programs), everything is decoded in order, which
    is slower, and a warning says so.
    """

    name = ReaderName.PYAV

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        """Open a checked local file; raises UnreadableVideoError if no frame of it can be read."""
        self._path = path
        self._num_threads = num_threads or min(num_available_cores(), _MOST_HANDLES)
        self._state = FileState.of(path)
        self._handle = Handle.open(path)
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            if isinstance(error, UnreadableVideoError):
                check_not_encrypted(path, self._handle.track)
            raise

    def _prepare(self) -> None:
        demuxed = demux(self._handle, self._path)
        if not demuxed.packets:
            raise UnreadableVideoError(f"“{self._path}” holds no frame of video.", "Check that the file plays.")
        self._handle = self._handle.informed(demuxed.damaged_at, is_strict=demuxed.starts_afresh)
        warnings = list(self._handle.track.warnings)
        self._time_base = time_base = Fraction(self._handle.stream.time_base or 1)
        table = build_table(demuxed)
        if table is not None and not table.times:
            raise nothing_decodable(self._path)
        is_searchable = table is None or can_be_entered(self._handle, table)
        first = self._first_frame(table) if table is not None and is_searchable else None
        if table is None or first is None:
            self._table = None
            why = "The packets of this file carry no usable presentation times"
            why = why if is_searchable else "This file cannot be entered anywhere but at its start"
            first, seconds, key_frames, last_seconds = self._decode_everything(demuxed, why, warnings)
        else:
            self._table = table
            first = self._decode_watchfully(table, first)
            seconds, key_frames = _seconds(table.times, time_base), table.key_frames
            if table.num_before:
                warnings.append(f"{plural(table.num_before, 'frame')} before the first key frame cannot be decoded.")
            last_seconds = float(demuxed.last_duration * time_base)
        self._zero_seconds = float(((first.pts or 0) if self._table is None else self._table.times[0]) * time_base)
        duration = seconds[-1] + last_seconds
        if demuxed.ends_early:
            warnings.append(early_end_warning(demuxed.claimed_seconds, duration))
        warnings.extend(self._handle.converter.warnings_about(first))
        super().__init__(self._describe(first, seconds, duration), seconds, key_frames, warnings)

    def _first_frame(self, table: FrameTable) -> VideoFrame | None:
        """Decode the start of the first sound group; None if its frames have other times than the packets said.

        Raises UnreadableVideoError if no group has a sound frame.
        """
        for place in range(len(table.keys)):
            frames = list(islice(read_group_start(self._handle, table, place), _CHECKED_FRAMES))
            if frames:
                times = [frame.pts for frame in frames if frame.pts is None or frame.pts <= table.times[-1]]
                begin = bisect_left(table.times, times[0] or 0) if times else 0
                return frames[0] if tuple(times) == table.times[begin : begin + len(times)] else None
        raise nothing_decodable(self._path)

    def _decode_watchfully(self, table: FrameTable, first: VideoFrame) -> VideoFrame:
        """Change over to a decoder that notices more damage, where there is one that gives this video's frames."""
        usual, watchful = self._handle, self._handle.with_watchful_decoder()
        if watchful is not None and Orientation.of(first) == UPRIGHT:
            self._handle = watchful
            with suppress(DamagedVideoError):  # it knows fewer kinds of pixels
                if seen := self._first_frame(table):
                    return seen
            self._handle = usual
        return first

    def _decode_everything(
        self, demuxed: Demuxed, why: str, warnings: list[str]
    ) -> tuple[VideoFrame, tuple[float, ...], tuple[int, ...], float]:
        """Decode the whole file to find its first frame, the seconds of every frame, key frames, the last duration."""
        self._reopen()
        first: VideoFrame | None = None
        times: list[int | None] = []
        places: list[int] = []
        keys: list[int] = []
        for place, frame in read_in_order(self._handle):
            first = first or frame
            keys += [len(times)] if frame.key_frame else []
            times.append(frame.pts)
            places.append(place)
        num_shown = places[-1] + 1 if places else 0
        if (num_lost := num_shown - len(places)) > 0:
            what = f"{plural(num_lost, 'frame')} could not be decoded without damage"
            warnings.append(f"{what} and {'has' if num_lost == 1 else 'have'} no place in the video.")
        if demuxed.ends_early:
            # The incomplete group, as in build_table; of a single one what no lost frame can come before.
            whole = (keys[-1] if keys else 0) or max(len(times) - DEEPEST_REORDERING, 0)
            times, places, keys = times[:whole], places[:whole], [key for key in keys if key < whole]
        if first is None or not times:
            raise nothing_decodable(self._path)
        known, slots = [time for time in times if time is not None], demuxed.decode_times
        what = f"{why}, so it was decoded in full to find its frames"
        if len(known) == len(times) and increases(known) and not demuxed.skips_packets:
            warnings.append(f"{what}.")
            seconds = _seconds(known, self._time_base)
        elif num_shown == len(slots):
            # An AVI file has slots rather than times: the n-th frame shown fills the n-th one that is not empty.
            warnings.append(f"{what}; times are those of the file's slots for frames.")
            seconds = _seconds([slots[place] for place in places], self._time_base)
        else:
            rate = self._handle.stream.average_rate or self._handle.stream.guessed_rate or _ASSUMED_RATE
            shown = plural(float(f"{float(rate):.4g}"), "frame")
            warnings.append(f"{what}; times assume a constant rate of {shown} a second.")
            seconds = tuple(float(place / rate) for place in places)
        return first, seconds, tuple(keys), seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 0.0

    def _describe(self, first: VideoFrame, seconds: tuple[float, ...], duration: float) -> VideoInfo:
        width, height = self._handle.converter.size_shown(first)
        rotation = Orientation.of(first).rotation
        # Of a single frame there is only the container's word; and times in milliseconds would blur a rate of 30.
        named_rate = float(self._handle.stream.average_rate or 0)
        fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else named_rate
        if math.isclose(fps, named_rate, rel_tol=_RATE_TOLERANCE):
            fps = named_rate
        codec = self._handle.stream.codec_context.codec.canonical_name
        return VideoInfo(self._path, len(seconds), fps, duration, width, height, codec, rotation)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        if self._table is None:
            yield from self._read_in_order(indices, fit)
            return
        if self._table.has_new_headers:
            self._reopen()  # a decoder cannot be told to go back to the first ones
        groups = self._table.groups(indices)
        handles: list[Callable[[], AbstractContextManager[Handle]]] = [lambda: nullcontext(self._handle)]
        handles += [lambda: closing(self._open())] * (self._num_threads - 1)
        pieces = [partial(self._read_group, self._table, place, group, fit) for place, group in groups]
        if min(len(pieces), len(handles)) > 1:
            yield from in_order(pieces, handles)
        else:
            for piece in pieces:
                yield from piece(self._handle)

    def _read_group(
        self, table: FrameTable, place: int, group: list[int], fit: Fit, handle: Handle
    ) -> Generator[tuple[int, Pixels | str]]:
        for index, frame in read_group(handle, table, place, group):
            if isinstance(frame, Damage):
                yield index, self._reason(handle, table, index, frame)
            else:
                yield index, fit(handle.converter.convert(frame))

    def _reason(self, handle: Handle, table: FrameTable, index: int, damage: Damage) -> str:
        if damage.pts in handle.encrypted_at:
            return "it is encrypted"
        if damage.pts is None:
            return NO_PICTURE
        if damage.pts == table.times[index]:
            return "its data is damaged"
        seconds = _seconds((table.times[0], damage.pts), self._time_base)[1]
        return f"it may depend on data at {format_time(max(seconds, 0.0))} that is damaged"

    def _read_in_order(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """Yield the wanted frames by their place in another full pass, which gives the same frames as the first."""
        self._reopen()
        wanted = set(indices)
        with closing(read_in_order(self._handle)) as in_order_of_time:
            frames = islice(in_order_of_time, indices[-1] + 1 if indices else 0)
            for index, (_, frame) in enumerate(frames):
                if index in wanted:
                    yield index, fit(self._handle.converter.convert(frame))

    def subtitles(self) -> Subtitles:
        self._state.check()
        return read_text_track(self._path, self._zero_seconds)

    def sound(self) -> Generator[tuple[float, Samples] | str]:
        self._state.check()
        yield from read_sound(self._path, self._zero_seconds)

    def copy_part(self, target: Path, format: str, start_seconds: float, end_seconds: float) -> float:
        self._state.check()
        keys: list[Fraction] = []
        if self._table is not None:
            first = max(bisect_right(self.timestamps_seconds, start_seconds) - 1, 0)
            ((place, _),) = self._table.groups([first])
            keys = [key.pts * self._time_base for key in self._table.keys[: place + 1]]
        zero = Fraction(self._zero_seconds)
        start, end = zero + Fraction(start_seconds), zero + Fraction(end_seconds)
        return copy_part(self._path, self._handle.track.index, target, format, keys, start, end)

    def _open(self) -> Handle:
        self._state.check()
        return Handle.open(self._path, self._handle)

    def _reopen(self) -> None:
        self._handle.close()
        self._handle = self._open()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._handle.close()


def _seconds(times: Sequence[int], time_base: Fraction) -> tuple[float, ...]:
    """Presentation times as seconds from the first one."""
    return tuple((time - times[0]) * time_base.numerator / time_base.denominator for time in times)


# --- Pieces of work side by side ---

H = TypeVar("H")
Result = TypeVar("Result")
_WAITING = 8  # results of one piece that may wait to be taken: what bounds the memory
_PATIENCE_SECONDS = 0.1  # how long a thread waits for room before it looks whether anybody still wants its results
_END = object()


def in_order(
    pieces: Sequence[Callable[[H], Iterator[Result]]],
    handles: Sequence[Callable[[], AbstractContextManager[H]]],
) -> Generator[Result]:
    """Run every piece on whichever handle is free and yield the results of the first, then of the second, …

    Each handle is entered, used and left by a thread of its own. The first error, of a piece or of entering a handle,
    is raised here in place of the results. Closing the generator stops the threads and waits for them.
    """
    results: list[queue.Queue[object]] = [queue.Queue(_WAITING) for _ in pieces]
    numbers = itertools.count()
    stopped = threading.Event()

    def put(number: int, result: object) -> None:
        while not stopped.is_set():
            try:
                results[number].put(result, timeout=_PATIENCE_SECONDS)
            except queue.Full:
                continue
            break

    def run(enter: Callable[[], AbstractContextManager[H]]) -> None:
        number = next(numbers)  # an error of entering the handle stands in for the results of its first piece
        try:
            with enter() as handle:
                while number < len(pieces) and not stopped.is_set():
                    for result in pieces[number](handle):
                        put(number, result)
                        if stopped.is_set():
                            return
                    put(number, _END)
                    number = next(numbers)
        except BaseException as error:  # noqa: BLE001  raised again where the results are taken
            if number < len(pieces):
                put(number, error)

    threads = [threading.Thread(target=run, args=(enter,), daemon=True) for enter in handles[: len(pieces)]]
    for thread in threads:
        thread.start()
    try:
        for waiting in results:
            # Bounded by the pieces: each is taken by some thread in its turn, and ends in _END or an error.
            while (result := waiting.get()) is not _END:
                if isinstance(result, BaseException):
                    try:
                        raise result
                    finally:
                        del result  # else error and traceback would keep each other, and the results in its frames
                yield result  # type: ignore[misc]  # what is neither an end nor an error is a Result
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
