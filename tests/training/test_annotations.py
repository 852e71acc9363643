"""Annotations are read strictly: what is no conversation about a video is named, and never left out in silence."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.errors import UsageError
from sfvqa.training.annotations import Example, check_videos, read_annotations
from sfvqa.video import read_clip
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
HERE = ReadOptions(isolated=False)


def turn(speaker: str, value: object) -> dict[str, object]:
    return {"from": speaker, "value": value}


def read(tmp_path: Path, entries: object) -> list[Example]:
    path = tmp_path / "annotations.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read_annotations(path, DEMO)


@pytest.mark.parametrize(
    "opening", ["<image>\nWhat moves?", "What moves?\n<image>", "<video>\nWhat moves?", "What moves?"]
)
def test_a_conversation_shows_its_video_in_front_of_its_first_question(tmp_path: Path, opening: str) -> None:
    said = [turn("human", opening), turn("gpt", " A circle. "), turn("human", "Where?"), turn("gpt", "Left.")]
    found = read(tmp_path, [{"id": "a", "video": "shapes.mp4", "conversations": said}])
    assert found == [Example("a", DEMO / "shapes.mp4", (("What moves?", "A circle."), ("Where?", "Left.")))]


def test_a_system_message_may_come_first(tmp_path: Path) -> None:
    """It was "It has 3 turns", and no conversation of a file with system messages could be learned from."""
    said = [turn("system", " Be brief. "), ASKED, ANSWERED]
    (found,) = read(tmp_path, [{"video": "shapes.mp4", "conversations": said}])
    assert (found.system, found.turns) == ("Be brief.", (("What?", "That."),))


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    assert len(read(tmp_path, "\ufeff" + json.dumps([{"conversations": [turn("human", "Hi"), ANSWERED]}]))) == 1


def test_text_alone_may_be_learned_too(tmp_path: Path) -> None:
    said = [turn("human", "Hello"), turn("gpt", "Hi.")]
    assert read(tmp_path, [{"conversations": said}]) == [Example("0", None, (("Hello", "Hi."),))]


def test_keys_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a start and an end: the whole video is learned from all the same."""
    entry = {"video": "shapes.mp4", "image": None, "conversations": [ASKED, ANSWERED]}
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, [entry | {"start": 2, "video_id": 7}, entry | {"start": 3}])) == 2
    assert "ignored: image (2), start (2), video_id (1)." in caplog.text


ASKED, ANSWERED = turn("human", "<image>\nWhat?"), turn("gpt", "That.")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("text", "It is not an object"),
        (
            {"video": "a.mp4", "conversation": [ASKED, ANSWERED]},
            "'conversation', and no 'conversations'. Rename",
        ),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", "An <image>.")]}, "Answer 1 contains <image>"),
        ({"video": "a.mp4", "conversations": [turn("system", "Be brief."), ASKED]}, "Its last question has no answer"),
        ({"video": "a.mp4", "conversations": [turn("system", "Be brief.")]}, "It has no questions"),
        ({"video": "a.mp4", "conversations": [turn("system", " "), ASKED, ANSWERED]}, "A system message is empty"),
        (
            {"video": "a.mp4", "conversations": [ASKED, turn("system", "x")]},
            "from 'system', where gpt is expected",
        ),
        ({"video": "a.mp4", "conversations": [ASKED, {"role": "gpt"}]}, r"Turn 2 is \{'role': 'gpt'\}"),
        ({"video": "a.mp4"}, "no list of conversations"),
        ({"video": 3, "conversations": [ASKED, ANSWERED]}, "3, not a file name"),
        ({"video": "a.mp4", "conversations": []}, "It has no questions"),
        ({"video": "a.mp4", "conversations": [ASKED]}, "Its last question has no answer"),
        ({"video": "a.mp4", "conversations": [ANSWERED, ASKED]}, "Turn 1 is from 'gpt', where human is expected"),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", None)]}, "Turn 2 says None, which is not text"),
        ({"video": "a.mp4", "conversations": [turn("human", "<image>"), ANSWERED]}, "A question is empty"),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", " ")]}, "An answer is empty"),
        ({"conversations": [ASKED, ANSWERED]}, "places 1 video and has none"),
        # these were once learned as text alone, or with one video of two
        ({"image": "a.jpg", "conversations": [turn("human", "Who?"), ANSWERED]}, "It has image 'a.jpg'"),
        ({"video": "a.mp4", "images": ["a.jpg"], "conversations": [ASKED, ANSWERED]}, "It has images"),
        ({"video": "a.mp4", "videos": ["b.mp4"], "conversations": [ASKED, ANSWERED]}, "It has videos"),
        ({"video_path": "a.mp4", "conversations": [turn("human", "Who?"), ANSWERED]}, "It has video_path"),
        ({"Video": "a.mp4", "conversations": [turn("human", "Who?"), ANSWERED]}, "It has Video"),
        (
            {"video": "a.mp4", "conversations": [turn("human", "<image><image>Who?"), ANSWERED]},
            "places 2 videos",
        ),
        (
            {"video": "a.mp4", "conversations": [turn("human", "Who?"), ANSWERED, ASKED, ANSWERED]},
            "Question 2 contains",
        ),
    ],
)
def test_what_is_no_example_is_named_with_its_place(tmp_path: Path, entry: Any, complaint: str) -> None:
    good = {"id": "good", "video": "shapes.mp4", "conversations": [ASKED, ANSWERED]}
    with pytest.raises(UsageError, match=rf"Entry 1 .*annotations\.json: .*({complaint})"):
        read(tmp_path, [good, entry])


def test_a_file_that_holds_no_annotations_is_refused(tmp_path: Path) -> None:
    deep = "[" * 100_000
    none = "not hold a list of examples"
    for content, complaint in (("{", "cannot be read"), (deep, "cannot be read"), ("{}", none), ("[]", none)):
        with pytest.raises(UsageError, match=complaint):
            read(tmp_path, content)
    with pytest.raises(UsageError, match="There is no annotation file"):
        read_annotations(tmp_path / "none.json", DEMO)


def test_videos_that_cannot_be_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    turns = (("What?", "That."),)
    good, text = Example("a", DEMO / "shapes.mp4", turns), Example("b", None, turns)
    bad = [Example("c", tmp_path / "torn.mp4", turns), Example("d", tmp_path / "none.mp4", turns)]
    examples = [good, *bad, text, bad[0]]
    counted = "2 videos of 3 of 5 examples cannot be read: .*torn.mp4.*none.mp4"
    with pytest.raises(UsageError, match=counted):
        check_videos(examples, SamplingOptions(4), HERE, skip_unreadable=False)
    with caplog.at_level(logging.WARNING):
        kept = check_videos(examples, SamplingOptions(4), HERE, skip_unreadable=True)
    clip = read_clip(DEMO / "shapes.mp4", SamplingOptions(4))
    times, seconds = clip.timestamps_seconds, clip.video.duration_seconds
    assert kept == [replace(good, timestamps_seconds=times, duration_seconds=seconds), text]
    (scenes,) = check_videos([good], SamplingOptions(4, SamplingStrategy.SCENE), HERE, skip_unreadable=False)
    assert scenes.timestamps_seconds is None
    assert "2 videos of 3 of 5 examples cannot be read; these examples are left out" in caplog.text
    with pytest.raises(UsageError, match="1 video of 1 of 1 example cannot"):
        check_videos(bad[:1], SamplingOptions(4), HERE, skip_unreadable=True)
