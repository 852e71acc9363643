"""Records as a batch writes them, of answers that nobody gave."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfvqa.batch.item import Item, Question, item_id
from sfvqa.batch.record import Failure, Record, error_record, ok_record, to_line
from sfvqa.batch.report.against import Comparison, compare_runs
from sfvqa.batch.report.facts import collect
from sfvqa.errors import UnreadableVideoError
from sfvqa.evaluation.matching import Rule
from sfvqa.inference.answer import Answer, AnswerSettings, FinishReason, SampledFrames, Timings, TokenCounts

SETTINGS: dict[str, object] = {"model": "tiny", "num_frames": 4, "temperature": 0.0}

ANSWER = Answer(
    text="The circle moves left.",
    question="Which way?",
    video="shapes.mp4",
    model="tiny",
    revision="0123456789abcdef",
    finish_reason=FinishReason.STOP,
    frames=SampledFrames((0, 30, 60, 90), (0.0, 1.25, 2.5, 3.75), "uniform"),
    tokens=TokenCounts(40, fast=16, slow=64, new=6),
    timings=Timings(1.0, 0.25, 0.5, 0.0, 0.125, 0.875, 0.5, 1.375, 10.0),
    peak_memory_bytes=123_000_000,
    warnings=(),
    settings=AnswerSettings("none", False, "sdpa", "always", "cpu", "float32", "pyav", "center", 0.0, 1.0, 1.0, 256, 0),
)


def item(video: str = "shapes.mp4", question: str = "Which way?", **more: Any) -> Item:
    """One question about one video, in no folder that exists."""
    return Item(Path("/absent") / video, video, question, **more)


def ok(
    of: Item | None = None,
    answer: str = "The circle moves left.",
    *,
    settings: Mapping[str, object] = SETTINGS,
    finished: str = "2026-11-25T01:00:00.000+00:00",
    **more: Any,
) -> Record:
    """An item that was answered; `more` are facts of the answer."""
    of = of or item()
    said = replace(ANSWER, text=answer, question=of.question, video=of.name, **more)
    return {**ok_record(Question(of, item_id(of, "content", settings)), said, settings), "finished": finished}


def failed(
    of: Item | None = None,
    error: BaseException | None = None,
    *,
    settings: Mapping[str, object] = SETTINGS,
    finished: str = "2026-11-25T01:00:00.000+00:00",
    content: str = "content",
) -> Record:
    """An item that was not."""
    of = of or item()
    error = error or UnreadableVideoError(f"“{of.name}” holds no picture.", "Convert it.")
    question = Question(of, item_id(of, content, settings))
    return {**error_record(question, Failure.of(error), settings), "finished": finished}


def write(path: Path, records: Iterable[Mapping[str, object]]) -> Path:
    """The records as a file."""
    path.write_bytes(b"".join(map(to_line, records)))
    return path


def compared(
    folder: Path, new: Iterable[Mapping[str, object]], old: Iterable[Mapping[str, object]], rule: Rule = Rule.PHRASE
) -> Comparison:
    """Two runs, as the files new.jsonl and old.jsonl, compared."""
    files = {name: write(folder / f"{name}.jsonl", records) for name, records in (("new", new), ("old", old))}
    return compare_runs(*(collect(file, rule, keeps_answers=True) for file in files.values()))
