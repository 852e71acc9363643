"""`sfvqa models verify` says of a checkpoint what `ask` would say, before minutes go into loading it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sfvqa.cli.demo import load_demo_videos
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, connected, flip_a_bit, shard
from tests.cli.conftest import RunCli
from tests.inference.small_checkpoint import write_checkpoint, write_reference_checkpoint

ASK = ("ask", load_demo_videos()[0].path, "What happens?", "--device", "cpu", "--model")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint in the published form, in two shards."""
    ours = write_checkpoint(tmp_path / "ours")
    return shard(write_reference_checkpoint(tmp_path / "reference", ours), tmp_path / "published")


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path, run_cli: RunCli) -> Iterator[FakeHub]:
    with connected(tmp_path, monkeypatch) as hub:
        hub.publish_folder(published)
        assert run_cli("models", "pull", "small", "--yes").exit_code == 0
        hub.requests.clear()
        yield hub


def test_it_names_the_damaged_file_and_pull_mends_it(pulled: FakeHub, run_cli: RunCli, published: Path) -> None:
    run = run_cli("models", "verify", "small", "--offline")
    assert run.exit_code == 0
    assert run.stdout.startswith(f"small at commit {pulled.head}: {len(list(published.iterdir()))} files, ")
    assert run.stdout.endswith(", loadable; all hashes match\n")
    assert not pulled.requests
    flip_a_bit(Path(run_cli("models", "path", "small").stdout.strip()) / SHARDS[0])
    run = run_cli("models", "verify", "small")
    assert (run.exit_code, run.stdout) == (4, "")
    assert f"files of small is damaged: {SHARDS[0]} (its sha256 is not" in run.stderr
    assert "Run `sfvqa models pull small`" in run.stderr
    error = json.loads(run_cli("models", "verify", "small", "--json").stdout)["error"]
    assert error["type"] == "CheckpointError"
    assert f"Damaged files were downloaded again: {SHARDS[0]}" in run_cli("models", "pull", "small", "--yes").stderr
    assert run_cli("models", "verify", "small").exit_code == 0


def test_it_says_when_there_is_nothing_to_compare_with(run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("models", "verify", "tiny")
    assert run.exit_code == 0
    assert run.stdout.endswith("loadable; there are no hashes to compare with\n")
    folder = run_cli("models", "path", "tiny").stdout.strip()
    document = json.loads(run_cli("models", "verify", folder, "--json").stdout)
    assert (document["schema_version"], document["revision"]) == (1, None)
    assert {file["compared_with"] for file in document["files"]} == {None}
    (tmp_path / "config.json").write_text("{}")
    run = run_cli("models", "verify", str(tmp_path))
    assert run.exit_code == 4
    assert "lacks model.safetensors, tokenizer.json" in run.stderr


def add_a_tensor(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"model.extra.weight": np.zeros(3, np.float32)}))


def widen_the_head(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"lm_head.weight": np.zeros((9, 9), np.float32)}))


def drop_the_norm(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop("model.norm.weight"))


def empty_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def break_the_config(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "num_attention_heads": "four"}))


def name_a_file_elsewhere(folder: Path) -> None:
    """It is whole, and outside of the folder."""
    (folder / SHARDS[1]).rename(folder.parent / SHARDS[1])
    index = folder / INDEX
    index.write_text(index.read_text().replace(SHARDS[1], f"../{SHARDS[1]}"))


def change(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the tensors and join them in one file, without an index to betray it."""
    tensors = {name: tensor for file in SHARDS for name, tensor in load_file(folder / file).items()}
    edit(tensors)
    for name in (INDEX, *SHARDS):
        (folder / name).unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (add_a_tensor, "unexpected: "),
        (widen_the_head, "lm_head.weight is [9, 9], not "),
        (drop_the_norm, "missing: "),
        (empty_the_tokenizer, "The tokenizer in "),
        (break_the_config, "config.json"),
        (name_a_file_elsewhere, "does not say which file holds which tensor"),
    ],
)
def test_it_refuses_what_ask_would_refuse(
    damage: Callable[[Path], None], said: str, run_cli: RunCli, published: Path
) -> None:
    assert run_cli("models", "verify", str(published)).exit_code == 0
    damage(published)
    verified, asked = run_cli("models", "verify", str(published)), run_cli(*ASK, str(published), "-q")
    assert (verified.exit_code, asked.exit_code) == (4, 4)
    assert said in verified.stderr
    assert verified.stderr == asked.stderr
