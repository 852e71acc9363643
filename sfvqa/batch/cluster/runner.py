"""A batch on the workers of a Ray cluster: the same events, records and summary as of `run_batch`, from many machines.

Each worker runs `run_batch` on its share of the videos; this hands shares out and is the only one that writes records.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from sfvqa.batch.cluster.connection import alive_nodes, connected, free_resources
from sfvqa.batch.cluster.counts import Counts
from sfvqa.batch.cluster.crew import Crew, Lost, Said
from sfvqa.batch.cluster.options import ClusterOptions
from sfvqa.batch.cluster.placement import Placement, place_workers
from sfvqa.batch.cluster.shares import MOST_LOSSES, Shares
from sfvqa.batch.cluster.worker import Loader, Ready
from sfvqa.batch.group import VideoGroup, group_items
from sfvqa.batch.item import Item
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.preparing import identify, sort_out
from sfvqa.batch.record import Failure, error_record
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.batch.tally import BatchEvent, BatchSummary, ItemFinished, Tally, Working
from sfvqa.errors import WorkerLostError
from sfvqa.video.content_hash import hash_content
from sfvqa.wording import plural

_PATIENCE_SECONDS = 0.5  # between two events while nothing comes


def run_on_cluster(
    loader: Loader, items: Sequence[Item], keeper: RecordKeeper, options: BatchOptions, cluster: ClusterOptions
) -> Generator[BatchEvent, None, BatchSummary]:
    """Answer every item that has no record, on the workers of a cluster, and yield what happens.

    Workers open each video by its absolute path. What a lost worker had not finished goes to others; a video that
    MOST_LOSSES workers were lost with becomes error records. `content_of` is for this machine: the loader, which runs
    on each worker, sets the worker's own. Raises as `run_batch` and as loading the model, UsageError where no worker
    fits, ClusterError where there is no cluster or it has no worker left. Closing the generator ends the workers.
    """
    items = [replace(item, video=item.video.absolute()) for item in items]
    run = _ClusterRun(items, keeper, options)
    yield Working(run.tally())
    with connected(cluster.address):
        placement = place_workers(alive_nodes(), cluster)
        shipped = replace(options, max_failures=None, content_of=hash_content)
        with Crew(placement, loader, shipped, keeper.done) as crew:
            yield from run.events(crew, placement)
    return run.summary()


class _ClusterRun:
    def __init__(self, items: Sequence[Item], keeper: RecordKeeper, options: BatchOptions) -> None:
        self._keeper = keeper
        self._options = options
        self._shares = Shares(group_items(items))
        self._counts = Counts(len(items))
        self._said: set[str] = set()

    def events(self, crew: Crew, placement: Placement) -> Iterator[BatchEvent]:
        """Until every item is done, or there were too many failures."""
        yield self._working(_what_is_missing(placement))
        while (not self._shares.is_empty or crew.is_busy) and not self._has_failed_too_often:
            self._give_out(crew)
            for heard in crew.listen(_PATIENCE_SECONDS):
                if isinstance(heard, Lost):
                    yield from self._lose(heard)
                else:
                    yield from self._hear(heard)
            self._counts.num_workers, self._counts.num_workers_wanted = crew.num_loaded, placement.num_workers
            yield self._working()

    def tally(self) -> Tally:
        """How far it is."""
        return self._counts.tally()

    def summary(self) -> BatchSummary:
        """How it ended."""
        tally = self.tally()
        is_stopped = self._has_failed_too_often and tally.num_left
        stopped = f"Stopped after {plural(tally.num_failed, 'failure')}." if is_stopped else None
        return BatchSummary(tally, self._counts.most_frames_held, stopped)

    @property
    def _has_failed_too_often(self) -> bool:
        limit = self._options.max_failures
        return limit is not None and self._counts.errors.total() >= limit

    def _give_out(self, crew: Crew) -> None:
        for member in crew.members:
            if member.is_idle and (share := self._shares.take(len(crew.members))) is not None:
                crew.give(member, share)

    def _hear(self, said: Said) -> Iterator[BatchEvent]:
        what, share = said.what, said.share
        if isinstance(what, Ready):
            self._counts.begin()
            for notice in what.notices:
                yield self._working(f"{what.host}: {notice}")
            return
        assert share is not None
        self._counts.hear(share, what)
        if isinstance(what, ItemFinished) and not self._has_failed_too_often:
            share.finish(what.item)
            yield self._finish(what.item, dict(what.record))
        if isinstance(what, BatchSummary):
            assert len(share.items) == what.tally.num_before, "a worker left items of its share"

    def _lose(self, lost: Lost) -> Iterator[BatchEvent]:
        """Say so, and put back what the worker had, or give up the video that it was lost with."""
        again = "it is done without" if lost.is_given_up else "it is replaced"
        yield self._working(f"A worker was lost, {again}: {lost.reason}", is_new=True)
        if lost.share is None:
            return
        self._counts.forget(lost.share)
        if (video := self._shares.lost(lost.share, is_stuck=lost.is_stuck)) is not None:
            yield from self._give_up(video, lost)

    def _give_up(self, video: VideoGroup, lost: Lost) -> Iterator[BatchEvent]:
        how_often = "A worker stood still" if lost.is_stuck else f"{MOST_LOSSES} workers were lost"
        of_whom = "" if lost.is_stuck else ", of the last one"
        error = WorkerLostError(
            f"{how_often} with this video{of_whom}: {lost.reason}.",
            "Try it alone with `sfvqa ask`; --retry-errors asks again what failed.",
        )
        failure = Failure.of(error)
        left, before = sort_out(identify(video, self._options).asked, self._keeper, self._options)
        self._counts.before += before
        for question in left:
            record = error_record(question.item, question.item_id, failure, self._options.settings)
            yield self._finish(question.item, record)

    def _finish(self, item: Item, record: dict[str, object]) -> ItemFinished:
        self._keeper.append(record)
        self._counts.count(record)
        return ItemFinished(item, record, self.tally())

    def _working(self, notice: str = "", *, is_new: bool = False) -> Working:
        """An event; what was said before is not said again, unless it happened again."""
        if notice in self._said and not is_new:
            notice = ""
        self._said.add(notice)
        return Working(self.tally(), notice)


def _what_is_missing(placement: Placement) -> str:
    """The notice that there is not room for all workers now; empty where there is."""
    wanted, size = placement.num_workers, placement.size
    if placement.num_fitting < wanted:
        return f"{placement.num_fitting} of the {wanted} workers fit the cluster; others begin as nodes come."
    if (now := size.num_on(free_resources())) < wanted:
        if not now:
            return "The cluster is busy: no worker has room now; they begin when there is some."
        return f"The cluster is busy: {now} of the {wanted} workers have room now; the others begin when they have."
    return ""
