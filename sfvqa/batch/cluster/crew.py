"""The workers on a cluster: which videos each is given, and what becomes of those that it had when it was lost."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sfvqa
from sfvqa.batch.cluster.connection import Placement, alive_nodes, check_own_node
from sfvqa.batch.cluster.worker import Loader, Ready, Worker
from sfvqa.batch.item import Item, VideoItems, group_items
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.tally import BatchEvent, Tally
from sfvqa.errors import ClusterError, DeviceLostError, ModelError, SfvqaError, UsageError
from sfvqa.wording import plural

LARGEST_SHARE = 32
"""Videos given out at a time: after a worker is lost, the others must take at most these one by one."""
MOST_LOSSES = 3
"""Workers that a video may cost before it is given up."""
_SHARES_A_WORKER = 2  # of what is left: shares are large at first, and single videos in the end
_MOST_LOADS = 3  # failures in a row; where the model or what is asked for is wrong, one is enough
_SECONDS_WITHOUT_ROOM = 60.0  # for nodes to come back
_SECONDS_TO_LOAD = 3600.0  # a model, once the worker's process runs
_SECONDS_TO_FETCH = 60.0  # what is ready, from another node
_GRACE_SECONDS = 60.0  # in which a worker that hangs ends the item itself
_LONGEST_REASON = 300


@dataclass(eq=False)
class Share:
    """The items that one worker has and has not finished, with which `num_losses` workers were lost before."""

    items: list[Item]
    num_losses: int = 0


class Shares:
    """What no worker has: videos in their order, given out in ever smaller shares, and after them the suspects.

    A suspect is a video that a worker had not finished when it was lost. It is given out alone, so that one that kills
    every worker is found out, and costs no other video.
    """

    def __init__(self, groups: Iterable[VideoItems]) -> None:
        self._fresh = deque(groups)
        self._suspects: deque[Share] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to give out, until a share is lost."""
        return not self._fresh and not self._suspects

    def take(self, num_workers: int) -> Share | None:
        """The next share for one of `num_workers`."""
        if self._fresh:
            size = min(LARGEST_SHARE, math.ceil(len(self._fresh) / (_SHARES_A_WORKER * max(num_workers, 1))))
            return Share([item for _ in range(size) for item in self._fresh.popleft()])
        return self._suspects.popleft() if self._suspects else None

    def lost(self, share: Share, *, is_stuck: bool = False) -> VideoItems | None:
        """Take back what a lost worker had not finished; the video that is given up because of it, if any.

        A single video that a worker is stuck with is given up at once: nothing but the video can have stopped it.
        """
        unfinished = group_items(share.items)
        num_losses = share.num_losses + 1 if len(unfinished) == 1 else 0
        if num_losses == MOST_LOSSES or (num_losses and is_stuck):
            return unfinished[0]
        self._suspects.extend(Share(list(group), num_losses) for group in unfinished)
        return None


