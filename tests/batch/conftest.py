"""Small videos, and batches about them that run to their end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import read_records
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import BatchEvent, Tally
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import ReadOptions
from tests.inference.conftest import write_video
from tests.inference.steps import run

HERE = ReadOptions(isolated=False)
RunBatch = Callable[..., tuple[list[BatchEvent], Tally, list[dict[str, Any]]]]


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 … d.mp4 with 4, 12, 20 and 28 frames."""
    folder = tmp_path_factory.mktemp("batch")
    for number, name in enumerate("abcd"):
        write_video(folder / f"{name}.mp4", num_frames=4 + 8 * number, colour=(40 * number, 80, 160))
    return folder


@pytest.fixture
def items(video_folder: Path) -> list[Item]:
    """Two questions about each video."""
    return items_of(video_folder, "abcd", ["What moves?", "Which colour?"])


def items_of(folder: Path, names: str, questions: Sequence[str]) -> list[Item]:
    """The questions about each of the videos, which have names of one letter."""
    return [Item(folder / f"{name}.mp4", f"{name}.mp4", question) for name in names for question in questions]


@pytest.fixture
def run_items(tmp_path: Path) -> RunBatch:
    """Run a batch and give its events, its summary and all records that are in the file by now."""

    def run_them(
        answerer: VideoQA, items: Sequence[Item], options: BatchOptions | None = None, **journal: bool
    ) -> tuple[list[BatchEvent], Tally, list[dict[str, Any]]]:
        path = tmp_path / "out.jsonl"
        with Journal(path, **journal) as opened:
            events, summary = run(run_batch(answerer, items, opened, options or BatchOptions(reading=HERE)))
        return events, summary, list(read_records(path))

    return run_them
