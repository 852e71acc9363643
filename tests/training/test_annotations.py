"""Annotations are read strictly: what is no conversation about a video is named, and never left out in silence."""

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.errors import UsageError
from sfvqa.training.annotations import Example, Source, check_videos, read_annotations, read_sources
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
    assert read(tmp_path, [{"conversations": said}]) == [Example("1", None, (("Hello", "Hi."),))]


def test_keys_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a start and an end: the whole video is learned from all the same."""
    entry = {"video": "shapes.mp4", "image": None, "conversations": [ASKED, ANSWERED]}
    weighed = entry | {"conversations": [ASKED, ANSWERED | {"weight": 0}]}
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, [entry | {"start": 2, "video_id": 7}, entry | {"start": 3}, weighed])) == 3
    assert "ignored: conversations.weight (1), start (2), video_id (1)." in caplog.text


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
            "Turn 2 is a system message, where an answer is expected",
        ),
        ({"video": "a.mp4", "conversations": [ASKED, {"role": "gpt"}]}, r"Turn 2 is \{'role': 'gpt'\}"),
        ({"video": "a.mp4", "conversations": [ASKED, turn("tool", "x")]}, "Turn 2 is from 'tool'"),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", ["x"])]}, "Turn 2 has the part 'x'"),
        ({"video": "a.mp4", "conversations": "Who?"}, "Its conversations are 'Who\\?', not a list"),
        ({"conversations": [ASKED, ANSWERED], "messages": [ASKED, ANSWERED]}, "both conversations and messages"),
        (
            {"system": "Be brief.", "conversations": [turn("system", "Be brief."), ASKED, ANSWERED]},
            "two system messages",
        ),
        ({"video": "a.mp4"}, "no list of conversations"),
        ({"video": 3, "conversations": [ASKED, ANSWERED]}, "3, not a file name"),
        ({"video": "a.mp4", "conversations": []}, "It has no questions"),
        ({"video": "a.mp4", "conversations": [ASKED]}, "Its last question has no answer"),
        (
            {"video": "a.mp4", "conversations": [ANSWERED, ASKED]},
            "Turn 1 is an answer, where a question is expected",
        ),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", None)]}, "Turn 2 says None, which is not text"),
        ({"video": "a.mp4", "conversations": [turn("human", "<image>"), ANSWERED]}, "A question is empty"),
        ({"video": "a.mp4", "conversations": [ASKED, turn("gpt", " ")]}, "An answer is empty"),
        ({"conversations": [ASKED, ANSWERED]}, "places 1 video and has none"),
        # these were once learned as text alone, or with one video of two
        (
            {"video": "a.mp4", "images": ["a.jpg"], "conversations": [ASKED, ANSWERED]},
            r"shows 2 videos or images: a\.mp4, a\.jpg. A row shows one",
        ),
        ({"videos": ["a.mp4", "b.mp4"], "conversations": [ASKED, ANSWERED]}, "shows 2 videos"),
        ({"videos": [["a.jpg", "b.jpg"]], "conversations": [ASKED, ANSWERED]}, r"Its videos is \['a.jpg', 'b.jpg'\]"),
        ({"image": "", "conversations": [turn("human", "Who?"), ANSWERED]}, "Its image is '', not a file name"),
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
    with pytest.raises(UsageError, match=rf"Entry 2 .*annotations\.json: .*({complaint})"):
        read(tmp_path, [good, entry])


def test_a_file_that_holds_no_annotations_is_refused(tmp_path: Path) -> None:
    deep, object_alone = "[" * 100_000, '{\n"rows":\n[]\n}'
    refused = [
        ("[{]", r"cannot be read: It is not JSON: .*, at column 3"),
        (deep, "cannot be read: .*recursion"),
        ("[" + "9" * 10_000 + "]", "cannot be read: .*4300 digits"),
        (object_alone, "holds one object, not a list of rows"),
        ("[]", "holds no rows"),
        ("\n", "holds no rows"),
        ("{", r"Line 1 of .*: It is not JSON: .* at column 2"),
    ]
    for content, complaint in refused:
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


ROW = {"id": "a", "video": "shapes.mp4", "conversations": [ASKED, ANSWERED]}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.json", "rows"])
def test_a_file_is_read_by_what_it_holds_whatever_its_name(tmp_path: Path, name: str) -> None:
    """Both kinds are found under both names."""
    path = tmp_path / name
    path.write_text(json.dumps([ROW, ROW], indent=1))
    listed = read_annotations(path, DEMO)
    path.write_text(f"\n{json.dumps(ROW)}\r\n\n{json.dumps(ROW)}")
    lines = read_annotations(path, DEMO)
    assert listed == lines
    assert [str(each.place) for each in listed] == [f"Entry {number} (a) of {path}" for number in (1, 2)]
    assert [str(each.place) for each in lines] == [f"Line {number} (a) of {path}" for number in (2, 4)]


def test_the_first_bad_row_is_named_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Entry 2 \(a\) .* 1 more row of it cannot be read: list them with --check\."):
        read(tmp_path, [ROW, ROW | {"video": 3}, ROW | {"video": 4}])


def test_a_file_is_learned_from_as_often_as_it_weighs(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path in paths:
        path.write_text(json.dumps([ROW | {"id": f"{path.stem}{number}"} for number in range(10)]))
    sources = [Source(paths[0]), Source(paths[1], 2.3), Source(paths[2], 0.5)]
    drawn = read_sources(sources, DEMO, seed=0)
    counts = Counter(example.name for example in drawn)
    assert [sum(count for name, count in counts.items() if name[0] == stem) for stem in "abc"] == [10, 23, 5]
    assert {count for name, count in counts.items() if name[0] == "b"} == {2, 3}
    assert {count for name, count in counts.items() if name[0] == "c"} == {1}
    assert read_sources(sources, DEMO, seed=0) == drawn
    assert read_sources(sources, DEMO, seed=1) != drawn
    with pytest.raises(UsageError, match=r"0\.01 leaves none of 10 rows"):
        read_sources([Source(paths[0], 0.01)], DEMO, seed=0)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a.json", Source(Path("a.json"))),
        ("a.json:0.5", Source(Path("a.json"), 0.5)),
        ("C:\\a.json", Source(Path("C:\\a.json"))),
        ("C:\\a.json:2", Source(Path("C:\\a.json"), 2)),
        ("a.json:b", Source(Path("a.json:b"))),
    ],
)
def test_a_weight_stands_behind_a_colon(text: str, source: Source) -> None:
    assert Source.parse(text) == source
    assert Source.parse(str(source)) == source


@pytest.mark.parametrize("text", ["a.json:0", "a.json:-1"])
def test_a_weight_is_above_zero(text: str) -> None:
    with pytest.raises(UsageError, match=r"The weight of a\.json is"):
        Source.parse(text)
