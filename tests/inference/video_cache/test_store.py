"""The store of seen videos: what it gives back, what goes when it is full, and what it says when it cannot keep one."""

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sfvqa.errors import SfvqaError
from sfvqa.inference.video_cache import store as module
from sfvqa.inference.video_cache.entry import entry_bytes
from sfvqa.inference.video_cache.store import VideoCache
from tests.inference.video_cache.seen import VIDEO, key_of, seen_of
from tests.windows import needs_limits

SIZE = sum(map(len, entry_bytes(key_of(), seen_of())))
"""Bytes of one entry; those of small numbers are of the same length."""


@pytest.fixture
def store(tmp_path: Path) -> VideoCache:
    """With room for three."""
    return VideoCache(tmp_path / "cache" / "videos", 3 * SIZE)


def keep(store: VideoCache, *numbers: int) -> None:
    for number in numbers:
        assert store.save(key_of(number), seen_of(number)) is None


def kept(store: VideoCache) -> list[int]:
    """Numbers of the videos that are there, the last used first; asking does not count as use."""
    return [entry.facts.indices[1] - 1 for entry in store.entries() if entry.facts]


def file_of(store: VideoCache, number: int = 0) -> Path:
    return next(store.folder.glob(f"*-{key_of(number).digest[:48]}.*"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_saved_is_loaded(store: VideoCache, dtype: str) -> None:
    seen = seen_of(1, dtype)
    assert store.save(key_of(1, dtype), seen) is None
    loaded = VideoCache(store.folder).load(key_of(1, dtype), Path("/moved.mp4"))
    assert loaded.warning is None
    assert loaded.seen is not None
    assert torch.equal(loaded.seen.visual_tokens, seen.visual_tokens)
    assert (loaded.seen.indices, loaded.seen.warnings) == (seen.indices, seen.warnings)
    assert loaded.seen.video.path == Path("/moved.mp4")


def test_what_was_not_saved_is_a_miss_and_creates_nothing(store: VideoCache) -> None:
    assert store.load(key_of(), VIDEO) == module.Loaded()
    assert store.peek(key_of(), VIDEO) is None
    assert (store.entries(), store.size_bytes(), store.clear()) == ([], 0, 0)
    assert not store.folder.parent.exists()
    keep(store, 0)
    assert store.load(key_of(1), VIDEO).seen is None
    assert store.load(key_of(0, "bfloat16"), VIDEO).seen is None


def test_a_peek_gives_the_facts_and_is_no_use(store: VideoCache) -> None:
    keep(store, 0, 1)
    facts = store.peek(key_of(0), Path("/moved.mp4"))
    assert facts is not None
    assert (facts.indices, facts.video.path, facts.shape) == (seen_of(0).indices, Path("/moved.mp4"), (2, 2, 2, 8))
    assert kept(store) == [1, 0]


def test_what_was_used_least_recently_goes_first(store: VideoCache) -> None:
    keep(store, 0, 1, 2)
    assert store.load(key_of(0), VIDEO).seen
    keep(store, 3)
    assert kept(store) == [3, 0, 2]
    keep(store, 4)
    assert kept(store) == [4, 3, 0]


def test_saving_again_replaces_and_evicts_nothing_else(store: VideoCache) -> None:
    keep(store, 0, 1, 2, 1)
    assert kept(store) == [1, 2, 0]
    assert store.size_bytes() == 3 * SIZE


def test_one_byte_too_few_for_three_keeps_two(store: VideoCache) -> None:
    store.limit_bytes -= 1
    keep(store, 0, 1, 2)
    assert kept(store) == [2, 1]


def test_a_lower_limit_evicts_at_the_next_save(store: VideoCache) -> None:
    keep(store, 0, 1, 2)
    store.limit_bytes = 2 * SIZE
    assert len(kept(store)) == 3
    keep(store, 3)
    assert kept(store) == [3, 2]


@pytest.mark.parametrize("limit", [0, SIZE - 1])
def test_what_is_larger_than_the_limit_is_not_kept_and_evicts_nothing(store: VideoCache, limit: int) -> None:
    keep(store, 0)
    warning = VideoCache(store.folder, limit).save(key_of(1), seen_of(1))
    assert warning is not None
    assert "not kept: it has 1." in warning
    assert kept(store) == [0]


def test_the_folder_is_for_its_owner_alone(store: VideoCache) -> None:
    keep(store, 0)
    if sys.platform != "win32":
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("place", [0, 100, SIZE - 1])
def test_a_damaged_entry_is_removed_and_the_user_told(store: VideoCache, place: int) -> None:
    keep(store, 0, 1)
    file = file_of(store)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    loaded = store.load(key_of(), VIDEO)
    assert loaded.seen is None
    assert loaded.warning is not None
    assert "is damaged, and was removed" in loaded.warning
    assert kept(store) == [1]
    assert store.load(key_of(), VIDEO) == module.Loaded()
    keep(store, 0)
    assert store.load(key_of(), VIDEO).seen


def test_an_entry_under_the_name_of_another_is_not_given(store: VideoCache) -> None:
    keep(store, 0, 1)
    file_of(store, 1).replace(file_of(store, 0))
    assert store.peek(key_of(0), VIDEO) is None
    assert store.load(key_of(0), VIDEO).seen is None


def test_entries_with_a_damaged_header_are_listed_as_such(store: VideoCache) -> None:
    keep(store, 0, 1)
    os.truncate(file_of(store, 0), 10)
    whole, damaged = sorted(store.entries(), key=lambda entry: entry.size_bytes, reverse=True)
    assert (whole.size_bytes, whole.fault) == (SIZE, None)
    assert (damaged.size_bytes, damaged.facts, damaged.fault) == (10, None, "it is cut off, or is not an entry")
    assert store.peek(key_of(0), VIDEO) is None


def test_what_a_killed_process_left_goes_with_the_next_save(store: VideoCache) -> None:
    keep(store, 0)
    left = store.folder / f".partial-{'0' * 32}"
    left.write_bytes(bytes(2 * SIZE))
    assert store.size_bytes() == 3 * SIZE
    keep(store, 1)
    assert not left.exists()
    assert kept(store) == [1, 0], "no video had to go for what was left over"


def test_files_of_others_in_the_folder_are_left_alone(store: VideoCache) -> None:
    keep(store, 0)
    others = [store.folder / name for name in ("notes.txt", "model.safetensors", ".partial-mine")]
    for other in others:
        other.write_bytes(bytes(5 * SIZE))
    keep(store, 1, 2)
    assert store.size_bytes() == store.clear() == 3 * SIZE
    assert all(other.exists() for other in others)
    assert kept(store) == []


def refuse(code: int) -> Callable[..., None]:
    """What the system says to everything."""

    def say_no(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return say_no


def test_a_full_disk_is_a_warning_and_leaves_nothing_behind(store: VideoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_mark_used", refuse(errno.ENOSPC))  # once all is written, as with delayed allocation
        warning = store.save(key_of(1), seen_of(1))
    assert warning is not None
    assert "No space left on device" in warning
    assert "SFVQA_CACHE_DIR" in warning
    assert {path.name for path in store.folder.iterdir()} == {".lock"}
    keep(store, 1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_a_video_takes_the_place_of_the_one_used_least_recently(
    store: VideoCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Nothing of ours would ever go on a disk that others have filled, below our own limit."""
    keep(store, 0, 1)
    refusals = iter([code])
    mark_used = module._mark_used

    def full_once(path: Path) -> None:
        for number in refusals:
            raise OSError(number, os.strerror(number))
        mark_used(path)

    monkeypatch.setattr(module, "_mark_used", full_once)
    keep(store, 2)
    assert kept(store) == [2, 1]


def test_a_disk_that_is_full_with_other_things_costs_no_more_than_was_wanted(
    store: VideoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, 0, 1)
    monkeypatch.setattr(module, "_mark_used", refuse(errno.ENOSPC))
    assert "No space" in str(store.save(key_of(2), seen_of(2)))
    assert kept(store) == [1]


@needs_limits
def test_a_file_that_may_not_grow_is_a_warning_and_leaves_nothing_behind(store: VideoCache) -> None:
    """The system itself ends the write in the middle."""
    import resource

    keep(store, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        warning = store.save(key_of(1), seen_of(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert warning is not None
    assert "File too large" in warning
    assert {path.name for path in store.folder.iterdir()} == {file_of(store).name, ".lock"}


def a_file_in_its_place(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    folder.touch()


def a_file_above_it(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    folder.parent.touch()


def a_link_to_nowhere(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    folder.symlink_to(folder.parent / "absent" / "deep")


def a_read_only_disk(_folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "mkdir", refuse(errno.EROFS))


def no_locks_on_it(_folder: Path, patch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""
    import fcntl

    patch.setattr(fcntl, "flock", refuse(errno.ENOSYS))


@pytest.mark.parametrize(
    "make_unusable", [a_file_in_its_place, a_file_above_it, a_link_to_nowhere, a_read_only_disk, no_locks_on_it]
)
def test_a_folder_that_cannot_be_written_is_a_warning(
    store: VideoCache, monkeypatch: pytest.MonkeyPatch, make_unusable: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    make_unusable(store.folder, monkeypatch)
    warning = store.save(key_of(), seen_of())
    assert warning is not None
    assert f"{store.folder} cannot be written: " in warning
    assert store.load(key_of(), VIDEO).seen is None
    assert store.peek(key_of(), VIDEO) is None


def test_a_read_only_folder_is_read_all_the_same(store: VideoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, 0)
    for name in ("utime", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, refuse(errno.EROFS))
    assert store.load(key_of(), VIDEO).seen


def test_an_entry_that_cannot_be_read_is_a_warning(store: VideoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, 0)
    key = key_of()
    monkeypatch.setattr(Path, "open", refuse(errno.EIO))
    loaded = store.load(key, VIDEO)
    assert loaded.seen is None
    assert loaded.warning == "What was kept of the video cannot be read: Input/output error."


def test_files_that_cannot_be_deleted_are_skipped(store: VideoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows while somebody reads them: the next in line goes, and if none can, nothing is kept."""
    keep(store, 0, 1, 2)
    held = {file_of(store, 0)}
    unlink = Path.unlink

    def unlink_unless_held(path: Path, missing_ok: bool = False) -> None:
        if path in held:
            raise PermissionError(errno.EACCES, "used by another process")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_unless_held)
    keep(store, 3)
    assert kept(store) == [3, 2, 0]
    held |= set(store.folder.glob("*.safetensors"))
    warning = store.save(key_of(4), seen_of(4))
    assert warning is not None
    assert "cannot be deleted to make room" in warning
    assert store.size_bytes() == 3 * SIZE
    with pytest.raises(SfvqaError, match="3 files in "):
        store.clear()


@pytest.fixture
def busy(store: VideoCache, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody else holds the lock, and nobody waits for long."""
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    store.folder.mkdir(parents=True)
    with FileLock(store.folder / ".lock"):
        yield


@pytest.mark.usefixtures("busy")
def test_nobody_waits_for_ever(store: VideoCache) -> None:
    warning = store.save(key_of(), seen_of())
    assert warning is not None
    assert "others were writing" in warning
    with pytest.raises(SfvqaError, match="Another process is writing"):
        store.clear()
    assert store.load(key_of(), VIDEO) == module.Loaded()


def test_threads_of_one_process_keep_out_of_each_others_way(store: VideoCache) -> None:
    warnings: list[str | None] = []
    seen = [(key_of(number), seen_of(number)) for number in range(6)]

    def fill() -> None:
        warnings.extend(store.save(*each) for each in seen)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(warnings) == {None}
    assert len(warnings) == 24
    assert store.size_bytes() == 3 * SIZE


def test_clearing_gives_back_what_was_there(store: VideoCache) -> None:
    keep(store, 0, 1)
    assert store.clear() == 2 * SIZE
    assert (store.entries(), store.size_bytes()) == ([], 0)
    keep(store, 0)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setenv("SFVQA_CACHE_DIR", str(tmp_path))
    assert VideoCache().folder == tmp_path / "videos"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SFVQA_CACHE_DIR", "~/seen")
    assert VideoCache().folder == tmp_path / "seen" / "videos"
    monkeypatch.delenv("SFVQA_CACHE_DIR")
    assert VideoCache().folder == Path(platformdirs.user_cache_dir("sfvqa", appauthor=False)) / "videos"
