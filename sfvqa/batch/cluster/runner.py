"""A batch on a cluster: shares go out to the workers, records come back, and one tally counts all of it."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from sfvqa.batch.cluster.connection import (
    ClusterOptions,
    Placement,
    alive_nodes,
    connected,
    free_resources,
    place_workers,
)
from sfvqa.batch.cluster.crew import MOST_LOSSES, Crew, Lost, Share, Shares
from sfvqa.batch.cluster.worker import Loader, Ready
from sfvqa.batch.identify import identify
from sfvqa.batch.item import Item, VideoItems, group_items
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.tally import BatchEvent, Counts, ItemFinished, Tally, Working
from sfvqa.errors import WorkerLostError
from sfvqa.video.readers.local_file import hash_content

_PATIENCE_SECONDS = 0.5  # between two events while nothing comes


class _ShareCounts(Counts):
    """Counts records as they come; times, frames and what was done `before` are sums of what workers say of shares.

    The clock runs from the first worker that is ready, as without a cluster it runs from the loaded model.
    """

    def __init__(self, num_items: int, keeper: RecordKeeper, options: BatchOptions) -> None:
        super().__init__(num_items, keeper, options)
        self.num_workers = 0
        self.num_workers_wanted = 0
        self._most_frames_held = 0
        self._of_shares: dict[Share, Tally] = {}

    def hear(self, share: Share, what: BatchEvent | Tally) -> None:
        """Take what a worker says of its share; with the last tally the share is done."""
        if not isinstance(what, Tally):
            self._of_shares[share] = what.tally
            return
        self._of_shares[share] = what
        self._most_frames_held = max(self._most_frames_held, what.most_frames_held)
        self.before += what.before
        self.forget(share)

    def forget(self, share: Share) -> None:
        """End a share, done or lost: the time it took counts; what it skipped, others skip again."""
        tally = self._of_shares.pop(share, None)
        for stage, seconds in (tally.stage_seconds if tally else {}).items():
            self.stage_seconds[stage] += seconds

    def tally(self) -> Tally:
        """How far the run is, with the shares that workers have now."""
        whole, live = super().tally(), self._of_shares.values()
        return replace(
            whole,
            before=sum((tally.before for tally in live), whole.before),
            stage_seconds={
                stage: seconds + sum(tally.stage_seconds.get(stage, 0.0) for tally in live)
                for stage, seconds in whole.stage_seconds.items()
            },
            num_frames_held=sum(tally.num_frames_held for tally in live),
            most_frames_held=self._most_frames_held,
            num_workers=self.num_workers,
            num_workers_wanted=self.num_workers_wanted,
        )


def run_on_cluster(
    loader: Loader, items: Sequence[Item], keeper: RecordKeeper, options: BatchOptions, cluster: ClusterOptions
) -> Generator[BatchEvent, None, Tally]:
    """Answer every item that has no record, on the workers of a cluster, and yield what happens.

    Workers open each video by its absolute path. What a lost worker had not finished goes to others; a video with
    which MOST_LOSSES workers were lost becomes error records. `content_of` is for this machine: the loader, which runs
    on each worker, sets the worker's own. Raises what `run_batch` and loading the model raise, UsageError where no
    worker fits, ClusterError where there is no cluster, or no worker left. Closing the generator ends the workers.
    """
    items = [replace(item, video=item.video.absolute()) for item in items]
    run = _ClusterRun(items, keeper, options)
    yield Working(run.counts.tally())
    with connected(cluster.address):
        placement = place_workers(alive_nodes(), cluster)
        shipped = replace(options, max_failures=None, content_of=hash_content)
        with Crew(placement, loader, shipped, keeper.done) as crew:
            yield from run.events(crew, placement)
    return run.counts.tally()


class _ClusterRun:
    def __init__(self, items: Sequence[Item], keeper: RecordKeeper, options: BatchOptions) -> None:
        self._keeper = keeper
        self._options = options
        self._shares = Shares(group_items(items))
        self.counts = _ShareCounts(len(items), keeper, options)
        self._said: set[str] = set()

    def events(self, crew: Crew, placement: Placement) -> Iterator[BatchEvent]:
        """Run until every item is done, or too many failed."""
        yield self._working(_what_is_missing(placement))
        while (not self._shares.is_empty or crew.is_busy) and not self.counts.has_failed_too_often:
            self._give_out(crew)
            for share, what in crew.listen(_PATIENCE_SECONDS):
                if isinstance(what, Lost):
                    yield from self._lose(share, what)
                elif isinstance(what, Ready):
                    self.counts.begin()
                    for notice in what.notices:
                        yield self._working(f"{what.host}: {notice}")
                elif share is not None:
                    yield from self._hear(share, what)
            self.counts.num_workers, self.counts.num_workers_wanted = crew.num_loaded, placement.num_workers
            yield self._working()

    def _give_out(self, crew: Crew) -> None:
        for member in crew.members:
            if member.is_idle and (share := self._shares.take(len(crew.members))) is not None:
                crew.give(member, share)

    def _hear(self, share: Share, what: BatchEvent | Tally) -> Iterator[BatchEvent]:
        self.counts.hear(share, what)
        if isinstance(what, ItemFinished) and not self.counts.has_failed_too_often:
            share.items.remove(what.item)
            yield self.counts.finish(what.item, dict(what.record))
        if isinstance(what, Tally):
            assert len(share.items) == what.before.total(), "a worker left items of its share"

    def _lose(self, share: Share | None, lost: Lost) -> Iterator[BatchEvent]:
        """Say so, and put back what the worker had, or give up the video that kills workers."""
        again = "the batch goes on without it" if lost.is_given_up else "it is being replaced"
        yield self._working(f"A worker was lost, {again}: {lost.reason}", is_new=True)
        if share is None:
            return
        self.counts.forget(share)
        if (video := self._shares.lost(share, is_stuck=lost.is_stuck)) is not None:
            yield from self._give_up(video, lost)

    def _give_up(self, video: VideoItems, lost: Lost) -> Iterator[BatchEvent]:
        how_often = "A worker hung" if lost.is_stuck else f"{MOST_LOSSES} workers were lost"
        of_whom = "" if lost.is_stuck else ", of the last one"
        error = WorkerLostError(
            f"{how_often} with this video{of_whom}: {lost.reason}.",
            "Try the video alone with `sfvqa ask`; --retry-errors asks again what failed.",
        )
        failure = Failure.of(error)
        found = identify(video, self._options, self._keeper)
        self.counts.before += found.before
        yield from self.counts.fail(found.questions, failure)

    def _working(self, notice: str = "", *, is_new: bool = False) -> Working:
        """An event, with a notice that was not given before, or is of something new."""
        if notice in self._said and not is_new:
            notice = ""
        self._said.add(notice)
        return Working(self.counts.tally(), notice)


def _what_is_missing(placement: Placement) -> str:
    """The notice that not all workers have room now; empty if they do."""
    wanted, size = placement.num_workers, placement.size
    if placement.num_fitting < wanted:
        return f"{placement.num_fitting} of the {wanted} workers fit the cluster; others start as nodes join."
    if (now := size.num_on(free_resources())) < wanted:
        return f"The cluster is busy: {now} of the {wanted} workers have room now; the others start when they do."
    return ""
