"""Patterns mean what they mean in Python's own glob, and folders that cannot hold a match are not entered."""

import fnmatch
import ntpath
import os
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch import find_videos
from sfvqa.batch.find_videos import GlobPattern

NAMES = st.lists(st.text("ab\n", min_size=1, max_size=2), min_size=1, max_size=4)
PARTS = st.lists(st.sampled_from(["a", "*", "?", "[ab]", "a*", "**", "**"]), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "folder", "matching", "others"),
    [
        ("videos/*.mp4", "videos", ["a.mp4"], ["b/a.mp4", "a.mkv"]),
        ("./videos//**/*.mp4", "videos", ["a.mp4", "b/a.mp4", "b/c/a.mp4"], ["b/a.mkv"]),
        ("*.mp4", ".", ["a.mp4", "ä\n.mp4"], ["b/a.mp4"]),
        ("/data/*/clips/?.mkv", "/data", ["one/clips/1.mkv"], ["one/two/clips/1.mkv", "one/clips/12.mkv"]),
        ("/**", "/", ["a", "b/c"], []),
        ("v/**/in/**/*.[am]*", "v", ["in/a.mp4", "x/in/y/z/a.avi"], ["x/a.mp4", "in/a.wmv"]),
        ("v/a**.mp4", "v", ["a.mp4", "ab.mp4"], ["a/b.mp4"]),
    ],
)
def test_what_a_pattern_means(pattern: str, folder: str, matching: list[str], others: list[str]) -> None:
    meant = GlobPattern(pattern)
    assert meant.folder == Path(folder)
    assert [name for name in (*matching, *others) if meant.matches(name)] == matching


def test_the_case_of_letters_counts_as_it_does_for_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows `*.mp4` means CLIP.MP4 too, in Python's glob as in every other program."""
    names, pattern = ["a.mp4", "A.MP4", "a.mkv"], GlobPattern("videos/*.mp4")
    assert [pattern.matches(name) for name in names] == [True, os.name == "nt", False]
    monkeypatch.setattr(fnmatch, "os", SimpleNamespace(path=ntpath))
    assert [pattern.matches(name) for name in names] == [True, True, False]


def test_backslashes_divide_a_pattern_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_videos, "Path", PureWindowsPath)
    pattern = GlobPattern(r"D:\videos\**\trip*\*.mp4")
    assert str(pattern.folder) == r"D:\videos"
    assert [pattern.matches(name) for name in ("trip 1/a.mp4", "b/c/trip/a.mp4", "b/a.mp4")] == [True, True, False]


@given(PARTS, NAMES)
def test_every_folder_on_the_way_to_a_match_is_entered(parts: list[str], names: list[str]) -> None:
    pattern = GlobPattern("/".join(["*", *parts]))
    if pattern.matches("/".join(names)):
        assert all(pattern.leads_into("/".join(names[:length])) for length in range(1, len(names)))
        if "**" not in parts:
            assert len(names) == 1 + len(parts)
            assert all(map(fnmatch.fnmatchcase, names, ["*", *parts]))


def test_folders_beside_the_way_are_not_entered() -> None:
    pattern = GlobPattern("v/a*/b/*.mp4")
    assert [pattern.leads_into(name) for name in ("a1", "b", "a1/b", "a1/c", "a1/b/c")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    pattern = GlobPattern("v/a*/**/x.mp4")
    assert [pattern.leads_into(name) for name in ("a1", "b", "a1/b/c/d", "b/b")] == [True, False, True, False]
    assert not GlobPattern("v/*.mp4").leads_into("a")
