"""What is listed of a folder, under which names, and that every walk ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfvqa.batch.find_videos import list_videos
from sfvqa.errors import UnreadableVideoError, UsageError
from tests.batch.unprivileged import unprivileged_folder
from tests.windows import needs_links, needs_modes, needs_pipes

MKV = b"\x1a\x45\xdf\xa3" + b"\0" * 20


def put(folder: Path, *names: str, content: bytes = MKV) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names_in(source: Path | str, notices: list[str] | None = None) -> list[str]:
    return [name for _, name in list_videos(source, notices)]


def test_a_folder_is_listed_with_all_in_it_sorted(tmp_path: Path) -> None:
    put(tmp_path, "b.mkv", "a/2.mp4", "a/10", "Z.avi", "a/deep/er/1.webm")
    put(tmp_path, "notes.txt", "a/cover.jpg", "list.csv", content=b"\xff\xd8\xff no video")
    put(tmp_path, ".hidden.mkv", ".git/x.mkv", "a/.thumbs/y.mkv")
    notices: list[str] = []
    assert names_in(tmp_path, notices) == ["Z.avi", "a/10", "a/2.mp4", "a/deep/er/1.webm", "b.mkv"]
    assert notices == ["Skipped 3 of 8 files: not videos."]
    assert all(path == tmp_path / name for path, name in list_videos(tmp_path))


@needs_pipes
def test_broken_videos_are_no_gaps(tmp_path: Path) -> None:
    put(tmp_path, "empty.mp4", content=b"")
    put(tmp_path, "page.mp4", content=b"<html>not found</html>")
    (tmp_path / "gone.mkv").symlink_to("absent")
    (tmp_path / "round.mkv").symlink_to("round.mkv")
    (tmp_path / "gone").symlink_to("absent")
    (tmp_path / "round").symlink_to("round")
    os.mkfifo(tmp_path / "pipe.avi")
    notices: list[str] = []
    assert names_in(tmp_path, notices) == ["empty.mp4", "gone.mkv", "page.mp4", "pipe.avi", "round.mkv"]
    assert notices == ["Skipped 2 of 7 files: not videos."]


@needs_links
def test_links_that_lead_back_end(tmp_path: Path) -> None:
    put(tmp_path, "a/1.mkv", "b/2.mkv")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    notices: list[str] = []
    assert names_in(tmp_path, notices) == ["a/1.mkv", "b/2.mkv"]
    assert notices == ["Skipped 4 linked folders whose files are listed already."]


@needs_links
def test_junctions_of_windows_that_lead_back_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no symbolic links to Python, which would have gone round until the name is too long."""

    @contextmanager
    def scan(folder: Path) -> Iterator[list[SimpleNamespace]]:
        with scandir(folder) as entries:
            yield [
                SimpleNamespace(
                    name=each.name,
                    path=each.path,
                    is_dir=each.is_dir,
                    is_symlink=lambda: False,
                    is_junction=each.is_symlink,
                )
                for each in entries
            ]

    scandir = os.scandir
    put(tmp_path, "a/1.mkv")
    (tmp_path / "a" / "up").symlink_to("..")
    monkeypatch.setattr(os, "scandir", scan)
    assert names_in(tmp_path) == ["a/1.mkv"]


@needs_links
def test_many_links_between_folders_take_no_time(tmp_path: Path) -> None:
    """Following each wherever it leads, there would be 20! ways."""
    for number in range(20):
        put(tmp_path, f"{number}/{number}.mkv")
        for other in range(20):
            (tmp_path / str(number) / f"to-{other}").symlink_to(f"../{other}")
    assert len(names_in(tmp_path)) == 20


@needs_links
def test_linked_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    """A file with two names is two videos; a folder that lies elsewhere is entered once, by its first name."""
    put(tmp_path, "elsewhere/in/1.mkv", "here/2.mkv")
    (tmp_path / "here" / "same.mkv").symlink_to("2.mkv")
    os.link(tmp_path / "here" / "2.mkv", tmp_path / "here" / "hard.mkv")
    (tmp_path / "here" / "y").symlink_to("../elsewhere")
    (tmp_path / "here" / "x").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to("../here")
    assert names_in(tmp_path / "here") == ["2.mkv", "hard.mkv", "same.mkv", "x/in/1.mkv"]
    (tmp_path / "link").symlink_to("here")
    assert names_in(tmp_path / "link") == ["2.mkv", "hard.mkv", "same.mkv", "x/in/1.mkv"]


