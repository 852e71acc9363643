"""Several processes use one store at once, or are killed while they write: never a wrong video, never too much."""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sfvqa.inference.video_cache.store import VideoCache
from tests.inference.video_cache.processes import (
    LIMIT_BYTES,
    NUM_VIDEOS,
    Watched,
    processes,
    save_for_ever,
    use,
    video,
    watch,
)
from tests.inference.video_cache.seen import VIDEO

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no forkserver"),
]


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_two_processes_fill_load_and_evict_while_a_third_watches_the_size(tmp_path: Path, seconds: float) -> None:
    """No wrong video, no warning, no exception, and never more on the disk than the limit, temporary files included."""
    context, folder = processes(), tmp_path / "videos"
    ends = [context.Pipe(duplex=False) for _ in range(3)]
    jobs = [(use, (folder, seconds, seed, ends[seed][1])) for seed in (0, 1)] + [(watch, (folder, seconds, ends[2][1]))]
    running = [context.Process(target=target, args=args) for target, args in jobs]
    for process in running:
        process.start()
    assert all(end.poll(seconds + 60) for end, _ in ends)
    used, watched = [Counter(end.recv()) for end, _ in ends[:2]], ends[2][0].recv()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0, 0, 0]
    total = used[0] + used[1]
    left = len(VideoCache(folder).entries())
    figures = f"{seconds:.0f} s: {dict(total)}, {total['saves'] - left} evicted, {watched}, limit {LIMIT_BYTES}\n"
    sys.stdout.write(figures)  # seen with -s, or when something of the following is wrong
    assert set(total) == {"loads", "hits", "saves"}, "nothing wrong, no warning"
    assert all(each["saves"] > 10 and each["hits"] > 10 for each in used)
    assert total["saves"] > left + 10, "some were evicted"
    assert isinstance(watched, Watched)
    assert watched.num_partial > 0, "it looked while a file was being written"
    assert LIMIT_BYTES / 2 < watched.largest_bytes <= LIMIT_BYTES


def test_a_process_killed_at_any_moment_leaves_a_store_that_works(tmp_path: Path) -> None:
    """What it was writing goes with the next save, the lock goes with the process, and nothing is damaged."""
    context, store, choose = processes(), VideoCache(tmp_path / "videos", LIMIT_BYTES), random.Random(0)
    began, num_kills, num_torn = time.monotonic(), 0, 0
    while num_kills < 8 or num_torn == 0:
        assert time.monotonic() < began + 60, f"none of {num_kills} was killed while it wrote"
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(store.folder, theirs))
        process.start()
        assert ours.poll(60)
        time.sleep(choose.uniform(0.0, 0.1))
        assert process.is_alive()
        process.kill()
        process.join()
        num_kills += 1
        num_torn += any(path.name.startswith(".partial") for path in store.folder.iterdir())
        assert store.size_bytes() <= LIMIT_BYTES
        for key, seen in map(video, range(NUM_VIDEOS)):
            loaded = store.load(key, VIDEO)
            assert loaded.warning is None
            assert loaded.seen is None or loaded.seen.indices == seen.indices
        assert store.save(*video(0)) is None
        assert not [path.name for path in store.folder.iterdir() if path.name.startswith(".partial")]
        assert store.size_bytes() <= LIMIT_BYTES
