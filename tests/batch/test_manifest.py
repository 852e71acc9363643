"""What a manifest may say and in which ways, and that every line that cannot be meant is told, and none is asked."""

import csv
import io
import json
import ntpath
import os
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfvqa.batch import manifest
from sfvqa.batch.find_videos import gather_items
from sfvqa.batch.item import Item
from sfvqa.batch.manifest import read_manifest
from sfvqa.batch.record import to_line
from sfvqa.errors import UsageError
from tests.batch.made import ok_of
from tests.windows import needs_links, needs_pipes

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10).map(str.strip).filter(bool)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, content: str | bytes, *questions: str, notices: list[str] | None = None) -> list[Item]:
    path = folder / "manifest"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manifest(path, questions, notices)


def problems_of(folder: Path, content: str | bytes, *questions: str) -> str:
    with pytest.raises(UsageError) as raised:
        read(folder, content, *questions)
    return raised.value.message


def test_a_line_of_json_with_everything(folder: Path) -> None:
    line = {
        "video": "in/a.mp4", "question": " Which? ", "id": 7, "start": "1:30", "end": 100, "choices": ["red", 2],
        "answer": 2, "group": "hard",
    }  # fmt: skip
    notices: list[str] = []
    assert read(folder, json.dumps(line), notices=notices) == [
        Item(folder / "in/a.mp4", "in/a.mp4", "Which?", "7", 90.0, 100.0, ("red", "2"), "2", "hard")
    ]
    assert notices == []


@needs_links
def test_a_way_back_out_of_a_linked_folder_is_not_shortened(folder: Path) -> None:
    """The two names were one, so their items shared an id, and the second record was refused in the night."""
    (folder / "far" / "in").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "far" / "in")
    items = read(folder, '{"video": "a", "question": "Q"}\n{"video": "link/../a", "question": "Q"}')
    assert [item.name for item in items] == ["a", "link/../a"]


def test_true_fields_are_columns_or_an_object(folder: Path) -> None:
    """Their names keep their case; what is empty is not given."""
    notices: list[str] = []
    (by_column,) = read(folder, "video,question,Fields.Colour,fields.box.x\na,Q,red,2\n", notices=notices)
    line = {"video": "a", "question": "Q", "fields": {"Colour": "red", "box": {"x": 2}, "none": None, "": ""}}
    (by_object,) = read(folder, json.dumps(line), notices=notices)
    assert by_column.fields == by_object.fields == (("Colour", "red"), ("box.x", "2"))
    assert notices == []
    (without,) = read(folder, "video,question,fields.colour\na,Q,\n")
    assert without.fields == ()
    assert "not an object" in problems_of(folder, '{"video": "a", "question": "Q", "fields": ["red"]}')
    assert "another answer" in problems_of(folder, "video,question,fields.a\nv,Q,1\nv,Q,2\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_row_of_csv_with_everything(delimiter: str, folder: Path) -> None:
    header = ["Video", "question", "id", "start", "end", "choices", "answer", " group "]
    cells = ["a b.mp4", "Which one, then?", "007", "1:30", "100.5", 'red, "red, then blue"', "red", "hard"]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, cells])
    assert read(folder, text.getvalue()) == [
        Item(folder / "a b.mp4", "a b.mp4", cells[1], "007", 90.0, 100.5, ("red", "red, then blue"), "red", "hard")
    ]


@pytest.mark.parametrize(
    "content",
    [
        '{"video": "a", "question": "Q"}\n{"video": "b", "question": "R"}\n',
        '\ufeff{"video": "a", "question": "Q"}\r\n\r\n   \n{"video": "b", "question": "R", "id": null, "answer": ""}',
        "video,question\na,Q\nb,R\n",
        "\ufeff\r\nvideo,question,id\r\n\r\na,Q,\r\n,,\r\nb,R",
        "question; video\nQ; a\nR; b\n",
        "video\tquestion\na\tQ\nb\tR\n".encode("utf-16"),
    ],
)  # fmt: skip
def test_marks_line_ends_and_empty_lines_do_not_matter(content: str | bytes, folder: Path) -> None:
    assert [(item.name, item.question) for item in read(folder, content)] == [("a", "Q"), ("b", "R")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(NAMES, WORDS, min_size=1, max_size=5))
