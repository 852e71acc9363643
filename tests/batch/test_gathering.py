"""Where items come from is told by what is there."""

from pathlib import Path

import pytest

from sfvqa.batch.find_videos import gather_items
from sfvqa.errors import UsageError, VideoNotFoundError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("v/a.mp4", "v/b.mkv", "v/c.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"text")
    Path("v/list").write_text("video,question\na.mp4,Own?\nb.mkv,\n")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("v", [("a.mp4", "One?"), ("a.mp4", "Two?"), ("b.mkv", "One?"), ("b.mkv", "Two?")]),
        ("v/*.mp4", [("a.mp4", "One?"), ("a.mp4", "Two?")]),
        ("v/a.mp4", [("a.mp4", "One?"), ("a.mp4", "Two?")]),
        ("v/list", [("a.mp4", "Own?"), ("b.mkv", "One?"), ("b.mkv", "Two?")]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_each_kind_of_source(source: str, expected: list[tuple[str, str]]) -> None:
    items = gather_items(source, ["One?", " Two? ", "Two?"])
    assert [(item.name, item.question) for item in items] == expected
    assert all(item.video == Path("v") / item.name for item in items)


@pytest.mark.usefixtures("folder")
def test_nothing_is_not_this_folder() -> None:
    """`sfvqa batch "$VIDEOS"` where no such variable is set must not begin with whatever lies here."""
    with pytest.raises(UsageError, match="is empty"):
        gather_items("", ["One?"])


@pytest.mark.usefixtures("folder")
def test_without_a_question_only_a_manifest_that_has_them_will_do() -> None:
    for source in ("v", "v/*.mp4", "v/a.mp4"):
        with pytest.raises(UsageError, match="No question was given"):
            gather_items(source, [])
    with pytest.raises(UsageError, match="line 3: it has no question"):
        gather_items("v/list", [])


@pytest.mark.usefixtures("folder")
def test_what_is_left_out_is_told() -> None:
    notices: list[str] = []
    gather_items("v", ["Q?"], notices)
    assert notices == ["Skipped 2 of 4 files: not videos."]


@pytest.mark.usefixtures("folder")
def test_what_is_not_there_and_what_is_no_question() -> None:
    with pytest.raises(UsageError, match="There is no folder “absent”"):
        gather_items("absent", ["Q?"])
    with pytest.raises(UsageError, match="There is no folder “absent”"):
        gather_items("absent/*.mp4", ["Q?"])
    with pytest.raises(VideoNotFoundError, match=r"There is no file “v/absent\.mp4”"):
        gather_items("v/absent.mp4", ["Q?"])
    with pytest.raises(UsageError, match="question is empty"):
        gather_items("v", [" "])
