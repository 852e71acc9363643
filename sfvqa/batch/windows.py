"""Items about whole videos become items about their windows, in order: each has its own id, record and failure."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from sfvqa.batch.item import Item, VideoItems, group_items
from sfvqa.batch.video_ahead import Attempt
from sfvqa.errors import SfvqaError
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.sampling import SamplingOptions
from sfvqa.video.windows import WindowOptions, plan_windows


def items_in_windows(
    items: Iterable[Item],
    windows: WindowOptions,
    sampling: SamplingOptions,
    reading: ReadOptions,
    *,
    num_readers: int,
) -> list[Item]:
    """An item a window, all of one window before those of the next; `num_readers` videos are opened at a time.

    Windows lie within the item's own range, or that of `sampling`. An item about a video that cannot be opened stays as
    it is: the batch then says why. Scenes need a look over each file.
    """

    def of_video(group: VideoItems) -> VideoItems:
        try:
            with open_video(group[0].video, reading) as video:
                planned = plan_windows(video, windows, Attempt(group).sampling(sampling))
        except (SfvqaError, OSError):
            return group
        return tuple(
            replace(item, start_seconds=window.start_seconds, end_seconds=window.end_seconds, is_window=True)
            for window in planned
            for item in group
        )

    with ThreadPoolExecutor(num_readers) as pool:
        return list(chain.from_iterable(pool.map(of_video, group_items(items))))
