"""What is to be done for one video of a batch: its items, and by how many frames. Data only."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sfvqa.batch.group import VideoGroup
from sfvqa.batch.item import Item
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

_MOST_HALVINGS = 3  # down to an eighth


@dataclass(frozen=True)
class Work:
    """A video to be seen for its items; `warnings` go with every answer.

    `num_frames` None is as many as were asked for; after memory ran out it is fewer, halved `num_halvings` times.
    """

    group: VideoGroup
    num_frames: int | None = None
    num_halvings: int = 0
    warnings: tuple[str, ...] = ()

    def sampling(self, asked: SamplingOptions) -> SamplingOptions:
        """The frames to take, by what was asked for all videos. UsageError for a range that is none."""
        start, end = self.group.start_seconds, self.group.end_seconds
        return replace(
            asked,
            num_frames=self.num_frames or asked.num_frames,
            start_seconds=asked.start_seconds if start is None else start,
            end_seconds=asked.end_seconds if end is None else end,
        )

    def smaller(self, items: Iterable[Item], asked: SamplingOptions, num_available: int | None) -> "Work | None":
        """The same for some of its items and half the frames, of which a video may have fewer than were asked for.

        None below an eighth of them, or where the frames are given one by one.
        """
        before = min(self.num_frames or asked.num_frames, num_available or asked.num_frames)
        if self.num_halvings == _MOST_HALVINGS or before < 2 or asked.strategy is SamplingStrategy.TIMESTAMPS:
            return None
        return Work(
            replace(self.group, items=tuple(items)),
            num_frames=before // 2,
            num_halvings=self.num_halvings + 1,
            warnings=(
                f"Memory ran out with {before} frames; {before // 2} {'was' if before < 4 else 'were'} looked at.",
            ),
        )
