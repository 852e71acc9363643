"""`python -m sfvqa.lab.measurements.seen_again`: what asking again costs, beside asking for the first time, in one run.

A cold question, one whose video comes from the video cache, and one more about a video that is in memory; then ten
questions in one call of `sfvqa ask` against ten calls.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, medians, write_figures
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write
from sfvqa.registry import find_model
from sfvqa.video import SamplingOptions

if TYPE_CHECKING:
    import argparse

    from sfvqa.inference.answer import Answer

VIDEO = NumberedVideo("minute-1080p.mp4", "60 s, 1080p, H.264, GOP 250", "libx264", 1920, 1080, 60, 250)
FIRST, SECOND = "What colour does the screen flash?", "Which digit is shown?"
TEN_QUESTIONS = (
    FIRST,
    SECOND,
    "Describe the video.",
    "Which way does the circle move?",
    "What colour is the circle?",
    "How many objects are there?",
    "Which shape appears first?",
    "Is there a star?",
    "Where is the square at the end?",
    "What is the weather like?",
)
COLD, FROM_DISK, IN_MEMORY = "first question", "from the video cache", "one more question"
_STAGES = ("read_seconds", "encode_seconds", "prefill_seconds", "ttft_seconds")


@dataclass(frozen=True)
class Stages:
    """Medians of where the time to the first token went, and the tokens of the prompt that needed no prefill."""

    model: str
    num_frames: int
    question: str
    read_seconds: float
    encode_seconds: float
    overlap_seconds: float
    prefill_seconds: float
    ttft_seconds: float
    reused: int
    answer: str


@dataclass(frozen=True)
class Calls:
    """Ten questions asked one way: the wall clock of it all, interpreter and model included, and the answers."""

    way: str
    seconds: float
    answers: tuple[str, ...]


def measure_stages(model: str, video: Path, repeats: int, num_frames: int | None) -> list[Stages]:
    """Ask SECOND cold, from the cache, and after FIRST, `repeats` times each, in this process."""
    spec = find_model(model)
    qa = VideoQA.load(model, device="cpu", random_weights=not spec.has_weights)
    sampling = SamplingOptions(num_frames) if num_frames else qa.default_sampling
    options = GenerationOptions(max_new_tokens=4)
    runs: dict[str, list[Answer]] = {COLD: [], FROM_DISK: [], IN_MEMORY: []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            qa.video_cache = VideoCache(Path(folder))
            runs[COLD].append(qa.ask(qa.encode(video, sampling), SECOND, options))
            qa.video_cache = VideoCache(Path(folder))  # one that has yet to hash the video
            found = qa.encode(video, sampling)
            runs[FROM_DISK].append(qa.ask(found, SECOND, options))
            for stream in qa.stream_all(found, (FIRST, SECOND), options):
                list(stream)
            runs[IN_MEMORY].append(stream.answer)
            print(f"{model}: {[round(runs[name][-1].timings.ttft_seconds, 2) for name in runs]}", file=sys.stderr)
    return [_median(model, name, answers) for name, answers in runs.items()]


def _median(model: str, name: str, answers: list[Answer]) -> Stages:
    def median(stage: str) -> float:
        seconds: list[float] = [getattr(answer.timings, stage) for answer in answers]
        return statistics.median(seconds)

    texts = {answer.text for answer in answers}
    assert len(texts) == 1, texts
    return Stages(
        model=model,
        num_frames=len(answers[0].frames.indices),
        question=name,
        overlap_seconds=median("overlap_seconds"),
        reused=answers[0].tokens.reused,
        answer=answers[0].text,
        **{stage: median(stage) for stage in _STAGES},
    )


def measure_calls(model: str, video: Path, repeats: int, num_frames: int | None) -> list[Calls]:
    """Ten calls without a video cache, ten with one, one call, and one call with one batch."""
    flags = ["--model", model, "--device", "cpu", "--json", "-q", "--max-new-tokens", "40"]
    flags += [] if find_model(model).has_weights else ["--random-weights"]
    flags += ["--frames", str(num_frames)] if num_frames else []
    ways = {
        "ten calls, --no-cache": ([[question] for question in TEN_QUESTIONS], ["--no-cache"]),
        "ten calls, video cache": ([[question] for question in TEN_QUESTIONS], []),
        "one call, --no-cache": ([list(TEN_QUESTIONS)], ["--no-cache"]),
        "one call, --batch-size 10, --no-cache": ([list(TEN_QUESTIONS)], ["--no-cache", "--batch-size", "10"]),
    }
    return [_median_calls(way, video, calls, [*flags, *more], repeats) for way, (calls, more) in ways.items()]


def _median_calls(way: str, video: Path, calls: list[list[str]], flags: list[str], repeats: int) -> Calls:
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "SFVQA_CACHE_DIR": folder, "SFVQA_NO_SERVER": "1"}
            began, answers = time.perf_counter(), []
            for questions in calls:
                command = [sys.executable, "-m", "sfvqa", "ask", str(video), *questions, *flags]
                run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                answers += [json.loads(line)["answer"] for line in run.stdout.splitlines()]
            runs.append(Calls(way, time.perf_counter() - began, tuple(answers)))
            print(f"{way}: {runs[-1].seconds:.1f} s", file=sys.stderr)
    return medians(runs, "seconds")


def stages_table(results: list[Stages]) -> str:
    """Markdown: a row a question."""
    cold = {result.model: result.ttft_seconds for result in results if result.question == COLD}
    rows = []
    for result in results:
        stages = [f"{getattr(result, stage):.3f} s" for stage in _STAGES]
        share = f"{result.ttft_seconds / cold[result.model]:.1%}"
        rows.append([f"`{result.model}`, {result.num_frames}", result.question, *stages, share])
    heads = ["read", "encode", "prefill", "first token", "of the first question's"]
    return markdown_table(["model, frames", "", *heads], rows, num_texts=2)


def calls_table(results: list[Calls]) -> str:
    """Markdown: a row a way, and how many answers are those of the first row."""
    rows = []
    for result in results:
        same = sum(one == other for one, other in zip(result.answers, results[0].answers, strict=True))
        rows.append([result.way, f"{result.seconds:.1f} s", f"{same} of {len(results[0].answers)}"])
    return markdown_table(["ten questions", "total", "same answers"], rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("seen_again", __doc__, kept="the video is")
    parser.add_argument("--video", type=Path, help="ask about this one instead")
    parser.add_argument("--models", nargs="*", default=["tiny", "bench-0.5b"], help="for the stages")
    parser.add_argument("--calls", nargs="*", default=["tiny"], help="models for the ten questions")
    parser.add_argument("--frames", type=int, help="default: as many as in training")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the video if need be, measure, print the tables."""
    options = parse_arguments(arguments)
    video = options.video or find_or_write(VIDEO, options.folder)
    stages = [one for model in options.models for one in measure_stages(model, video, options.repeats, options.frames)]
    calls = {model: measure_calls(model, video, options.repeats, options.frames) for model in options.calls}
    figures = {model: [asdict(one) for one in results] for model, results in calls.items()}
    write_figures(options.json, stages=[asdict(one) for one in stages], calls=figures)
    tables = [stages_table(stages)] if stages else []
    tables += [f"`{model}`:\n\n{calls_table(results)}" for model, results in calls.items()]
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
