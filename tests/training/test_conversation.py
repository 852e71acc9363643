"""The forms in which people have rows mean the same conversation."""

from typing import Any

import pytest

from sfvqa.errors import UsageError
from sfvqa.training.conversation import Conversation, read_conversation

LLAVA = [{"from": "human", "value": "<image>\nWhat moves?"}, {"from": "gpt", "value": "A circle."}]
CHAT = [{"role": "user", "content": "<video>What moves?"}, {"role": "assistant", "content": "A circle."}]
TEXT = {"type": "text", "text": "What moves?"}


def in_parts(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts]}, {"role": "assistant", "content": [{**TEXT, "text": "A circle."}]}]


@pytest.mark.parametrize(
    "row",
    [
        {"video": "a.mp4", "conversations": LLAVA},
        {"image": "a.mp4", "video": None, "conversations": LLAVA},
        {"image": ["a.mp4"], "images": [], "conversations": LLAVA},
        {"videos": ["a.mp4"], "messages": CHAT},
        {"images": ["a.mp4"], "conversations": CHAT},
        {"videos": ["a.mp4"], "messages": LLAVA},
        {"messages": in_parts({"type": "video", "video": "a.mp4"}, TEXT)},
        {"messages": in_parts(TEXT, {"type": "image", "path": "a.mp4"})},
        {"messages": in_parts({"type": "image_url", "image_url": {"url": "a.mp4"}}, TEXT)},
        {"messages": in_parts({"type": "video"}, TEXT), "videos": ["a.mp4"]},
    ],
)
def test_a_video_or_picture_is_shown_in_each_form(row: dict[str, Any]) -> None:
    assert read_conversation(row) == Conversation("a.mp4", (("What moves?", "A circle."),), None, ())


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be brief.", "conversations": LLAVA},
        {"system": "", "conversations": [{"from": "system", "value": "Be brief."}, *LLAVA]},
        {"messages": [{"role": "system", "content": "Be brief."}, *CHAT]},
    ],
)
def test_a_system_message_is_a_turn_or_a_key(row: dict[str, Any]) -> None:
    read = read_conversation(row | {"video": "a.mp4"})
    assert (read.system, read.turns, read.ignored) == ("Be brief.", (("What moves?", "A circle."),), ())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "video": 3},
        {"type": "video_url", "video_url": {}},
        {"type": "video", "video": "a.mp4", "path": "b.mp4"},
        {"type": "input_audio", "input_audio": {}},
        {"type": "text"},
        "text",
    ],
)
def test_a_part_that_is_none_is_refused(part: Any) -> None:
    with pytest.raises(UsageError, match="Turn 1 has the part"):
        read_conversation({"messages": in_parts(part, TEXT)})


def test_two_videos_among_the_parts_are_refused() -> None:
    parts = [{"type": "video", "video": name} for name in ("a.mp4", "b.mp4")]
    with pytest.raises(UsageError, match=r"shows 2 videos or images: a\.mp4, b\.mp4\. A row shows one"):
        read_conversation({"messages": in_parts(*parts, TEXT)})
