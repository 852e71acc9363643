"""Which videos a worker is given next, and what becomes of those that it had when it was lost. Knows nothing of Ray."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from sfvqa.batch.group import VideoGroup
from sfvqa.batch.item import Item

LARGEST_SHARE = 32
"""Videos given out at a time: a worker that is lost costs the others no more than these one by one."""
MOST_LOSSES = 3
"""Workers that a video may cost before it is given up."""
_SHARES_A_WORKER = 2  # that what is left would make: large at first, single videos in the end


class Share:
    """Videos that one worker has, each with the items that have no record yet."""

    def __init__(self, groups: Iterable[VideoGroup], num_losses: int = 0) -> None:
        self.num_losses = num_losses
        self._groups = list(groups)
        self._left = [list(group.items) for group in self._groups]

    @property
    def items(self) -> tuple[Item, ...]:
        """All that are not finished, videos together."""
        return tuple(item for left in self._left for item in left)

    @property
    def unfinished(self) -> list[VideoGroup]:
        """The videos that have such items, with those alone."""
        pairs = zip(self._groups, self._left, strict=True)
        return [replace(group, items=tuple(left)) for group, left in pairs if left]

    def finish(self, item: Item) -> None:
        """Note that an item has its record. ValueError for one that is none of the share's, or was finished before."""
        next((left for left in self._left if item in left), []).remove(item)


class Shares:
    """What is not given to any worker: videos in their order, in ever smaller shares, and after them the suspects.

    A suspect is a video that a worker had not finished when it was lost. From then on it is given out alone, so that
    one that costs every worker its life is found out, and no other pays for it.
    """

    def __init__(self, groups: Iterable[VideoGroup]) -> None:
        self._fresh = deque(groups)
        self._suspects: deque[Share] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to give, until a share is lost."""
        return not self._fresh and not self._suspects

    def take(self, num_workers: int) -> Share | None:
        """The next share for one of so many workers."""
        if self._fresh:
            size = min(LARGEST_SHARE, math.ceil(len(self._fresh) / (_SHARES_A_WORKER * max(num_workers, 1))))
            return Share(self._fresh.popleft() for _ in range(size))
        return self._suspects.popleft() if self._suspects else None

    def lost(self, share: Share, *, is_stuck: bool = False) -> VideoGroup | None:
        """Take back what a lost worker had not finished; the video that is given up because of it, if any is.

        One alone that a worker is stuck with is given up at once: it was waited for, and nobody else ended the worker.
        """
        unfinished = share.unfinished
        num_losses = share.num_losses + 1 if len(unfinished) == 1 else 0
        if num_losses and is_stuck:
            num_losses = MOST_LOSSES
        if num_losses == MOST_LOSSES:
            return unfinished[0]
        self._suspects.extend(Share([group], num_losses) for group in unfinished)
        return None
