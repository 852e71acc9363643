"""`--check` names every row that is wrong, with its file, its place, and what to do; and loads no model."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sfvqa
from sfvqa.checkpoints import load
from sfvqa.training.finetune import main

DEMO = Path(sfvqa.__file__).parent / "assets" / "demo"
ASKED, ANSWERED = {"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}
SAID = [ASKED, ANSWERED]
GOOD: dict[str, Any] = {"id": "good", "conversations": SAID}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video, one picture, and things that are none."""
    folder = tmp_path_factory.mktemp("videos")
    shutil.copy(DEMO / "flash.mp4", folder / "whole.mp4")
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.")
    (folder / "nothing").mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:60])
    return folder


def said(*values: Any) -> list[dict[str, Any]]:
    return [{"from": who, "value": value} for who, value in zip(("human", "gpt") * 2, values, strict=False)]


def lines(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


BAD_ROWS: dict[str, tuple[Any, str, str]] = {
    "torn line": ('{"id": "bad", "conversations": [', "It is not JSON: Expecting value, at column", "Correct it"),
    "single quotes": ("{'id': 'bad'}", "It is not JSON: .*double quotes, at column 2", "JSON library"),
    "no object": ('"bad"', "It is not an object", "Write"),
    "key twice": ('{"video": "a.mp4", "video": "b.mp4"}', "the key 'video' twice", "make two rows"),
    "misspelt key": ({"id": "bad", "conversation": SAID}, "'conversation', and no 'conversations'", "Rename it"),
    "key of a turn twice": (
        '{"conversations": [{"from": "human", "value": "What?", "value": "Who?"}]}',
        "the key 'value' twice",
        "Leave out one",
    ),
    "no turns": ({"id": "bad", "conversations": []}, "It has no questions", "Give it turns"),
    "no answer": ({"id": "bad", "conversations": [ASKED]}, "last question has no answer", "leave out the question"),
    "wrong order": ({"id": "bad", "conversations": SAID[::-1]}, "Turn 1 is an answer, where a question", "alternate"),
    "a tool": ({"id": "bad", "messages": [ASKED, {"role": "tool", "content": "x"}]}, "Turn 2 is from 'tool'", "Write"),
    "no text": ({"id": "bad", "conversations": said("What?", None)}, "Turn 2 says None", "Write"),
    "empty answer": ({"id": "bad", "conversations": said("What?", " ")}, "An answer is empty", "Leave out questions"),
    "late system": (
        {"id": "bad", "conversations": [*SAID, {"from": "system", "value": "Be brief."}, ANSWERED]},
        "Turn 3 is a system message, where a question is expected",
        "a system message comes first",
    ),
    "no video to place": ({"id": "bad", "conversations": said("<video>What?", "That.")}, "has none", "at most once"),
    "late placeholder": (
        {"id": "bad", "video": "whole.mp4", "conversations": said("What?", "That.", "<image>And?", "No.")},
        "Question 2 contains <image>",
        "in the first question alone",
    ),
    "two videos": (
        {"id": "bad", "videos": ["whole.mp4", "cut.mp4"], "conversations": SAID},
        r"shows 2 videos or images: whole\.mp4, cut\.mp4",
        "a row of its own",
    ),
    "video and image": (
        {"id": "bad", "video": "whole.mp4", "image": "whole.png", "conversations": SAID},
        "shows 2 videos or images",
        "A row shows one",
    ),
    "other key": ({"id": "bad", "video_path": "whole.mp4", "conversations": SAID}, "It has video_path", "Rename it to"),
    "missing": ({"id": "bad", "video": "gone.mp4", "conversations": SAID}, r"no file “.*gone\.mp4”", "Check the path"),
    "no name": ({"id": "bad", "video": "\ud800.mp4", "conversations": SAID}, r"no file “.*\.mp4”", "Check the path"),
    "address": (
        {"id": "bad", "video": "https://example.com/a.mp4", "conversations": SAID},
        "shows 'https://example.com/a.mp4', and only local files",
        "Save it to a file",
    ),
    "data": (
        {"id": "bad", "image": "data:image/png;base64," + "A" * 100_000, "conversations": SAID},
        "shows 'data:image.{,80}…, and only local files",
        "Save it to a file",
    ),
    "zero bytes": ({"id": "bad", "video": "empty.mp4", "conversations": SAID}, "is empty", "Copy or download"),
    "no video": ({"id": "bad", "video": "text.mp4", "conversations": SAID}, "it is text", "Give the path of a video"),
    "damaged picture": ({"id": "bad", "image": "cut.png", "conversations": SAID}, "cut.png” cannot be read", "Copy"),
    "empty folder": (
        {"id": "bad", "video": "nothing", "conversations": SAID},
        "holds no images",
        "a folder with images",
    ),
    "too long": (
        {"id": "bad", "video": "whole.mp4", "conversations": said("What? " * 2000, "That.")},
        "It takes 4,088 tokens, but the model has only 2,048 positions",
        "Shorten",
    ),
}


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model fails."""
    monkeypatch.setattr(load, "load_checkpoint", None)
    monkeypatch.setattr("sfvqa.model.slow_fast.SlowFastForConditionalGeneration.from_pretrained", None)


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, what is found, and what is said beside it."""
    code = main([*map(str, arguments), "--check", "--json", "--num-workers", "1"])
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_row_that_is_wrong_is_named_with_a_remedy(
    kind: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, message, remedy = BAD_ROWS[kind]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(GOOD, row, GOOD))
    model = ["--model", "tiny"] if kind == "too long" else []
    code, (found,), summary = check(capsys, path, "--videos", videos, *model)
    assert code == 2
    assert (found["file"], found["row"], found["level"]) == (str(path), 2, "error")
    assert found["id"] == (None if isinstance(row, str) else "bad")
    assert re.search(message, found["message"])
    assert re.search(remedy, found["remedy"])
    assert "1 file checked: 1 error, 0 warnings." in summary
    assert ("Lengths are checked with --model." in summary) == (not model)


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (None, "There is no annotation file", "Name a file"),
        (b"", "holds no rows", r'It should be \[\{"video"'),
        (b"[]", "holds no rows", "on each line"),
        (json.dumps({"rows": [GOOD]}, indent=1).encode(), "holds one object, not a list", "It should be"),
        (json.dumps([GOOD] * 3, indent=1).encode()[:-30], r"is not JSON: .* at line \d+, column", "Correct it there"),
        (json.dumps([GOOD]).encode("utf-16"), "line 1 is not UTF-8", "Save it as UTF-8"),
        (lines(GOOD, "é").encode("latin-1"), "line 2 is not UTF-8", "Save it as UTF-8"),
    ],
)
def test_a_file_without_rows_is_named(
    content: bytes | None, message: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    code, (found,), _ = check(capsys, path, "--videos", tmp_path)
    assert (code, found["file"], found["row"]) == (2, str(path), None)
    assert re.search(message, found["message"])
    assert re.search(remedy, found["remedy"])


def test_all_that_is_wrong_is_found_at_once(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the rows, for a person as for a program; rows of one video all count."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.json"
    bad = [row for row, _, _ in BAD_ROWS.values()]
    seen = {"id": "seen", "video": "whole.mp4", "conversations": SAID, "start": 3}
    first.write_text(lines(*bad, seen, seen))
    gone, damaged = ({"video": name, "conversations": SAID} for name in ("gone.mp4", "cut.mp4"))
    second.write_text(json.dumps([GOOD, gone, damaged, gone]))
    arguments = [first, f"{second}:2", "--videos", videos, "--model", "tiny"]
    code, found, summary = check(capsys, *arguments)
    errors = [(Path(each["file"]).name, each["row"]) for each in found if each["level"] == "error"]
    damaged_too = ("b.json", 3) in errors  # or read in part, with a warning
    assert code == 2
    assert errors[: len(bad)] == [("a.jsonl", number + 1) for number in range(len(bad))]
    assert errors[len(bad) :] == [("b.json", 2), *[("b.json", 3)] * damaged_too, ("b.json", 4)]
    warnings = [each["message"] for each in found if each["level"] == "warning"]
    assert any("ignored: start (2)." in message for message in warnings)
    assert f"2 files checked: {len(errors)} errors, {len(warnings)} warning" in summary
    assert main([*map(str, arguments), "--check"]) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(errors)
    assert f"Line 5 (bad) of {first}: It has 'conversation', and no 'conversations'. Rename it." in printed.out
    assert "ignored: start (2)." in printed.err


def test_what_is_sound_passes(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    rows = [GOOD, GOOD | {"video": "whole.mp4"}, GOOD | {"image": "whole.png"}]
    path.write_text(json.dumps(rows))
    assert check(capsys, path, "--videos", videos, "--model", "tiny") == (
        0,
        [],
        "1 file checked: 0 errors, 0 warnings.\n",
    )


def test_what_is_learned_from_may_not_be_validated_on(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run refuses it, by content; the check once passed such files, and read them as if all were learned from."""
    shutil.copy(videos / "whole.mp4", videos / "copy.mp4")
    learned, held_out = tmp_path / "learned.json", tmp_path / "held-out.json"
    learned.write_text(json.dumps([GOOD, {"id": "v", "video": "whole.mp4", "conversations": SAID}]))
    other = {"id": "other", "conversations": said("Who?", "You.")}
    rows = [other, {"id": "c", "video": "copy.mp4", "conversations": said("Who?", "Me.")}, GOOD]
    held_out.write_text(json.dumps([*rows, GOOD | {"image": "whole.png"}]))
    code, found, summary = check(capsys, learned, "--videos", videos, "--validation", held_out)
    assert code == 2
    assert [(each["file"], each["row"]) for each in found] == [(str(held_out), 2), (str(held_out), 3)]
    assert found[0]["message"] == f"What it is about is learned from too: Entry 2 (v) of {learned}."
    assert "2 files checked: 2 errors" in summary
    (videos / "copy.mp4").unlink()
