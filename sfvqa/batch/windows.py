"""Items about whole videos become items about their windows, in order: each has its own id, record and failure."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.batch.item import Item, VideoItems, group_items
from sfvqa.batch.video_ahead import Attempt
from sfvqa.batch.watchdog import TooLateError, within
from sfvqa.errors import SfvqaError
from sfvqa.inference.video_cache.entry import library_versions
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.sampling import SamplingOptions
from sfvqa.video.windows import Window, WindowOptions, plan_windows

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.store import VideoCache

_LAYING_OUT_VERSION = 1
"""Raise it whenever the same video may have other windows than before."""


def items_in_windows(
    items: Iterable[Item],
    windows: WindowOptions,
    sampling: SamplingOptions,
    reading: ReadOptions,
    *,
    num_readers: int,
    cache: "VideoCache | None" = None,
) -> list[Item]:
    """An item a window, all of one window before those of the next; `num_readers` videos are opened at a time.

    Windows lie within the item's own range, or that of `sampling`. An item about a video that cannot be opened stays as
    it is: the batch then says why. Scenes need a look over each file. A video whose windows the `cache` knows is not
    opened.
    """

    def of_video(group: VideoItems) -> VideoItems:
        try:
            planned = _planned(group[0].video, windows, Attempt(group).sampling(sampling), reading, cache)
        except (SfvqaError, OSError, TooLateError):
            return group
        return tuple(
            replace(item, start_seconds=window.start_seconds, end_seconds=window.end_seconds, is_window=True)
            for window in planned
            for item in group
        )

    with ThreadPoolExecutor(num_readers) as pool:
        return list(chain.from_iterable(pool.map(of_video, group_items(items))))


def _planned(
    video: Path, windows: WindowOptions, sampling: SamplingOptions, reading: ReadOptions, cache: "VideoCache | None"
) -> tuple[Window, ...]:
    """The windows of a video, known or laid out and kept. Raises VideoError, UsageError, OSError, TooLateError."""
    made_with = ["windows", _LAYING_OUT_VERSION, asdict(windows), asdict(sampling), reading.reader, library_versions()]
    key = json.dumps(made_with)
    content = "" if cache is None else within(reading.timeout_seconds, lambda: cache.content_of(video))
    if cache is not None and (known := cache.load_text(content, key)) is not None:
        return tuple(Window(*times) for times in json.loads(known))
    with open_video(video, reading) as opened:
        planned = plan_windows(opened, windows, sampling)
        is_unchanged = opened.is_unchanged
    if cache is not None and is_unchanged:  # where it cannot be kept, what is encoded cannot either, and that is told
        cache.save_text(content, key, json.dumps([(window.start_seconds, window.end_seconds) for window in planned]))
    return planned
