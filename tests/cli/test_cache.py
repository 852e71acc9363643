"""`sfvqa cache`: what is kept of videos can be seen, measured and deleted."""

import json
import os
import time
from pathlib import Path

import pytest

from sfvqa.inference.video_cache.store import StoredEntry, VideoCache
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.inference.video_cache.seen import key_of, seen_of


@pytest.fixture
def store() -> VideoCache:
    """Two videos, the first of which was used last, and yesterday."""
    store = VideoCache()
    for number in (0, 1):
        seen = seen_of(number, path=Path(f"/videos/{number}\x1b[31m.mp4"))
        assert store.save(key_of(number), seen) is None
    first, second = (entry.path for entry in reversed(store.entries()))
    for path, age_seconds in ((first, 86_400 + 60), (second, 3 * 86_400)):
        os.utime(path, (time.time() - age_seconds,) * 2)
    return store


def entry_of(store: VideoCache, number: int) -> StoredEntry:
    return next(entry for entry in store.entries() if entry.facts and entry.facts.key["content"] == f"whole:{number}")


def test_what_is_kept_is_listed_the_last_used_first(run_cli: RunCli, store: VideoCache) -> None:
    run = run_cli("cache", "list")
    size = f"{entry_of(store, 0).size_bytes / 1000:.1f} kB"
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout == (
        f"/videos/0\\x1b[31m.mp4  (2 frames, {size}, last used 1 day ago)\n"
        "  Encoded by tiny@0 in float32 on cpu: uniform sampling, crop center, reader pyav\n\n"
        f"/videos/1\\x1b[31m.mp4  (2 frames, {size}, last used 3 days ago)\n"
        "  Encoded by tiny@0 in float32 on cpu: uniform sampling, crop center, reader pyav\n"
    )


def test_the_list_as_json(run_cli: RunCli, store: VideoCache) -> None:
    document = json.loads(run_cli("cache", "list", "--json").stdout)
    assert (document["schema_version"], document["folder"]) == (1, str(store.folder))
    first, second = document["videos"]
    assert (first["video"], second["video"]) == ("/videos/0\x1b[31m.mp4", "/videos/1\x1b[31m.mp4")
    assert (first["num_frames"], first["damaged"]) == (2, None)
    assert (first["made_with"], first["size_bytes"]) == (key_of(0).to_dict(), entry_of(store, 0).size_bytes)
    assert first["file"] == str(entry_of(store, 0).path)
    assert first["last_used"] > second["last_used"]


def test_damaged_entries_are_marked(run_cli: RunCli, store: VideoCache) -> None:
    path = entry_of(store, 0).path
    path.write_bytes(path.read_bytes()[:-1])
    run = run_cli("cache", "list")
    assert (run.exit_code, run.stderr) == (0, "")
    assert f"{path}  (" in run.stdout
    assert "  Damaged: it is cut off, or longer than it was. It cannot be used.\n" in run.stdout
    assert "/videos/1" in run.stdout
    videos = json.loads(run_cli("cache", "list", "--json").stdout)["videos"]
    told = [(video["damaged"] is None, video["video"]) for video in videos]
    assert told == [(False, None), (True, "/videos/1\x1b[31m.mp4")], "the damage was its last use"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (10 * 86_400, "10 days ago")],
)
def test_the_last_use_is_said_in_words(run_cli: RunCli, store: VideoCache, seconds: float, words: str) -> None:
    os.utime(entry_of(store, 0).path, (time.time() - seconds - 0.5,) * 2)
    assert f"last used {words})" in run_cli("cache", "list").stdout


def test_the_size(run_cli: RunCli, store: VideoCache) -> None:
    total = store.size_bytes()
    assert run_cli("cache", "size").stdout == f"{total / 1000:.1f} kB (2 videos) in {store.folder}\n"
    document = json.loads(run_cli("cache", "size", "--json").stdout)
    assert document == {"schema_version": 1, "folder": str(store.folder), "num_videos": 2, "size_bytes": total}


def test_the_folder(run_cli: RunCli, tmp_path: Path) -> None:
    folder = str(tmp_path / "cache" / "videos")
    assert run_cli("cache", "path").stdout == f"{folder}\n"
    assert json.loads(run_cli("cache", "path", "--json").stdout) == {"schema_version": 1, "folder": folder}
    assert not Path(folder).exists()


def test_clearing(run_cli: RunCli, store: VideoCache) -> None:
    total = store.size_bytes()
    run = run_cli("cache", "clear", "--yes", "--json")
    assert run.exit_code == 0
    assert json.loads(run.stdout) == {"schema_version": 1, "folder": str(store.folder), "freed_bytes": total}
    assert "deletes 2 encoded videos" in run.stderr
    assert f"{total / 1000:.1f} kB freed." in run.stderr
    assert store.entries() == []


def test_without_a_terminal_clearing_needs_a_yes(run_cli: RunCli, store: VideoCache) -> None:
    run = run_cli("cache", "clear")
    assert run.exit_code == 2
    assert "Add --yes." in run.stderr
    assert run.stderr.count("Clearing deletes") == 1
    assert len(store.entries()) == 2


@pytest.mark.parametrize(("answer", "exit_code", "left"), [(True, 0, 0), (False, 1, 2)])
def test_on_a_terminal_it_asks(
    run_on_terminal: RunOnTerminal,
    monkeypatch: pytest.MonkeyPatch,
    store: VideoCache,
    answer: bool,
    exit_code: int,
    left: int,
) -> None:
    questions: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        assert err
        questions.append(question)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    total = store.size_bytes()
    assert run_on_terminal("cache", "clear")[0] == exit_code
    assert questions == [f"Delete {total / 1000:.1f} kB?"]
    assert len(store.entries()) == left


def test_where_nothing_is_kept_there_is_nothing_to_ask(run_cli: RunCli, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "videos"
    assert run_cli("cache", "list").stdout == f"No encoded videos in {folder}.\n"
    assert run_cli("cache", "size").stdout == f"0 bytes (0 videos) in {folder}\n"
    run = run_cli("cache", "clear", "--json")
    assert (run.exit_code, json.loads(run.stdout)["freed_bytes"]) == (0, 0)
    assert f"There is nothing in {folder}." in run.stderr
    assert run_cli("cache", "clear", "-q").stderr == ""
    assert not folder.exists()


@pytest.mark.parametrize("command", [("list",), ("size",), ("clear", "--yes")])
def test_a_folder_that_cannot_be_read_is_an_error_with_a_remedy(
    run_cli: RunCli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "videos").touch()
    run = run_cli("cache", *command)
    assert run.exit_code == 1
    assert "cannot be read: Not a directory." in run.stderr
    assert "SFVQA_CACHE_DIR" in run.stderr