@dataclass(eq=False)
class Member:
    """A worker's place, which outlives the worker: it loads, then it has a share, or none."""

    actor: Any = None
    waits_for: Any = None  # Ray's reference to its loading, or the generator of what it yields
    placed: Any = None  # Ray's reference that is ready once its process runs, for which there must be room
    heard_at: float | None = None  # None while it has no process yet
    share: Share | None = None
    num_failed_loads: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether it can be given a share."""
        return self.waits_for is None

    @property
    def is_loaded(self) -> bool:
        """Whether it has a model."""
        return self.is_idle or self.share is not None


@dataclass(frozen=True)
class Lost:
    """A worker ended, for a `reason` that is a clause; its member loads again unless it `is_given_up`.

    One that `is_stuck` was ended because it went silent.
    """

    reason: str
    is_given_up: bool = False
    is_stuck: bool = False


Heard = tuple[Share | None, Ready | BatchEvent | Tally | Lost]
"""A worker is ready, or there is something about its share, or it is lost; after the final tally it is idle."""


class Crew:
    """A context manager that asks Ray for workers when it is entered, and ends them when it is left."""

    def __init__(self, placement: Placement, loader: Loader, options: BatchOptions, done: Mapping[str, str]) -> None:
        import ray

        self._ray: Any = ray
        self._size = placement.size
        self._to_load = (loader, options, placement.size, ray.put(dict(done)), sfvqa.__version__)
        self._actor_class: Any = self._ray.remote(Worker)
        self._num_members = placement.num_workers
        self._without_room_since: float | None = None
        # A batch that hangs is asked again item by item before the worker says so.
        self._longest_silence_seconds = 2 * options.still_seconds + _GRACE_SECONDS
        self.members: list[Member] = []

    def __enter__(self) -> "Crew":
        self.members += [Member() for _ in range(self._num_members)]
        for member in self.members:
            self._start(member)
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            self._end(member)

    @property
    def num_loaded(self) -> int:
        """How many have a model."""
        return sum(member.is_loaded for member in self.members)

    @property
    def is_busy(self) -> bool:
        """Whether any has a share."""
        return any(member.share is not None for member in self.members)

    def give(self, member: Member, share: Share) -> None:
        """Have an idle member answer a share."""
        member.share, member.heard_at = share, time.monotonic()
        member.waits_for = member.actor.answer.options(num_returns="streaming").remote(share.items)

    def listen(self, patience_seconds: float) -> Iterator[Heard]:
        """What came within that time, at most one message from each member.

        Raises an error of a worker that is not about a video, and ClusterError, or what loading raised, if no worker is
        left.
        """
        waiting = {member.waits_for: member for member in self.members if not member.is_idle}
        if waiting and self._ray.wait(list(waiting), timeout=patience_seconds)[0]:
            ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            for each in ready:
                yield self._hear(waiting[each])
        yield from self._end_stuck()
        self._check_room()

    def _end_stuck(self) -> Iterator[Heard]:
        """End workers that live and say nothing: one that works reports every second or so."""
        for member in [member for member in self.members if not member.is_idle]:
            if member.heard_at is None:
                if self._ray.wait([member.placed], timeout=0)[0]:
                    member.heard_at = time.monotonic()
                continue
            limit = _SECONDS_TO_LOAD if member.share is None else self._longest_silence_seconds
            if time.monotonic() - member.heard_at > limit:
                silence = ClusterError(f"no message for {plural(limit, 'second')}")
                yield member.share, self._failed(member, silence, is_stuck=True)

    def _hear(self, member: Member) -> Heard:
        share, member.heard_at = member.share, time.monotonic()
        try:
            if share is None:
                ready = self._ray.get(member.waits_for, timeout=_SECONDS_TO_FETCH)
                member.waits_for, member.num_failed_loads = None, 0
                return None, ready
            said = next(member.waits_for)  # not bounded, but there: Ray named the generator as ready
            what = self._ray.get(said, timeout=_SECONDS_TO_FETCH)
        except self._ray.exceptions.RayTaskError as error:
            return share, self._failed(member, error.cause if isinstance(error.cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            return share, self._failed(member, error)
        if isinstance(what, Tally):
            member.share, member.waits_for = None, None
        return share, what

    def _failed(self, member: Member, error: Exception, *, is_stuck: bool = False) -> Lost:
        """Replace the worker, or do without; raise an error that another worker would have as well."""
        is_lost = is_stuck or isinstance(error, self._ray.exceptions.RayError | DeviceLostError)
        if member.share is not None and not is_lost:
            raise error
        check_own_node()
        reason = (error.message if isinstance(error, SfvqaError) else _describe(error)).rstrip(".")
        self._end(member)
        if member.share is None:
            member.num_failed_loads += 1
            if member.num_failed_loads >= (1 if isinstance(error, ModelError | UsageError) else _MOST_LOADS):
                self.members.remove(member)
                if not self.members:
                    if isinstance(error, SfvqaError) and not is_stuck:
                        raise error
                    raise ClusterError(
                        f"No worker could be started: {reason}.",
                        f"Every node needs sfvqa {sfvqa.__version__} and the same Python.",
                    ) from error
                return Lost(reason, is_given_up=True)
        self._start(member)
        return Lost(reason, is_stuck=is_stuck)

    def _start(self, member: Member) -> None:
        """Ask Ray for a worker; it begins to load once there is room for it somewhere."""
        member.actor = self._actor_class.options(
            num_cpus=self._size.num_cpus, num_gpus=self._size.num_gpus, scheduling_strategy="SPREAD"
        ).remote()
        member.waits_for = member.actor.load.remote(*self._to_load)
        member.placed = member.actor.__ray_ready__.remote()
        member.share, member.heard_at = None, None

    def _end(self, member: Member) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.actor)

    def _check_room(self) -> None:
        """ClusterError once no worker has a model, and for a minute no node could hold one."""
        if self.num_loaded or any(self._size.num_on(node) for node in alive_nodes()):
            self._without_room_since = None
            return
        now = time.monotonic()
        self._without_room_since = self._without_room_since or now
        if now - self._without_room_since > _SECONDS_WITHOUT_ROOM:
            raise ClusterError(
                "The cluster has no node left that could hold a worker.",
                "What is done is kept: add nodes with `ray start`, and rerun the command.",
            )


def _describe(error: Exception) -> str:
    """What Ray says in many lines, as one clause."""
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if any("node has died" in line for line in lines):
        return "its node is gone"
    if isinstance(error, ActorUnavailableError):
        return "it does not answer any more"
    if isinstance(error, ActorDiedError) and not any("creation task" in line for line in lines):
        return "its process ended (killed, crashed, or out of memory)"
    return last[:_LONGEST_REASON]