def test_any_name_and_question_survives(tmp_path: Path, asked: dict[bytes, str]) -> None:
    """As JSON with escapes, as JSON with the bytes themselves, and as CSV."""
    pairs = [(os.fsdecode(name), question) for name, question in asked.items()]
    lines = [json.dumps({"video": video, "question": question}) for video, question in pairs]
    raw = [json.dumps({"video": video, "question": question}, ensure_ascii=False) for video, question in pairs]
    for content in ("\n".join(lines), "\n".join(raw)):
        items = read(tmp_path, content.encode("utf-8", "surrogateescape"))
        assert [(os.fsencode(item.name), item.question) for item in items] == list(asked.items())
        assert [item.video for item in items] == [tmp_path / video for video, _ in pairs]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("video", "question"), *pairs])
    items = read(tmp_path, text.getvalue().encode("utf-8", "surrogateescape"))
    assert [(os.fsencode(item.name), item.question) for item in items] == list(asked.items())


def test_a_line_without_a_question_takes_each_of_the_commands(folder: Path) -> None:
    content = '{"video": "a", "id": "x"}\n{"video": "b", "question": "Own?"}\n'
    notices: list[str] = []
    items = read(folder, content, "One?", "Two?", notices=notices)
    assert [(item.name, item.question, item.own_id) for item in items] == [
        ("a", "One?", "x"), ("a", "Two?", "x"), ("b", "Own?", None),
    ]  # fmt: skip
    assert notices == []
    assert "line 1: it has no question, and none was given with --question" in problems_of(folder, content)


def test_questions_that_no_line_takes_are_told(folder: Path) -> None:
    notices: list[str] = []
    read(folder, '{"video": "b", "question": "Own?"}', "One?", notices=notices)
    assert "those of --question are not asked" in notices[0]


def test_names_are_relative_to_the_folder_of_the_manifest(folder: Path) -> None:
    outside = "/somewhere/else/c.mp4"
    videos = ["./in//x/../a.mp4", str(folder / "in" / "b.mp4"), outside, "../d.mp4"]
    items = read(folder, "\n".join(json.dumps({"video": video, "question": "Q"}) for video in videos))
    assert [item.name for item in items] == ["in/a.mp4", "in/b.mp4", outside, "../d.mp4"]
    assert [item.video for item in items[:2]] == [folder / "in/x/../a.mp4", folder / "in/b.mp4"]


def test_names_do_not_depend_on_where_it_is_read_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lists").mkdir()
    line = json.dumps({"video": str(folder / "lists" / "a.mp4"), "question": "Q"})
    (folder / "lists" / "m.jsonl").write_text(line + '\n{"video": "b.mp4", "question": "Q"}')
    monkeypatch.chdir(folder)
    for source in ("lists/m.jsonl", str(folder / "lists" / "m.jsonl")):
        items = read_manifest(source)
        assert [item.name for item in items] == ["a.mp4", "b.mp4"]
        assert all(item.video.parent.absolute() == folder / "lists" for item in items)


def test_one_line_that_cannot_be_used_is_told_in_the_singular(folder: Path) -> None:
    said = problems_of(folder, '{"video": "a", "question": "Q"}\n{"video": 3, "question": "Q"}')
    assert said == f"1 line of “{folder}/manifest” cannot be used: line 2: its video is not a path: 3."


def test_a_header_that_is_no_text_is_shown_in_short(folder: Path) -> None:
    said = problems_of(folder, b"\xe9" * 5000 + b",b" * 50 + b"\n")
    assert len(said) < 200 + len(str(folder))
    assert said.endswith("….")


def test_what_is_not_there_is_said_before_a_question_is_asked_for(folder: Path) -> None:
    """It may be a manifest's name, misspelt."""
    with pytest.raises(UsageError, match="There is no"):
        gather_items(str(folder / "manifset.csv"), [])


@needs_pipes
def test_a_manifest_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.batch.manifest._MOST_BYTES", 5_000_000)
    with pytest.raises(UsageError, match=r"There is more than 5\.0 MB in “/dev/zero”"):
        read_manifest("/dev/zero")


