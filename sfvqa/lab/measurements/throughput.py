"""`python -m sfvqa.lab.measurements.throughput`: a folder answered by a batch, beside a plain loop over `VideoQA.ask`.

Both in one process, with the model loaded once and nothing kept on disk, in turns; the answers must be the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import read_records
from sfvqa.batch.runner import run_batch
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, medians, write_figures
from sfvqa.lab.measurements.numbered_videos import find_or_write_many
from sfvqa.registry import find_model
from sfvqa.video import SamplingOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sfvqa.batch.tally import Tally

QUESTIONS = ("Describe the video.", "Which digit is shown?", "Which way does the circle move?")
LOOP = "a loop over VideoQA.ask"
BATCH_SIZES = (1, 16)
MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Case:
    """What is asked: `num_questions` about each of `num_videos` videos, with `num_frames` frames, of one model."""

    model: str
    num_videos: int
    num_frames: int
    num_questions: int = 1

    @classmethod
    def parse(cls, text: str) -> Case:
        """From MODEL:VIDEOS:FRAMES.

        >>> Case.parse("tiny:24:32")
        Case(model='tiny', num_videos=24, num_frames=32, num_questions=1)
        """
        model, num_videos, num_frames = text.rsplit(":", 2)
        return cls(model, int(num_videos), int(num_frames))


@dataclass(frozen=True)
class Run:
    """One way through all videos: the wall clock, and the share of it in which the model waited for frames."""

    case: Case
    way: str
    seconds: float
    waiting_share: float | None
    same_answers: bool = True


def measure(case: Case, qa: VideoQA, videos: Sequence[Path], repeats: int) -> list[Run]:
    """Every way in turn, `repeats` times; medians."""
    items = [Item(path, path.name, question) for path in videos for question in QUESTIONS[: case.num_questions]]
    sampling, writing = SamplingOptions(case.num_frames), GenerationOptions(max_new_tokens=MAX_NEW_TOKENS)
    options = BatchOptions(sampling=sampling, generation=writing)
    runs: dict[str, list[tuple[Run, dict[Item, str]]]] = {}
    _loop(case, qa, items[: case.num_questions], sampling, writing)  # the first run of all is slower
    for _ in range(repeats):
        found = [_loop(case, qa, items, sampling, writing)]
        found += [_batch(case, qa, items, replace(options, batch_size=size)) for size in BATCH_SIZES]
        for run, answers in found:
            runs.setdefault(run.way, []).append((run, answers))
            print(f"{case}: {run.way} {run.seconds:.2f} s", file=sys.stderr)
    expected = runs[LOOP][0][1]
    return [_median(found, expected) for found in runs.values()]


def _loop(
    case: Case, qa: VideoQA, items: Sequence[Item], sampling: SamplingOptions, writing: GenerationOptions
) -> tuple[Run, dict[Item, str]]:
    start = time.perf_counter()
    answers = {item: qa.ask(qa.encode(item.video, sampling), item.question, writing).text for item in items}
    return Run(case, LOOP, time.perf_counter() - start, None), answers


def _batch(case: Case, qa: VideoQA, items: Sequence[Item], options: BatchOptions) -> tuple[Run, dict[Item, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "out.jsonl", time.perf_counter()
        with Journal(path) as journal:
            tally = _to_the_end(qa, items, journal, options)
        seconds = time.perf_counter() - start
        records = list(read_records(path))
    of = {(item.name, item.question): item for item in items}
    answers = {of[record["video"], record["question"]]: record.get("answer", "") for record in records}
    way = f"sfvqa batch, {f'up to {options.batch_size}' if options.batch_size > 1 else 'one'} at a time"
    return Run(case, way, seconds, tally.waiting_share), answers


def _to_the_end(qa: VideoQA, items: Sequence[Item], journal: Journal, options: BatchOptions) -> Tally:
    events = run_batch(qa, items, journal, options)
    while True:
        try:
            next(events)
        except StopIteration as end:
            tally: Tally = end.value
            return tally


def _median(found: Sequence[tuple[Run, dict[Item, str]]], expected: dict[Item, str]) -> Run:
    run = medians([run for run, _ in found], "seconds", "waiting_share")
    return replace(run, same_answers=all(answers == expected for _, answers in found))


def table(runs: Sequence[Run]) -> str:
    """Markdown: a row a way."""
    rows = []
    for run in runs:
        case = run.case
        loop = next(other for other in runs if other.case == case and other.way == LOOP)
        plural = "s" * (case.num_questions > 1)
        rows.append(
            [
                f"`{case.model}`, {case.num_frames} frames, {case.num_questions} question{plural}",
                run.way,
                f"{run.seconds:.1f} s",
                f"{60 * case.num_videos / run.seconds:.1f}",
                f"{loop.seconds / run.seconds:.2f} ×",
                "–" if run.waiting_share is None else f"{run.waiting_share:.1%}",
                "yes" if run.same_answers else "no",
            ]
        )
    heads = ["time", "videos a minute", "beside the loop", "model waits for frames", "same answers"]
    return markdown_table(["", "way", *heads], rows, num_texts=2)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("throughput", __doc__, kept="the videos are")
    parser.add_argument(
        "--cases", nargs="*", default=["tiny:24:32", "bench-0.5b:4:8"], metavar="MODEL:VIDEOS:FRAMES", type=str
    )
    parser.add_argument("--questions", nargs="*", type=int, default=[1, 3], help="about each video")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the videos if need be, measure, print the table."""
    options = parse_arguments(arguments)
    runs: list[Run] = []
    for case in map(Case.parse, options.cases):
        videos = find_or_write_many(options.folder, case.num_videos)
        qa = VideoQA.load(case.model, device="cpu", random_weights=not find_model(case.model).has_weights)
        for count in options.questions:
            runs += measure(replace(case, num_questions=count), qa, videos, options.repeats)
        del qa
    write_figures(options.json, runs=[asdict(run) for run in runs])
    print(table(runs))


if __name__ == "__main__":
    main()
