"""Items, answers and records to keep: each made of a number, so that one in another's place can be told."""

from pathlib import Path

from sfvqa.batch.item import Item, Question, item_id
from sfvqa.batch.record import Failure, Record, error_record, ok_record
from sfvqa.errors import UnreadableVideoError
from sfvqa.inference.answer import Answer, AnswerSettings, FinishReason, SampledFrames, Timings, TokenCounts

SETTINGS = {"model": "tiny", "num_frames": 8, "temperature": 0.0}


def item_of(number: int, name: str | None = None) -> Item:
    """The number-th item."""
    name = name or f"clips/{number}.mp4"
    return Item(Path("/videos") / name, name, f"What is {number}?", own_id=f"own-{number}", answer="yes", group="g")


def id_of(number: int) -> str:
    """Of the number-th item."""
    return item_id(item_of(number), f"whole:{number}", SETTINGS)


def answer_of(text: str, question: str = "Q?", video: str = "/videos/clip.mp4") -> Answer:
    """An answer with everything in it."""
    return Answer(
        text=text,
        question=question,
        video=video,
        model="tiny",
        revision="0" * 40,
        finish_reason=FinishReason.STOP,
        frames=SampledFrames((0, 10), (0.0, 0.4), "uniform"),
        tokens=TokenCounts(prompt=20, fast=4, slow=8, new=3),
        timings=Timings(0.1, 0.2, 0.3, 0.0, 0.1, 0.6, 0.2, 0.8, 10.0),
        peak_memory_bytes=1_000_000,
        warnings=(),
        settings=AnswerSettings(
            "none", False, "sdpa", "always", "cpu", "float32", "pyav", "center", 0.0, 1.0, 1.0, 256, 0
        ),
    )


def ok_of(number: int, text: str | None = None) -> Record:
    """The answer to the number-th item."""
    return ok_record(Question(item_of(number), id_of(number)), answer_of(text or f"It is {number}."), SETTINGS)


def error_of(number: int, message: str = "It is broken.") -> Record:
    """What went wrong with the number-th item."""
    failure = Failure.of(UnreadableVideoError(message, "Copy it again."))
    return error_record(Question(item_of(number), id_of(number)), failure, SETTINGS)
