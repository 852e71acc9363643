"""Names and folders lead to checkpoints on this machine; what is not here is said with the command that gets it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import expected_model, is_downloaded, locate
from sfvqa.errors import CheckpointError, ModelNotDownloadedError, UnknownModelError
from sfvqa.registry import find_model

REPO = "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame64-s1t4"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no network to reach beyond it."""

    def refuse(*_args: object) -> None:
        raise AssertionError("looking for a model must not touch the network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def fill(cache: Path, files: tuple[str, ...]) -> Path:
    repo = cache / f"models--{REPO.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for name in files:
        (snapshot / name).write_text("{}")
    return snapshot


@pytest.mark.parametrize("name", ["slowfast-7b-64f", "7b-64f", REPO])
def test_a_downloaded_model_is_found_in_the_cache_with_its_commit(cache: Path, name: str) -> None:
    snapshot = fill(cache, FILES)
    found = locate(name)
    assert (found.name, found.folder, found.revision) == ("slowfast-7b-64f", snapshot, COMMIT)
    assert is_downloaded(find_model(name))


def test_a_model_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(
        ModelNotDownloadedError, match=r"`sfvqa models pull slowfast-7b-64f` \(17\.0 GB, licence CC BY-NC 4\.0\)"
    ):
        locate("slowfast-7b-64f")
    assert not is_downloaded(find_model("slowfast-7b-64f"))


def test_the_downloaded_model_is_expected_to_run_and_the_bundled_one_where_there_is_none(cache: Path) -> None:
    assert expected_model().name == "tiny"
    fill(cache, FILES)
    assert expected_model().name == "slowfast-7b-64f"


@pytest.mark.parametrize("missing", FILES)
def test_half_a_download_names_what_it_lacks(cache: Path, missing: str) -> None:
    fill(cache, tuple(name for name in FILES if name != missing))
    with pytest.raises(ModelNotDownloadedError, match=f"only partly downloaded.*lacks {missing}"):
        locate("slowfast-7b-64f")
    assert not is_downloaded(find_model("slowfast-7b-64f"))


def test_a_download_that_lacks_a_shard_is_half_a_download(cache: Path) -> None:
    snapshot = fill(cache, (*FILES, "a.safetensors"))
    (snapshot / "model.safetensors").unlink()
    index = snapshot / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')
    with pytest.raises(ModelNotDownloadedError, match=r"lacks b\.safetensors"):
        locate("slowfast-7b-64f")
    (snapshot / "b.safetensors").touch()
    assert is_downloaded(find_model("slowfast-7b-64f"))
    for half in ("[]", '{"weight_m', '{"weight_map": {}}'):
        index.write_text(half)
        assert not is_downloaded(find_model("slowfast-7b-64f"))


@pytest.mark.parametrize("name", ["5", '["x"]', "null"])
def test_an_index_that_names_no_files_is_half_a_download(cache: Path, name: str) -> None:
    """`models list` and `doctor`, which look at every model, ended in a TypeError."""
    index = fill(cache, ("config.json", "tokenizer.json")) / "model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {{"a": "model.safetensors", "b": {name}}}}}')
    assert not is_downloaded(find_model(REPO))
    with pytest.raises(ModelNotDownloadedError, match=r"lacks model\.safetensors"):
        locate(REPO)


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ("mine", "./mine", tmp_path / "mine", str(tmp_path / "mine")):
        found = locate(given)
        assert found.folder.resolve() == tmp_path / "mine"
        assert (found.name, found.spec, found.revision) == (str(given), None, None)


def test_a_registered_name_wins_over_a_folder_but_not_over_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    (tmp_path / "assets" / "tiny").mkdir(parents=True)
    assert locate("tiny").folder == tmp_path / "assets" / "tiny"
    assert locate("./tiny").spec is None


def test_what_is_neither_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"Did you mean .*slowfast-7b-64f"):
        locate("slowfast-7b-65f")
    with pytest.raises(UnknownModelError, match="no folder"):
        locate(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        locate(tmp_path / "file")


def test_an_installation_without_its_bundled_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    with pytest.raises(CheckpointError, match="Reinstall sfvqa"):
        locate("tiny")


def test_looking_for_a_model_waits_for_no_torch() -> None:
    code = "import sys; from sfvqa.checkpoints.find import locate, is_downloaded; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
