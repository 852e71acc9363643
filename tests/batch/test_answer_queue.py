"""The queue of questions: who is answered together, and when."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfvqa import EncodedVideo
from sfvqa.batch.answer_queue import AnswerQueue, SeenVideo
from sfvqa.batch.item import Item, Question, group_items
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.video_ahead import Attempt
from sfvqa.batch.watchdog import Watchdog
from sfvqa.inference.question import PromptOptions
from sfvqa.model import VisualTokens
from sfvqa.video import CropMode, SamplingStrategy, VideoInfo
from tests.batch.answerer import FakeAnswerer


def queue_for(options: BatchOptions) -> AnswerQueue:
    return AnswerQueue(FakeAnswerer(), options, Watchdog(60, lambda _questions, _error: None))


def arrive(queue: AnswerQueue, name: str, *questions: str, num_slow: int = 100, **of_items: Any) -> SeenVideo:
    """Have a video come, seen whole, with its questions."""
    items = [Item(Path(name), name, question, **of_items) for question in questions]
    encoded = EncodedVideo(
        visual_tokens=VisualTokens(torch.zeros(num_slow, 1), torch.zeros(4, 1)),
        indices=(0,),
        timestamps_seconds=(0.0,),
        strategy=SamplingStrategy.UNIFORM,
        reader="pyav",
        crop=CropMode.CENTER,
        video=VideoInfo.__new__(VideoInfo),  # of no matter here
        warnings=(),
        read_seconds=0.0,
        encode_seconds=0.0,
    )
    video = SeenVideo(Attempt(group_items(items)[0]), encoded, PromptOptions())
    queue.add(video, [Question(item, f"{name} {item.question}") for item in items])
    return video


def taken(queue: AnswerQueue, batch_size: int) -> list[str]:
    queue.batch_size = batch_size
    return [each.question.item_id for each in queue.take()]


def is_due(queue: AnswerQueue, batch_size: int) -> bool:
    queue.batch_size = batch_size
    return queue.is_due


def test_short_videos_are_answered_together_once_there_are_enough() -> None:
    queue = queue_for(BatchOptions())
    for name in "abc":
        arrive(queue, name, "1?")
    assert not is_due(queue, 4)
    arrive(queue, "d", "1?")
    assert is_due(queue, 4)
    assert taken(queue, 4) == ["a 1?", "b 1?", "c 1?", "d 1?"]
    assert not queue
    assert not is_due(queue, 1)


def test_a_video_is_parted_only_when_it_must_be() -> None:
    queue = queue_for(BatchOptions())
    arrive(queue, "a", "1?", "2?", "3?")
    arrive(queue, "b", "1?", "2?", "3?")
    arrive(queue, "c", *[f"{number}?" for number in range(6)])
    assert taken(queue, 4) == ["a 1?", "a 2?", "a 3?"]
    assert taken(queue, 6) == ["b 1?", "b 2?", "b 3?"]
    assert taken(queue, 4) == ["c 0?", "c 1?", "c 2?", "c 3?"]
    assert taken(queue, 4) == ["c 4?", "c 5?"]


def test_only_videos_of_like_length_are_padded_to_each_other() -> None:
    queue = queue_for(BatchOptions())
    for name, num_slow in [("a", 100), ("b", 126), ("c", 125), ("d", 79), ("e", 80)]:
        arrive(queue, name, "1?", num_slow=num_slow)
    assert taken(queue, 8) == ["a 1?", "c 1?", "e 1?"]
    assert taken(queue, 8) == ["b 1?"]
    assert taken(queue, 8) == ["d 1?"]


def test_other_choices_and_other_subtitles_are_answered_apart() -> None:
    queue = queue_for(BatchOptions(choices=("yes", "no")))
    arrive(queue, "a", "1?")
    arrive(queue, "b", "1?", choices=("left", "right"))
    arrive(queue, "c", "1?", choices=("yes", "no"))
    video = arrive(queue, "d", "1?")
    video.prompt = replace(video.prompt, system="Be brief.")
    assert taken(queue, 8) == ["a 1?", "c 1?"]
    assert taken(queue, 8) == ["b 1?"]
    assert taken(queue, 8) == ["d 1?"]


def test_nothing_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("sfvqa.batch.answer_queue.time.monotonic", lambda: now)
    queue = queue_for(BatchOptions())
    arrive(queue, "a", "1?")
    now += 6
    arrive(queue, "b", "1?")
    assert not is_due(queue, 8)
    now += 6
    assert is_due(queue, 8)
    assert taken(queue, 8) == ["a 1?", "b 1?"]
