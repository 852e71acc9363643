"""The hash of a video's content: the same wherever it lies, another after any change."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sfvqa.errors import UnreadableVideoError, VideoError, VideoNotFoundError
from sfvqa.video.readers import local_file
from sfvqa.video.readers.local_file import SAMPLE_BYTES, WHOLE_LIMIT_BYTES, hash_content, hash_files
from tests.windows import needs_pipes

UNSAMPLED = SAMPLE_BYTES + 1
"""A place in a large file of which no sample is taken."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    with path.open("wb") as stream:
        stream.write(b"\0head")
        stream.truncate(WHOLE_LIMIT_BYTES + 1)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"\x89PNG" + bytes([number]) * 100)
    return folder


def flip(path: Path, place: int) -> None:
    """Change one byte in place."""
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 1]))


def test_it_says_which_kind_it_is(small: Path, large: Path, pictures: Path) -> None:
    assert hash_content(small).startswith("whole:")
    assert hash_content(large).startswith("sampled:")
    assert hash_content(large, whole=True).startswith("whole:")
    assert hash_content(pictures).startswith("whole:")


def test_a_file_of_the_limit_is_hashed_in_whole(large: Path) -> None:
    os.truncate(large, WHOLE_LIMIT_BYTES)
    assert hash_content(large).startswith("whole:")


@pytest.mark.parametrize("whole", [False, True])
def test_a_renamed_and_moved_video_is_the_same(small: Path, large: Path, tmp_path: Path, whole: bool) -> None:
    for path in (small, large):
        before = hash_content(path, whole=whole)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        moved = path.rename(tmp_path / "elsewhere" / f"another name of {path.name}")
        assert hash_content(moved, whole=whole) == before
        assert hash_content(str(moved), whole=whole) == before


def test_a_copy_is_the_same_where_its_time_does_not_count(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(small.read_bytes())
    os.utime(copy, (0, 0))
    assert hash_content(copy) == hash_content(small)


@pytest.mark.parametrize("place", [0, 1, 5000, 10239])
def test_any_changed_byte_of_a_small_file_is_noticed_whatever_its_time(small: Path, place: int) -> None:
    before, status = hash_content(small), small.stat()
    flip(small, place)
    os.utime(small, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_content(small) != before


def test_a_changed_byte_of_which_no_sample_is_taken_is_noticed(large: Path) -> None:
    """The size, head, tail and samples are those of before: the time of the change alone tells."""
    before = hash_content(large)
    status = large.stat()
    flip(large, UNSAMPLED)
    changed = hash_content(large)
    assert changed != before
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_content(large) == before, "the byte was sampled, so that the test shows nothing"


def test_in_whole_even_a_forged_time_is_noticed(large: Path) -> None:
    before, status = hash_content(large, whole=True), large.stat()
    flip(large, UNSAMPLED)
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_content(large, whole=True) != before


@pytest.mark.parametrize("place", [0, WHOLE_LIMIT_BYTES // 3, WHOLE_LIMIT_BYTES])
def test_head_tail_and_places_between_are_sampled(large: Path, place: int) -> None:
    """With the time forged: a third of the way lies in a sample because 63 steps are three times 21."""
    before, status = hash_content(large), large.stat()
    flip(large, place)
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_content(large) != before


def test_a_grown_file_is_another_whatever_its_time(large: Path) -> None:
    before, status = hash_content(large), large.stat()
    os.truncate(large, WHOLE_LIMIT_BYTES + 2)
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_content(large) != before


def changed_byte(folder: Path) -> None:
    flip(folder / "1.png", 20)


def renamed_to_another_order(folder: Path) -> None:
    (folder / "0.png").rename(folder / "3.png")


def renamed_in_the_same_order(folder: Path) -> None:
    (folder / "2.png").rename(folder / "2b.png")


def swapped(folder: Path) -> None:
    (folder / "0.png").rename(folder / "a.png")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "a.png").rename(folder / "1.png")


def added(folder: Path) -> None:
    shutil.copy2(folder / "2.png", folder / "3.png")


def removed(folder: Path) -> None:
    (folder / "2.png").unlink()


@pytest.mark.parametrize("limit", [0, WHOLE_LIMIT_BYTES])
@pytest.mark.parametrize(
    "change", [changed_byte, renamed_to_another_order, renamed_in_the_same_order, swapped, added, removed]
)
def test_a_folder_is_another_after_any_change(
    pictures: Path, change: Callable[[Path], None], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_file, "WHOLE_LIMIT_BYTES", limit)
    before = hash_content(pictures)
    assert before.startswith("whole:" if limit else "sampled:")
    change(pictures)
    assert hash_content(pictures) != before


def test_a_folder_of_pictures_moves_as_one_and_other_files_do_not_count(pictures: Path) -> None:
    before = hash_content(pictures)
    moved = pictures.rename(pictures.with_name("moved"))
    (moved / "notes.txt").write_text("not looked at")
    assert hash_content(moved) == before


def test_where_one_file_ends_and_the_next_begins_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"xy")
    second.write_bytes(b"z")
    before = hash_files([first, second])
    first.write_bytes(b"x")
    second.write_bytes(b"yz")
    assert hash_files([first, second]) != before
    assert hash_files([second, first]) != hash_files([first, second])


def test_memory_is_bounded(large: Path) -> None:
    tracemalloc.start()
    hash_content(large, whole=True)
    hash_content(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@needs_pipes
def test_what_is_no_video_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name in ("absent", "pipe", "empty"):
        with pytest.raises(VideoError) as caught:
            hash_content(tmp_path / name)
        assert caught.value.remedy


@pytest.mark.parametrize(("error", "kind"), [(FileNotFoundError, VideoNotFoundError), (OSError, UnreadableVideoError)])
def test_a_file_that_goes_or_fails_meanwhile(
    small: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], kind: type[VideoError]
) -> None:
    """A disk pulled out, a file deleted between the check and the reading."""

    def fail(*_: object, **__: object) -> None:
        raise error(5, "Input/output error", str(small))

    monkeypatch.setattr(local_file, "_every_byte", fail)
    with pytest.raises(kind, match=r"small\.mp4") as caught:
        hash_content(small)
    assert caught.value.remedy
