"""The workers as Ray actors: started, given shares, listened to, and replaced when they are lost.

Ray says where an actor runs, that it ended, and hands over what it yields; this only keeps count of them.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sfvqa
from sfvqa.batch.cluster.connection import alive_nodes, check_own_node
from sfvqa.batch.cluster.placement import Placement
from sfvqa.batch.cluster.shares import Share
from sfvqa.batch.cluster.worker import Loader, Ready, Worker
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.tally import BatchEvent, BatchSummary
from sfvqa.errors import ClusterError, DeviceLostError, ModelError, SfvqaError, UsageError
from sfvqa.wording import plural

_MOST_LOADS = 3
"""Times that a worker may fail to load in a row; where the model or what is asked for is wrong, one is enough."""
_SECONDS_WITHOUT_ROOM = 60.0  # that nodes may take to come back
_SECONDS_TO_LOAD = 3600.0  # a model, once the worker's process runs
_SECONDS_TO_FETCH = 60.0  # what is ready, from another node
_GRACE_SECONDS = 60.0  # in which a worker that stands still ends the item itself
_LONGEST_REASON = 300


class _Stuck(Exception):  # noqa: N818  a state, as Lost
    """A worker lives and says nothing."""


@dataclass(eq=False)
class Member:
    """A worker's place, whoever holds it at the moment: it loads, then it has a share, or none."""

    actor: Any
    waits_for: Any  # Ray's reference to its loading, or the generator of what it yields
    placed: Any  # Ray's reference that is ready once its process runs, for which there must be room
    heard_at: float | None = None  # None while it has no place yet
    share: Share | None = None
    num_failed_loads: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether it can be given a share."""
        return self.waits_for is None

    @property
    def is_loaded(self) -> bool:
        """Whether its model answered."""
        return self.is_idle or self.share is not None


@dataclass(frozen=True)
class Said:
    """A member said that it is ready, or something of its share, whose summary is the last; it is idle then."""

    member: Member
    what: Ready | BatchEvent | BatchSummary
    share: Share | None = None


@dataclass(frozen=True)
class Lost:
    """A worker ended, for a `reason` that is a clause; its member loads again unless it `is_given_up`.

    One that `is_stuck` was ended because it said nothing any more.
    """

    reason: str
    share: Share | None = None
    is_given_up: bool = False
    is_stuck: bool = False


class Crew:
    """A context manager: workers are asked for when it is entered, and ended when it is left, whatever they do."""

    def __init__(self, placement: Placement, loader: Loader, options: BatchOptions, done: Mapping[str, str]) -> None:
        import ray

        self._ray: Any = ray
        self._size = placement.size
        self._to_load = (loader, options, placement.size, ray.put(dict(done)), sfvqa.__version__)
        self._actor_class: Any = self._ray.remote(Worker)
        self._num_members = placement.num_workers
        self._without_room_since: float | None = None
        # A batch that stands still is asked again item by item, before a word is said of it.
        self._longest_silence_seconds = 2 * options.still_seconds + _GRACE_SECONDS
        self.members: list[Member] = []

    def __enter__(self) -> "Crew":
        self.members += [self._start() for _ in range(self._num_members)]
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

    def listen(self, patience_seconds: float) -> Iterator[Said | Lost]:
        """What came within that time; at most one from each.

        Raises what a worker stumbled over that has nothing to do with a video, and ClusterError, or what loading
        raised, where there is no worker left that could go on.
        """
        waiting = {member.waits_for: member for member in self.members if not member.is_idle}
        if waiting and self._ray.wait(list(waiting), timeout=patience_seconds)[0]:
            ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            for each in ready:
                yield self._hear(waiting[each])
        yield from self._end_stuck()
        self._check_room()

    def _end_stuck(self) -> Iterator[Lost]:
        """Workers that live and say nothing, though a worker that works says something all the time."""
        for member in [member for member in self.members if not member.is_idle]:
            if member.heard_at is None:
                if self._ray.wait([member.placed], timeout=0)[0]:
                    member.heard_at = time.monotonic()
                continue
            limit = _SECONDS_TO_LOAD if member.share is None else self._longest_silence_seconds
            if time.monotonic() - member.heard_at > limit:
                reason = f"it said nothing for {plural(limit, 'second')}"
                yield replace(self._failed(member, _Stuck(reason)), is_stuck=True)

    def _hear(self, member: Member) -> Said | Lost:
        share, member.heard_at = member.share, time.monotonic()
        try:
            if share is None:
                return self._is_ready(member, self._ray.get(member.waits_for, timeout=_SECONDS_TO_FETCH))
            said = next(member.waits_for)  # not bounded, but there: Ray named the generator as ready
            what = self._ray.get(said, timeout=_SECONDS_TO_FETCH)
        except self._ray.exceptions.RayTaskError as error:
            return self._failed(member, error.cause if isinstance(error.cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            return self._failed(member, error)
        if isinstance(what, BatchSummary):
            member.share, member.waits_for = None, None
        return Said(member, what, share)

    def _is_ready(self, member: Member, ready: Ready) -> Said:
        member.waits_for, member.num_failed_loads = None, 0
        return Said(member, ready)

    def _failed(self, member: Member, error: Exception) -> Lost:
        """Replace the worker, or do without; raise what another worker would stumble over as well."""
        share, is_lost = member.share, isinstance(error, self._ray.exceptions.RayError | DeviceLostError | _Stuck)
        if share is not None and not is_lost:
            raise error
        check_own_node()
        reason = (error.message if isinstance(error, SfvqaError) else _describe(error)).rstrip(".")
        self._end(member)
        if share is None:
            member.num_failed_loads += 1
            if member.num_failed_loads >= (1 if isinstance(error, ModelError | UsageError) else _MOST_LOADS):
                self.members.remove(member)
                if not self.members:
                    raise error if isinstance(error, SfvqaError) else _cannot_start(reason) from error
                return Lost(reason, is_given_up=True)
        fresh = self._start()
        member.actor, member.waits_for, member.share = fresh.actor, fresh.waits_for, None
        member.placed, member.heard_at = fresh.placed, None
        return Lost(reason, share)

    def _start(self) -> Member:
        """Ask Ray for a worker; it begins to load once there is room for it somewhere."""
        actor = self._actor_class.options(
            num_cpus=self._size.num_cpus, num_gpus=self._size.num_gpus, scheduling_strategy="SPREAD"
        ).remote()
        return Member(actor, actor.load.remote(*self._to_load), actor.__ray_ready__.remote())

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
                "What is done is kept: add nodes with `ray start`, and run the same command again.",
            )


def _cannot_start(reason: str) -> ClusterError:
    return ClusterError(
        f"No worker could be started: {reason}.", f"Every node needs sfvqa {sfvqa.__version__} and the same Python."
    )


def _describe(error: Exception) -> str:
    """What Ray says in many lines, as a clause."""
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
