"""What a long batch keeps: after a thousand items the processes hold what they held after fifty."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from sfvqa.batch.record import read_records
from sfvqa.lab.tiny.evaluate import draw_questions
from sfvqa.lab.tiny.render import write_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")

NUM_DIFFERENT = 10
WINDOW = 40  # items over which a median is taken: readers come and go, and a prompt is long or short


@dataclass(frozen=True)
class Sample:
    """The command at one moment, after `num_items` records; memory in bytes."""

    num_items: int
    resident_bytes: int
    readers_bytes: int
    num_threads: int
    num_files: int


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos that are small and not all the same."""
    folder = tmp_path_factory.mktemp("memory") / "different"
    folder.mkdir()
    for number, (scene, _) in zip(range(NUM_DIFFERENT), draw_questions(8, 40 * NUM_DIFFERENT), strict=False):
        write_video(scene, folder / f"{number}.mp4", size=96, preset="ultrafast")
    return folder


def watch_batch(videos: Path, num_items: int, folder: Path) -> list[Sample]:
    """Run the command on that many links to the videos, and look at its processes all the while."""
    many, out = folder / "videos", folder / "out.jsonl"
    many.mkdir()
    for number in range(num_items):
        (many / f"{number:04}.mp4").hardlink_to(videos / f"{number % NUM_DIFFERENT}.mp4")
    command = [sys.executable, "-m", "sfvqa", "batch", str(many), "--question", "What moves?", "-o", str(out)]
    command += ["--model", "tiny", "--device", "cpu", "--frames", "8", "--max-new-tokens", "8", "--no-cache"]
    samples = []
    with subprocess.Popen([*command, "--readers", "2", "-q"]) as running:
        while running.poll() is None:
            time.sleep(0.05)
            num_done = out.read_bytes().count(b"\n") if out.exists() else 0
            if num_done and (sample := look_at(running.pid, num_done)) is not None:
                samples.append(sample)
    assert running.returncode == 0
    assert len(list(read_records(out))) == num_items
    return samples


def look_at(pid: int, num_items: int) -> Sample | None:
    """The process and its children now; None when it ends while it is looked at."""
    process = Path(f"/proc/{pid}")
    try:
        num_threads = len(list((process / "task").iterdir()))
        num_files = len(list((process / "fd").iterdir()))
        resident = memory_of(pid, "Rss")
    except (FileNotFoundError, ProcessLookupError):
        return None
    readers = 0
    for thread in (process / "task").glob("*/children"):
        try:
            readers += sum(memory_of(int(child), "Pss") for child in thread.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Sample(num_items, resident, readers, num_threads, num_files)


def memory_of(pid: int, kind: str) -> int:
    """Rss or Pss in bytes, as they are now; nothing of a process that ended and was not waited for yet."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def around(samples: list[Sample], num_items: int) -> list[Sample]:
    return [sample for sample in samples if num_items - WINDOW < sample.num_items <= num_items]


def describe(samples: list[Sample]) -> str:
    return (
        f"{median(each.resident_bytes for each in samples) / 1e6:.1f} MB, "
        f"readers {median(each.readers_bytes for each in samples) / 1e6:.1f} MB, "
        f"{median(each.num_threads for each in samples):.0f} threads, "
        f"{median(each.num_files for each in samples):.0f} files"
    )


def check_growth(samples: list[Sample], num_first: int, num_last: int, most: float) -> None:
    """The process itself holds at most so many times what it held; of its readers, which come and go, no more run."""
    first, last = around(samples, num_first), around(samples, num_last)
    print(f"after {num_first}: {describe(first)}\nafter {num_last}: {describe(last)}")  # noqa: T201  shown by -s
    assert median(s.resident_bytes for s in last) <= most * median(s.resident_bytes for s in first)
    assert median(s.readers_bytes for s in last) <= 1.5 * median(s.readers_bytes for s in first)
    assert max(s.num_threads for s in last) <= max(s.num_threads for s in first) + 1
    # Medians, since a reader that is replaced has its pipes for a moment beside those of the next.
    assert median(s.num_files for s in last) <= median(s.num_files for s in first) + 4


@pytest.mark.soak
def test_memory_after_a_thousand_items_is_what_it_was_after_fifty(videos: Path, tmp_path: Path) -> None:
    check_growth(watch_batch(videos, 1000, tmp_path), 50, 1000, most=1.1)


@pytest.mark.slow
def test_memory_after_a_hundred_items_is_what_it_was_after_fifty(videos: Path, tmp_path: Path) -> None:
    """The same in half a minute: what grows with every item shows in these as well."""
    check_growth(watch_batch(videos, 100, tmp_path), 50, 100, most=1.02)
