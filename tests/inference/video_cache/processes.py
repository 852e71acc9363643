"""What other processes do to a store of seen videos, while a test looks on: fill and load it, or watch its size."""

import multiprocessing
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from sfvqa.inference.encode import SeenVideo
from sfvqa.inference.video_cache.entry import EncodingKey
from sfvqa.inference.video_cache.store import VideoCache
from tests.inference.video_cache.seen import VIDEO, key_of, seen_of

NUM_VIDEOS = 12
LIMIT_BYTES = 8_000_000  # of the 24 MB that all of them have


@dataclass(frozen=True)
class Watched:
    """What a process saw of a folder: its largest size, how often it looked, how often a file was being written."""

    largest_bytes: int
    num_looks: int
    num_partial: int


def processes() -> ForkServerContext:
    """Processes that start at once, of one that has imported what they need and does nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.inference.video_cache.processes"])
    return context


@cache
def video(number: int) -> tuple[EncodingKey, SeenVideo]:
    """The number-th of some videos of different sizes, up to 4 MB."""
    return key_of(number), seen_of(number, width=10_000 * (number + 1))


def use(folder: Path, seconds: float, seed: int, done: Connection) -> None:
    """Load videos at random, and save those that are not there; send what came of it, by name and count."""
    store, choose, counts = VideoCache(folder, LIMIT_BYTES), random.Random(seed), Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        key, seen = video(min(choose.randrange(NUM_VIDEOS), choose.randrange(NUM_VIDEOS)))
        loaded = store.load(key, VIDEO)
        counts["loads"] += 1
        counts["warnings"] += loaded.warning is not None
        if loaded.seen is not None:
            counts["hits"] += 1
            counts["wrong"] += not torch.equal(loaded.seen.visual_tokens, seen.visual_tokens)
            counts["wrong"] += loaded.seen.indices != seen.indices
        elif (warning := store.save(key, seen)) is None:
            counts["saves"] += 1
        else:
            counts[warning] += 1
    done.send(dict(counts))


def watch(folder: Path, seconds: float, done: Connection) -> None:
    """Look at a folder again and again.

    The names are those of one moment, and no name comes to mean a larger file but that of one being written, for which
    there was room: what is summed up afterwards is at most what was there or was about to be.
    """
    largest, looks, partial = 0, 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sizes = {path.name: size_of(path) for path in folder.iterdir()} if folder.is_dir() else {}
        largest, looks = max(largest, sum(sizes.values())), looks + 1
        partial += any(name.startswith(".partial") for name in sizes)
    done.send(Watched(largest, looks, partial))


def save_for_ever(folder: Path, started: Connection) -> None:
    """Save one video after another until this process is killed."""
    store = VideoCache(folder, LIMIT_BYTES)
    videos = [video(number) for number in range(NUM_VIDEOS)]
    started.send(None)
    while True:
        for key, seen in videos:
            if (warning := store.save(key, seen)) is not None:
                sys.exit(warning)


def size_of(path: Path) -> int:
    """Of a file, 0 once it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