@needs_links
def test_a_link_to_a_folder_above_brings_what_lies_beside(tmp_path: Path) -> None:
    """And not what is listed itself once more, though it really lies there."""
    put(tmp_path, "here/1.mkv", "here/in/2.mkv", "beside/3.mkv")
    (tmp_path / "here" / "up").symlink_to("..")
    assert names_in(tmp_path / "here") == ["1.mkv", "in/2.mkv", "up/beside/3.mkv"]


@needs_links
def test_a_link_changes_no_name_of_what_lies_there(tmp_path: Path) -> None:
    """Or everything would be asked again because somebody put a link beside it."""
    put(tmp_path, "z/1.mkv")
    (tmp_path / "a").symlink_to("z")
    assert names_in(tmp_path) == ["z/1.mkv"]


@needs_modes
def test_what_cannot_be_looked_into_is_told() -> None:
    with unprivileged_folder() as folder:
        put(folder, "1.mkv", "locked/2.mkv", "secret", "secret.mp4")
        (folder / "locked").chmod(0)
        (folder / "secret").chmod(0)
        (folder / "secret.mp4").chmod(0)
        notices: list[str] = []
        assert names_in(folder, notices) == ["1.mkv", "secret.mp4"]
        assert notices == [
            "Skipped 1 of 3 files: not a video.",
            f"Could not be read: “{folder}/locked” (Permission denied); “{folder}/secret” (Permission denied).",
        ]
        with pytest.raises(UsageError, match=r"There is no video in .*Permission denied"):
            list_videos(folder / "locked")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sets(
        st.binary(min_size=1, max_size=12).filter(
            lambda name: not set(name) & set(b"/\0") and not name.startswith(b".")
        )
    )
)
def test_any_name_of_a_file_survives(tmp_path: Path, names: set[bytes]) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    put(folder, "x.mkv", "sub\n\udcff dir/x.mkv")
    for name in names:
        put(folder, os.fsdecode(name) + ".mkv", "sub\n\udcff dir/" + os.fsdecode(name) + ".mkv")
    listed = list_videos(folder)
    assert {os.fsencode(name) for _, name in listed} == {
        prefix + name + b".mkv" for name in {b"x", *names} for prefix in (b"", b"sub\n\xff dir/")
    }
    assert all(path.read_bytes() == MKV for path, _ in listed)
    assert [name for _, name in listed] == sorted(name for _, name in listed)


@needs_links
def test_a_glob_lists_what_it_means_under_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "v/1.mkv", "v/2.mp4", "v/sub/3.mkv", "v/.hidden/4.mkv", "other/5.mkv")
    put(tmp_path, "v/notes.mkv.txt", content=b"text")
    (tmp_path / "v" / "sub" / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    assert names_in("v/*.mkv") == ["1.mkv"]
    assert names_in("v/**/*.mkv") == names_in(str(tmp_path / "v" / "**" / "*.mkv")) == ["1.mkv", "sub/3.mkv"]
    assert names_in("*/?.mkv") == ["other/5.mkv", "v/1.mkv"]
    assert set(names_in("v/**")) == set(names_in("v")) == {"1.mkv", "2.mp4", "sub/3.mkv"}
    notices: list[str] = []
    assert [str(path) for path, _ in list_videos("v/*", notices)] == ["v/1.mkv", "v/2.mp4"]
    assert notices == ["Skipped 1 of 3 files: not a video."]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "[2024] *trip*/1.mkv")
    assert names_in(tmp_path / "[2024] *trip*") == ["1.mkv"]


def test_a_folder_of_pictures_is_no_video(tmp_path: Path) -> None:
    put(tmp_path, "frames/1.png", "frames/2.png", content=b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UsageError, match="There is no video in") as raised:
        list_videos(tmp_path)
    assert raised.value.remedy == "Skipped 2 of 2 files: not videos."


@pytest.mark.parametrize("source", ["absent", "absent/*.mp4", "*.mp4", "file.txt"])
def test_what_is_not_there_is_an_error(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "file.txt")
    with pytest.raises(UsageError, match="There is no"):
        list_videos(source)


def test_an_address_is_shown_as_it_was_given() -> None:
    """It was "https:/example.org" in the message: a path makes one slash of two."""
    with pytest.raises(UnreadableVideoError, match=r"“https://example\.org/videos” is a URL"):
        list_videos("https://example.org/videos")