def test_standard_input_is_relative_to_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"video": "a.mp4", "question": "Q"}')))
    assert read_manifest("-") == [Item(Path("a.mp4"), "a.mp4", "Q")]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="Nothing is connected to standard input"):
        read_manifest("-")


@needs_pipes
def test_a_pipe_is_relative_to_here_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell's `<(…)` gives one."""
    monkeypatch.chdir(folder)
    ours, theirs = os.pipe()
    os.write(theirs, b"video\na.mp4\n")
    os.close(theirs)
    assert gather_items(f"/dev/fd/{ours}", ["Q"]) == [Item(Path("a.mp4"), "a.mp4", "Q")]
    os.close(ours)


def test_names_in_a_manifest_of_windows_have_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that records of one system are compared with those of another."""
    monkeypatch.setattr(manifest, "Path", PureWindowsPath)
    monkeypatch.setattr(manifest, "os", SimpleNamespace(path=ntpath))
    video, name = manifest._video(r"clips\.\one\a.mp4", PureWindowsPath("D:/m"))  # type: ignore[arg-type]
    assert (str(video), name) == (r"D:\m\clips\one\a.mp4", "clips/one/a.mp4")


def test_unknown_fields_are_named(folder: Path) -> None:
    notices: list[str] = []
    read(
        folder,
        '{"video": "a", "question": "Q", "subject": 1}\n{"video": "b", "question": "Q", "anwser": "x"}',
        notices=notices,
    )
    assert notices == [f"Unknown fields of “{folder}/manifest” are ignored: anwser, subject."]


def test_a_line_that_repeats_another_is_left_out_and_told(folder: Path) -> None:
    line = '{"video": "a", "question": "Q", "answer": "x"}\n'
    notices: list[str] = []
    assert len(read(folder, line + line + line.replace('"a"', '"./a"'), notices=notices)) == 1
    assert notices == [f"Skipped lines of “{folder}/manifest” that repeat another: 2."]


def test_one_video_written_in_two_ways_is_one_item(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both had the same item id, so that the batch broke off when the second was to be kept."""
    monkeypatch.chdir(folder)
    (folder / "b").mkdir()
    videos = ["a", "b/../a", str(folder / "a")]
    content = "".join(json.dumps({"video": video, "question": "Q"}) + "\n" for video in videos)
    Path("manifest").write_text(content, encoding="utf-8")
    assert [item.name for item in read_manifest("manifest")] == ["a"]
    with pytest.raises(UsageError, match="it repeats line 1 with another answer or group"):
        read(folder, '{"video": "a", "question": "Q"}\n{"video": "b/../a", "question": "Q", "answer": "x"}')


def test_the_same_question_with_ids_of_its_own_is_asked_twice(folder: Path) -> None:
    content = '{"video": "a", "question": "Q", "id": 1}\n{"video": "a", "question": "Q", "id": 2}'
    assert len(read(folder, content)) == 2


def test_a_true_answer_that_is_no_choice_is_told(folder: Path) -> None:
    notices: list[str] = []
    read(folder, '{"video": "a", "question": "Q", "choices": "x,y", "answer": "z"}', notices=notices)
    assert notices == ["Items whose true answer is not among their choices: 1."]


