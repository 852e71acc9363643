"""Small pictures of recorded frames, read again from the videos: a process a video, some videos side by side."""

import io
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sfvqa.batch.report.page.cards import SeenFrames, VideoCard
from sfvqa.errors import SfvqaError
from sfvqa.video import FitWithin, ReaderName, ReadOptions, open_video
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.interface import num_available_cores

_FIT = FitWithin(240, 180)
_QUALITY = 72
_TIMEOUT_SECONDS = 60.0
_SAME_TIME_SECONDS = 0.002


@dataclass(frozen=True)
class Thumbnails:
    """JPEG pictures of a video by the frame's index; `failure` says why there are none, or not all."""

    pictures: dict[int, bytes]
    failure: str | None = None


def spread(frames: SeenFrames, num: int) -> dict[int, float]:
    """`num` of the frames, evenly spread from the first to the last: the time of each by its index.

    >>> spread(SeenFrames((0, 10, 20, 30), (0.0, 1.0, 2.0, 3.0)), 3)
    {0: 0.0, 20: 2.0, 30: 3.0}
    """
    count = len(frames.indices)
    if num >= count:
        places = range(count)
    elif num == 1:
        places = range(count // 2, count // 2 + 1)
    else:
        return {
            frames.indices[place]: frames.timestamps_seconds[place]
            for place in (round(step * (count - 1) / (num - 1)) for step in range(num))
        }
    return {frames.indices[place]: frames.timestamps_seconds[place] for place in places}


def find_video(card: VideoCard, folders: Sequence[Path], *, recorded_first: bool) -> Path | None:
    """Where the video is: where it lay when it was asked about, or by its name in one of the folders."""
    named = [folder / card.name for folder in folders]
    recorded = [card.recorded_path] if card.recorded_path is not None else []
    for path in [*recorded, *named] if recorded_first else [*named, *recorded]:
        try:
            if path.exists():
                return path
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def read_thumbnails(
    videos: Iterable[tuple[Path | None, dict[int, float], str | None]],
) -> Generator[Thumbnails]:
    """For each video its pictures, in order: from its path, the wanted frames' times by index, and its reader."""
    num_side_by_side = num_available_cores()
    waiting: deque[Future[Thumbnails]] = deque()
    executor = ThreadPoolExecutor(num_side_by_side, thread_name_prefix="thumbnails")
    try:
        for video in videos:
            waiting.append(executor.submit(_read, *video))
            if len(waiting) >= 2 * num_side_by_side:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _read(path: Path | None, wanted: dict[int, float], reader: str | None) -> Thumbnails:
    if not wanted:
        return Thumbnails({})
    if path is None:
        return Thumbnails({}, "The video is not here any more.")
    name = ReaderName(reader) if reader in set(ReaderName) else ReaderName.AUTO
    pictures: dict[int, bytes] = {}
    try:
        options = ReadOptions(reader=name, num_threads=1, timeout_seconds=_TIMEOUT_SECONDS)
        with open_video(path, options) as video:
            if not _is_same(video.timestamps_seconds, wanted):
                return Thumbnails({}, "The video is another one than when it was asked about.")
            for frame in video.read(sorted(wanted), _FIT):
                pictures[frame.index] = _jpeg(frame.pixels)
    except SfvqaError as error:
        return Thumbnails(pictures, error.message)
    except OSError as error:
        return Thumbnails(pictures, f"The system refused something: {error}.")
    return Thumbnails(pictures, None if len(pictures) == len(wanted) else "Some frames cannot be read.")


def _is_same(timestamps_seconds: Sequence[float], wanted: dict[int, float]) -> bool:
    """Whether the frames are still shown when they were."""
    return all(
        index < len(timestamps_seconds) and abs(timestamps_seconds[index] - time) <= _SAME_TIME_SECONDS
        for index, time in wanted.items()
    )


def _jpeg(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
