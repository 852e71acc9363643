"""The journal keeps what it was given, tells what is done, and refuses what would lose or double a record."""

import errno
import os
import signal
import sys
from pathlib import Path

import filelock
import pytest

from sfvqa.batch import journal as journal_module
from sfvqa.batch.item import Question
from sfvqa.batch.journal import Journal
from sfvqa.batch.record import read_records, to_line
from sfvqa.errors import ExitCode, JournalError, UsageError
from sfvqa.wording import plural
from tests.batch.made import error_of, id_of, item_of, ok_of
from tests.batch.unprivileged import unprivileged_folder
from tests.windows import as_on_windows, needs_limits, needs_links, needs_modes, needs_pipes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def ids_in(path: Path) -> list[str]:
    return [record["item_id"] for record in read_records(path)]


def test_what_is_appended_is_in_the_file_at_once(path: Path) -> None:
    with Journal(path) as journal:
        for number in range(3):
            journal.append(ok_of(number))
            assert ids_in(path) == [id_of(n) for n in range(number + 1)]
            assert path.read_bytes().endswith(b"}\n")


def test_a_run_goes_on_where_another_ended(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(ok_of(0))
        journal.append(error_of(1))
        assert (journal.done, journal.notices) == ({id_of(0): "ok", id_of(1): "error"}, [])
    before = path.read_bytes()
    with Journal(path) as journal:
        assert (journal.done, journal.notices) == ({id_of(0): "ok", id_of(1): "error"}, [])
        questions = [Question(item_of(n), id_of(n)) for n in range(3)]
        assert journal.sort_out(questions, retry_errors=False) == ((questions[2],), {"ok": 1, "error": 1})
        assert journal.sort_out(questions, retry_errors=True) == ((questions[1], questions[2]), {"ok": 1})
        journal.append(error_of(1))
        journal.append(ok_of(1))
        assert journal.done[id_of(1)] == "ok"
    assert path.read_bytes().startswith(before)
    assert len(ids_in(path)) == 4


def test_an_item_has_one_ok_record_and_nothing_after_it(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(ok_of(0))
    with Journal(path) as journal:
        for record in (ok_of(0), ok_of(0, "Other."), error_of(0)):
            with pytest.raises(ValueError, match="has an ok record already"):
                journal.append(record)
    assert len(ids_in(path)) == 1


@pytest.mark.parametrize("record", [{}, {"item_id": 1, "status": "ok"}, {"item_id": "a", "status": "done"}])
def test_what_is_no_record_is_refused(record: dict[str, object], path: Path) -> None:
    with Journal(path) as journal, pytest.raises(ValueError, match="a record has"):
        journal.append(record)
    assert path.read_bytes() == b""


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(path: Path) -> None:
    with Journal(path) as journal, pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(ok_of(0) | {"score": float("nan")})
    assert path.read_bytes() == b""


def test_more_ok_records_of_an_item_are_told(path: Path) -> None:
    """Somebody's `cat`, or two writers where locks do not work."""
    path.write_bytes(to_line(ok_of(0)) + to_line(ok_of(0)) + to_line(error_of(0)))
    with Journal(path) as journal:
        assert journal.done == {id_of(0): "ok"}
        assert journal.notices == [f"“{path}” repeats 1 answer that it holds already."]


@pytest.mark.parametrize("length", [1, 50, len(to_line(ok_of(1))) - 2])
def test_a_torn_last_line_is_cut_off(length: int, path: Path) -> None:
    path.write_bytes(to_line(ok_of(0)) + to_line(ok_of(1))[:length])
    with Journal(path) as journal:
        size = plural(length, "byte")
        assert journal.notices == [f"The last line of “{path}” was torn ({size} of a record), and was cut off."]
        assert journal.done == {id_of(0): "ok"}
        journal.append(ok_of(1))
    assert path.read_bytes().count(b"\n") == 2
    assert ids_in(path) == [id_of(0), id_of(1)]


@pytest.mark.parametrize("torn", [b"\0" * 4096, b"\0" * 100 + b"\n", to_line(ok_of(1))[:50] + b"\n"])
def test_what_a_crash_of_the_system_leaves_is_cut_off(torn: bytes, path: Path) -> None:
    path.write_bytes(to_line(ok_of(0)) + torn)
    with Journal(path) as journal:
        assert len(journal.notices) == 1
    assert path.read_bytes() == to_line(ok_of(0)) or ids_in(path) == [id_of(0)]
    assert path.read_bytes().count(b"\n") == 1


def test_a_whole_record_without_its_newline_is_kept(path: Path) -> None:
    line = to_line(ok_of(0))
    path.write_bytes(line[:-1])
    with Journal(path) as journal:
        assert (journal.done, journal.notices) == ({id_of(0): "ok"}, [])
        journal.append(ok_of(1))
    assert path.read_bytes().startswith(line)
    assert ids_in(path) == [id_of(0), id_of(1)]


def test_half_of_a_first_record_is_no_reason_to_refuse(path: Path) -> None:
    path.write_bytes(to_line(ok_of(0))[:90])
    with Journal(path) as journal:
        assert "torn" in journal.notices[0]
    assert path.read_bytes() == b""


def test_damage_in_the_middle_is_kept_and_told(path: Path) -> None:
    content = to_line(ok_of(0)) + b'{"half\n\n{"note": "mine"}\n' + to_line(ok_of(1)) + b'{"note": "at the end"}\n'
    path.write_bytes(content)
    with Journal(path) as journal:
        assert journal.done == {id_of(0): "ok", id_of(1): "ok"}
        assert journal.notices == [f"Skipped 3 torn or damaged lines of “{path}”: 2, 4, 6."]
        journal.append(ok_of(2))
    assert path.read_bytes().startswith(content)


@pytest.mark.parametrize(
    "content",
    [b"video,question\na.mp4,Q?\n", b"%PDF-1.7", b'{"video": "a.mp4"}\n', b"\0\0\0\x20ftypisom" + b"\0" * 2000],
)
def test_another_file_is_refused_and_left_as_it_is(content: bytes, path: Path) -> None:
    """A manifest, or a video, that was named by mistake is not moved aside either."""
    path.write_bytes(content)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is not a file of records"):
            Journal(path, overwrite=overwrite)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]
    path.write_bytes(b"")
    with Journal(path):  # the lock went with the errors
        pass


def test_overwriting_moves_the_old_file_aside(path: Path) -> None:
    for number in range(3):
        with Journal(path, overwrite=True) as journal:
            assert journal.done == {}
            journal.append(ok_of(number))
            aside = [[], ["out.jsonl.old"], ["out.jsonl.old", "out.jsonl.old.2"]][number]
            assert sorted(file.name for file in path.parent.iterdir()) == ["out.jsonl", *aside]
            assert [Path(aside[-1]).name in notice for notice in journal.notices] == [True] * bool(number)
            with pytest.raises(JournalError, match="Another process"):
                Journal(path)
    assert ids_in(path.with_name("out.jsonl.old")) == [id_of(0)]
    assert ids_in(path.with_name("out.jsonl.old.2")) == [id_of(1)]
    assert ids_in(path) == [id_of(2)]


def test_overwriting_on_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--overwrite` never worked there: the old file was renamed while it was open."""
    as_on_windows(monkeypatch, journal_module)
    for number in range(2):
        with Journal(path, overwrite=True) as journal:
            journal.append(ok_of(number))
    assert (ids_in(path.with_name("out.jsonl.old")), ids_in(path)) == ([id_of(0)], [id_of(1)])


def test_records_are_read_while_they_are_written_on_windows_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reads a locked file there, so that `sfvqa report` had to wait for the end of a batch."""
    as_on_windows(monkeypatch, journal_module)
    with Journal(path) as journal:
        journal.append(ok_of(0))
        for overwrite in (False, True):
            with pytest.raises(JournalError, match="Another process is writing"):
                Journal(path, overwrite=overwrite)
        journal.append(ok_of(1))
        assert ids_in(path) == [id_of(0), id_of(1)]
    assert list(path.parent.iterdir()) == [path]
    path.with_name(".out.jsonl.lock").touch()  # as a crash leaves it
    with Journal(path) as journal:
        assert journal.done == {id_of(0): "ok", id_of(1): "ok"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.filterwarnings("error")
def test_a_lock_that_cannot_be_made_on_windows_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_windows(monkeypatch, journal_module)
    path.with_name(".out.jsonl.lock").mkdir()
    with pytest.raises(JournalError, match=r"“.*out\.jsonl” cannot be written: "):
        Journal(path)


@needs_links
def test_of_two_writers_the_second_is_told_at_once(path: Path) -> None:
    link = path.with_name("link.jsonl")
    link.symlink_to(path)
    with Journal(path) as journal:
        for other in (path, link):
            for overwrite in (False, True):
                with pytest.raises(JournalError, match=r"Another process is writing to “.*out\.jsonl”"):
                    Journal(other, overwrite=overwrite)
        journal.append(ok_of(0))
    with Journal(link) as journal:
        assert journal.done == {id_of(0): "ok"}


def test_only_the_file_itself_is_left(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(ok_of(0))
    assert list(path.parent.iterdir()) == [path]


@needs_modes
@pytest.mark.parametrize("overwrite", [False, True])
def test_where_nothing_can_be_written_it_is_said_at_once(overwrite: bool) -> None:
    with unprivileged_folder() as folder:
        file = folder / "out.jsonl"
        file.write_bytes(to_line(ok_of(0)))
        file.chmod(0o400)
        with pytest.raises(JournalError, match=r"“.*out\.jsonl” cannot be written: Permission denied") as raised:
            Journal(file, overwrite=overwrite)
        assert raised.value.exit_code == ExitCode.FAILED
        (folder / "locked").mkdir(mode=0o500)
        with pytest.raises(JournalError, match="cannot be written: Permission denied"):
            Journal(folder / "locked" / "out.jsonl", overwrite=overwrite)


@needs_links
def test_a_folder_that_is_not_there_and_one_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written: No such file or directory"):
        Journal(tmp_path / "absent" / "out.jsonl")
    with pytest.raises(JournalError, match="cannot be written: Is a directory"):
        Journal(tmp_path)
    (tmp_path / "link").symlink_to("absent/out.jsonl")
    with pytest.raises(JournalError, match=r"Make the folder “.*/absent” first"):
        Journal(tmp_path / "link")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(JournalError, match="Too many levels of symbolic links"):
        Journal(tmp_path / "circle")


def test_a_file_system_that_is_read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(JournalError, match="cannot be written: Read-only file system"):
        Journal(path)


@needs_limits
def test_a_full_disk_leaves_whole_lines(path: Path) -> None:
    """The kernel writes what fits and then refuses, here for a limit on the size of files."""
    import resource

    size = len(to_line(ok_of(0)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 5 // 2, before[1]))
    try:
        with Journal(path) as journal:
            journal.append(ok_of(0))
            journal.append(ok_of(1))
            with pytest.raises(JournalError, match="cannot be written: File too large") as raised:
                journal.append(ok_of(2))
            assert raised.value.exit_code == ExitCode.FAILED
            assert id_of(2) not in journal.done
            assert path.read_bytes().endswith(b"}\n")
            assert ids_in(path) == [id_of(0), id_of(1)]
            resource.setrlimit(resource.RLIMIT_FSIZE, before)  # somebody makes room
            journal.append(ok_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert ids_in(path) == [id_of(0), id_of(1), id_of(2)]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_line_that_is_not_on_the_disk_is_taken_back(
    error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where room is found missing only when it is put on the disk, and where Ctrl-C comes in the middle."""

    def fail(_descriptor: int) -> None:
        raise error

    with Journal(path) as journal:
        journal.append(ok_of(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(JournalError if isinstance(error, OSError) else KeyboardInterrupt):
                journal.append(ok_of(1))
        assert ids_in(path) == [id_of(0)]
        journal.append(ok_of(1))
    assert ids_in(path) == [id_of(0), id_of(1)]


def test_a_file_that_is_moved_aside_while_it_is_opened_is_not_written_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process that overwrites it, and lets its lock go once there is a new one."""
    lock = filelock.lock_descriptor

    def lock_late(descriptor: int, *, blocking: bool) -> bool:
        path.rename(path.with_name("moved.jsonl"))
        path.touch()
        return lock(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", lock_late)
    with pytest.raises(JournalError, match="Another process"):
        Journal(path)


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_is_taken_away_is_noticed(replace: bool, path: Path) -> None:
    with Journal(path) as journal:
        journal.append(ok_of(0))
        path.rename(path.with_name("moved.jsonl"))
        if replace:
            path.touch()
        with pytest.raises(JournalError, match="was deleted or replaced"):
            journal.append(ok_of(1))


def test_a_new_file_is_written_down_in_its_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the system may otherwise lose the name of a file whose content is safe."""
    synced: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with Journal(path) as journal:
        assert synced == [path.parent.stat().st_ino]
        journal.append(ok_of(0))
        assert synced[1:] == [path.stat().st_ino]


def test_standard_output_is_written_to_and_remembers_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    record = ok_of(0)
    for _ in range(2):
        with Journal(Path("-"), overwrite=True) as journal:
            assert (journal.done, journal.notices) == ({}, [])
            journal.append(record)
            assert capfdbinary.readouterr().out == to_line(record)
            with pytest.raises(ValueError, match="has an ok record already"):
                journal.append(record)
    assert not sys.stdout.closed


@needs_pipes
def test_a_pipe_is_written_to(path: Path) -> None:
    os.mkfifo(path)
    ours = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    record = ok_of(0)
    with Journal(path) as journal:
        journal.append(record)
        assert os.read(ours, 65536) == to_line(record)
        os.close(ours)
        with pytest.raises(JournalError, match="the pipe is closed"):
            journal.append(ok_of(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_that_refuses_is_an_error() -> None:
    with Journal(Path("/dev/full")) as journal, pytest.raises(JournalError, match="No space left on device"):
        journal.append(ok_of(0))
    with Journal(Path("/dev/null")) as journal:
        journal.append(ok_of(0))


@needs_pipes
def test_a_pipe_that_is_full_and_does_not_wait_is_an_error() -> None:
    """No endless loop: its writes say neither how much they took nor that they failed."""
    ours, theirs = os.pipe()
    with Journal(Path(f"/dev/fd/{theirs}")) as journal:
        os.set_blocking(journal._stream.fileno(), False)
        with pytest.raises(JournalError, match="Resource temporarily unavailable"):
            journal.append(ok_of(0, "long" * 100_000))
    os.close(ours)
    os.close(theirs)