@pytest.mark.parametrize("answer", ["B", "(b)", "Y.", "y"])
def test_a_true_answer_that_the_report_takes_for_a_choice_is_none_to_be_told_of(folder: Path, answer: str) -> None:
    """Benchmarks name choices by letters, and every one of their items was said to be odd."""
    notices: list[str] = []
    read(folder, json.dumps({"video": "a", "question": "Q", "choices": "x,y", "answer": answer}), notices=notices)
    assert notices == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "it has no video"),
        ({"video": 7}, "its video is not a path: 7"),
        ({"video": "a\0b"}, "its video is not a path"),
        ({"video": "http://example.org/a"}, "“http://example.org/a” is a URL, and only local files are read"),
        ({"video": "a", "question": " "}, "a question is empty"),
        ({"video": "a", "question": ["Q"]}, "its question is not text: ['Q']"),
        ({"video": "a", "id": True}, "its id is not text: True"),
        ({"video": "a", "start": "soon"}, "“soon” is not a time"),
        ({"video": "a", "start": True}, "its start is not a time: True"),
        ({"video": "a", "start": -1}, "the start of the range is -1.0 seconds"),
        ({"video": "a", "start": 1e999}, "the start of the range is inf seconds"),
        ({"video": "a", "end": int("9" * 400)}, "its end is not a time: 99999"),
        ({"video": "a", "end": [1]}, "its end is not a time: [1]"),
        ({"video": "a", "start": "1:30", "end": 90}, "the range ends at 1:30, not after its start"),
        ({"video": "a", "choices": ["x"]}, "there is nothing to choose from: 1 choice"),
        ({"video": "a", "choices": "x,x"}, "the choice 'x' is given more than once"),
        ({"video": "a", "choices": 'x,"y'}, "its choices cannot be read"),
        ({"video": "a", "choices": {"A": "x"}}, "its choices are not a list: {'A': 'x'}"),
        ({"video": "a", "choices": ["x", None]}, "a choice is empty"),
        ({"video": "a", "answer": {"a": 1}}, "its answer is not text"),
        ({"video": "a", "group": "\udcff"}, "the group '\\udcff' is not valid UTF-8"),
    ],
)
def test_what_cannot_be_meant(fields: dict[str, object], problem: str, folder: Path) -> None:
    good = {"video": "good", "question": "Q"}
    content = json.dumps(good) + "\n" + json.dumps({"question": "Q", **fields})
    assert f"cannot be used: line 2: {problem}" in problems_of(folder, content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"video": "a"\n', "line 1: it is not valid JSON ("),
        ('{"video": "a", "question": "Q"}\n\n["a"]', "line 3: it is not a JSON object"),
        ('{"video": "a", "question": "Q", "video": "b"}', "line 1: it is not valid JSON (a field is given"),
        ("video,question\na,Q,more\n", "line 2: it has 3 cells under a header of 2"),
        ('video,question\n"a\nb",Q\n"c"d,Q\n', "line 4: it is not valid CSV ("),
        ('video,question\na,"Q\n', "line 2: it is not valid CSV (unexpected end of data)"),
        ("name,question\na,Q\n", "has no column “video”: name, question"),
        ("video,id,ID\n", "has “id” more than once"),
        ('[{"video": "a"}]', "is one JSON list"),
        ("", "There are no lines in"),
        ("\ufeff \n", "There are no lines in"),
        ("video,question\n", "There are no lines in"),
    ],
)  # fmt: skip
def test_what_is_no_manifest(content: str, problem: str, folder: Path) -> None:
    assert problem in problems_of(folder, content)


def test_ids_that_come_twice_and_labels_that_contradict(folder: Path) -> None:
    lines = [
        {"video": "a", "question": "Q", "id": 1}, {"video": "b", "question": "Q", "id": "1"},
        {"video": "c", "question": "Q", "answer": "x"}, {"video": "c", "question": "Q", "answer": "y"},
    ]  # fmt: skip
    message = problems_of(folder, "\n".join(map(json.dumps, lines)))
    assert "line 2: its id “1” is that of line 1; " in message
    assert "line 4: it repeats line 3 with another answer or group" in message


def test_every_faulty_line_is_counted_and_ten_are_named(folder: Path) -> None:
    message = problems_of(folder, '{"video": "a", "question": "Q"}\n' + "no\n" * 12)
    assert message.startswith(f"12 lines of “{folder}/manifest” cannot be used: line 2: it is not valid JSON")
    assert "line 11: " in message
    assert message.endswith("; and 2 more.")
    assert "line 12" not in message


def test_a_manifest_that_cannot_be_read(folder: Path) -> None:
    assert "is not valid UTF-16" in problems_of(folder, b"\xff\xfev")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_manifest(folder / "absent.jsonl")


def test_records_are_no_manifest(folder: Path) -> None:
    """What the model said would be taken for the true answers."""
    manifest = folder / "out.jsonl"
    manifest.write_bytes(to_line(ok_of(0)))
    with pytest.raises(UsageError, match="are the records of a batch"):
        read_manifest(manifest)
