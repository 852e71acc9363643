"""The waiting room: who is answered together, and when."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfvqa import EncodedVideo
from sfvqa.batch.group import group_items
from sfvqa.batch.item import Item
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.video_ahead import Question
from sfvqa.batch.waiting import WaitingRoom, WholeVideo
from sfvqa.batch.work import Work
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.model import VisualTokens
from sfvqa.video import CropMode, SamplingStrategy, VideoInfo


def arrive(room: WaitingRoom, name: str, *questions: str, num_slow: int = 100, **of_items: Any) -> WholeVideo:
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
    video = WholeVideo(Work(group_items(items)[0]), encoded, PromptOptions())
    room.add(video, [Question(item, f"{name} {item.question}") for item in items])
    return video


def taken(room: WaitingRoom, batch_size: int) -> list[str]:
    return [each.question.item_id for each in room.take(batch_size)]


def test_short_videos_are_answered_together_once_there_are_enough() -> None:
    room = WaitingRoom(BatchOptions())
    for name in "abc":
        arrive(room, name, "1?")
    assert not room.is_due(4)
    arrive(room, "d", "1?")
    assert room.is_due(4)
    assert taken(room, 4) == ["a 1?", "b 1?", "c 1?", "d 1?"]
    assert not room
    assert not room.is_due(1)


def test_a_video_is_parted_only_when_it_must_be() -> None:
    room = WaitingRoom(BatchOptions())
    arrive(room, "a", "1?", "2?", "3?")
    arrive(room, "b", "1?", "2?", "3?")
    arrive(room, "c", *[f"{number}?" for number in range(6)])
    assert taken(room, 4) == ["a 1?", "a 2?", "a 3?"]
    assert taken(room, 6) == ["b 1?", "b 2?", "b 3?"]
    assert taken(room, 4) == ["c 0?", "c 1?", "c 2?", "c 3?"]
    assert taken(room, 4) == ["c 4?", "c 5?"]


def test_only_videos_of_like_length_are_padded_to_each_other() -> None:
    room = WaitingRoom(BatchOptions())
    for name, num_slow in [("a", 100), ("b", 126), ("c", 125), ("d", 79), ("e", 80)]:
        arrive(room, name, "1?", num_slow=num_slow)
    assert taken(room, 8) == ["a 1?", "c 1?", "e 1?"]
    assert taken(room, 8) == ["b 1?"]
    assert taken(room, 8) == ["d 1?"]


def test_other_choices_and_other_subtitles_are_answered_apart() -> None:
    room = WaitingRoom(BatchOptions(choices=("yes", "no")))
    arrive(room, "a", "1?")
    arrive(room, "b", "1?", choices=("left", "right"))
    arrive(room, "c", "1?", choices=("yes", "no"))
    video = arrive(room, "d", "1?")
    video.prompt = replace(video.prompt, system="Be brief.")
    assert taken(room, 8) == ["a 1?", "c 1?"]
    assert taken(room, 8) == ["b 1?"]
    assert taken(room, 8) == ["d 1?"]


def test_nothing_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("sfvqa.batch.waiting.time.monotonic", lambda: now)
    room = WaitingRoom(BatchOptions())
    arrive(room, "a", "1?")
    now += 6
    arrive(room, "b", "1?")
    assert not room.is_due(8)
    now += 6
    assert room.is_due(8)
    assert taken(room, 8) == ["a 1?", "b 1?"]
