"""How servers are found: only those that run, only in a folder that nobody else can change, and only by the same."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.errors import ServerError
from sfvqa.registry import load_registry
from sfvqa.serve.status import Served, ServerStatus, asked_for_as_dict, downloads_as_they_are, model_files, servers
from tests.windows import as_on_windows, needs_sockets

pytestmark = needs_sockets

CACHE_BYTES = 10**10


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own runtime folder, not made yet."""
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def served(name: str | None = "tiny", **other: Any) -> Served:
    settings, place = ModelSettings("tiny"), locate("tiny").folder.resolve()
    facts: dict[str, Any] = {
        "model": "tiny",
        "asked_for": asked_for_as_dict(name, settings),
        "quantization": "none",
        "folder": str(place),
        "files": model_files(place),
        "downloads": downloads_as_they_are(),
        "num_frames": 32,
        "strategy": "uniform",
        "cache_bytes": CACHE_BYTES,
    }
    return Served(**facts | other)


def announce(**other: Any) -> ServerStatus:
    return replace(ServerStatus.new("http://127.0.0.1:1", served(), 1.0), **other)


def test_a_server_is_found_while_it_runs(folder: Path) -> None:
    """By its file and lock, with all that it says of itself."""
    assert list(servers()) == []
    own = announce()
    with own.announced():
        assert list(servers()) == [own]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / f"{own.id}.json").stat().st_mode) == 0o600
        assert own.token not in json.dumps(own.shown())
    assert list(servers()) == []
    assert list(folder.iterdir()) == []


def test_what_a_dead_server_left_behind_is_removed(folder: Path) -> None:
    """It was killed; another process may have its number by now, ours for one."""
    program = (
        "import os, signal, sys; from tests.serve.test_status import announce\n"
        "with announce(pid=int(sys.argv[1])).announced() as _: os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(os.getpid())], check=False, cwd=Path(__file__).parents[2])
    (left,) = folder.glob("*.json")
    left.with_suffix(".sock").touch()
    assert list(servers()) == []
    assert list(folder.iterdir()) == []


def test_it_is_announced_on_windows_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server came up there: what tells of it was put in place, and removed, while it was open.

    And locked, so that no other process could have read it.
    """
    as_on_windows(monkeypatch)
    own = announce()
    with own.announced():
        assert list(servers()) == [own]
    assert list(folder.iterdir()) == []


def test_on_windows_a_server_ends_in_order_while_others_look_at_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have open stays, and goes when servers are next looked for."""
    as_on_windows(monkeypatch)
    with contextlib.ExitStack() as looking:
        with announce().announced():
            looking.enter_context(next(folder.glob("*.lock")).open("rb"))
        assert len(list(folder.iterdir())) >= 2
    assert list(servers()) == []
    assert list(folder.iterdir()) == []


def test_files_that_are_no_announcement_are_passed_over(folder: Path) -> None:
    with announce().announced():
        for number, text in enumerate(("", "[]", "{}", '{"served": {}}', "\x00")):
            (folder / f"{number}.json").write_text(text)
        assert len(list(servers())) == 1


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_folder_that_is_open_to_others_is_not_looked_into(folder: Path, mode: int) -> None:
    """Whoever can write there could answer in place of the user's own server, and see the videos."""
    with announce().announced():
        folder.chmod(mode)
        assert list(servers()) == []
        folder.chmod(0o700)


def test_a_folder_below_one_that_all_may_change_is_none(folder: Path) -> None:
    """It could be put aside, and another one in its place."""
    folder.parent.chmod(0o777)
    with pytest.raises(ServerError, match="can be changed by others"):
        announce()
    assert list(servers()) == []


def test_another_users_folder_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(0o700)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(ServerError, match="Set SFVQA_RUNTIME_DIR"):
        announce()
    assert list(servers()) == []


def test_a_link_to_a_folder_is_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServerError, match="can be changed by others"):
        announce()


def test_a_socket_has_a_path_that_sockets_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems have runtime folders of a hundred characters; a folder made for the socket goes with it."""
    monkeypatch.setenv("SFVQA_RUNTIME_DIR", str(tmp_path / ("long" * 30)))
    own = announce()
    assert len(own.socket) < 100
    beside = Path(own.socket).parent
    assert stat.S_IMODE(beside.stat().st_mode) == 0o700
    with own.announced():
        Path(own.socket).touch()
    assert not beside.exists()


@pytest.mark.usefixtures("folder")
class TestTheSame:
    """A server answers in place of a command only if that would use the same."""

    def test_model_and_settings(self) -> None:
        own = served()
        assert own.is_the_same("tiny", ModelSettings("tiny"), CACHE_BYTES)
        for other in (
            ModelSettings("tiny", "cuda"),
            ModelSettings("tiny", dtype="float32"),
            ModelSettings("tiny", attention="eager"),
            ModelSettings("tiny", quantization="none"),
            ModelSettings("tiny", random_weights=True),
        ):
            assert not own.is_the_same("tiny", other, CACHE_BYTES)
        assert not own.is_the_same(None, ModelSettings(""), CACHE_BYTES)
        assert not own.is_the_same("tiny", ModelSettings("tiny"), 0)

    def test_a_model_that_is_named_may_be_one_that_was_chosen(self) -> None:
        assert served(None).is_the_same("tiny", ModelSettings("tiny"), CACHE_BYTES)
        assert served(None).is_the_same(None, ModelSettings(""), CACHE_BYTES)

    def test_a_model_pulled_since_may_be_chosen_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        own = served(None)
        repository = next(spec.repo_id for spec in load_registry() if spec.repo_id)
        (tmp_path / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc").mkdir(parents=True)
        assert not own.is_the_same(None, ModelSettings(""), CACHE_BYTES)
        assert own.is_the_same("tiny", ModelSettings("tiny"), CACHE_BYTES)

    def test_weights_that_changed_are_others(self, tmp_path: Path) -> None:
        place = tmp_path / "model"
        shutil.copytree(locate("tiny").folder, place)
        own = served(str(place), model=str(place), folder=str(place), files=model_files(place))
        settings = ModelSettings(str(place))
        assert locate(str(place)).name == str(place)
        assert own.is_the_same(str(place), settings, CACHE_BYTES)
        weights = place / "model.safetensors"
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
        assert not own.is_the_same(str(place), settings, CACHE_BYTES)

    @pytest.mark.parametrize("name", ["SFVQA_MODELS", "SFVQA_CACHE_DIR", "HF_HOME", "CUDA_VISIBLE_DEVICES"])
    def test_other_variables_may_make_other_answers(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        own = served()
        monkeypatch.setenv(name, "elsewhere")
        assert not own.is_the_same("tiny", ModelSettings("tiny"), CACHE_BYTES)

    def test_another_version_is_another_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = served()
        monkeypatch.setattr(sfvqa, "__version__", "999")
        assert not own.is_the_same("tiny", ModelSettings("tiny"), CACHE_BYTES)
