"""Verifying finds a single flipped bit, a file cut short and an index that lies; and needs no network for it."""

import json
import shutil
from pathlib import Path

import pytest

from sfvqa.inference.hub.integrity import FileCheck, check_folder
from sfvqa.inference.hub.pull import plan_pull, pull
from sfvqa.inference.locate import locate
from sfvqa.registry import ModelSpec
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import INDEX, SHARDS, checkpoint_of_numbers, flip_a_bit
from tests.inference.steps import run


@pytest.fixture
def pulled(hub: FakeHub, spec: ModelSpec) -> Path:
    run(pull(plan_pull(spec)))
    hub.requests.clear()
    return locate("small").folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for name, data in checkpoint_of_numbers().items():
        if "/" not in name:
            (folder / name).write_bytes(data)
    return folder


def check(folder: Path) -> dict[str, FileCheck]:
    _, checks = run(check_folder(folder))
    return {check.name: check for check in checks}


def faults(folder: Path) -> dict[str, str]:
    return {name: check.fault for name, check in check(folder).items() if check.fault}


def test_a_pulled_model_has_the_stated_hashes(hub: FakeHub, pulled: Path) -> None:
    checks = check(pulled)
    assert {name: check.compared_with for name, check in checks.items()} == {
        "config.json": "git-sha1",
        "tokenizer.json": "git-sha1",
        INDEX: "git-sha1",
        SHARDS[0]: "sha256",
        SHARDS[1]: "sha256",
    }
    assert not faults(pulled)
    assert not hub.requests


@pytest.mark.parametrize("name", [SHARDS[1], "config.json"])
def test_a_flipped_bit_is_found(pulled: Path, name: str) -> None:
    flip_a_bit(pulled / name)
    found = faults(pulled)
    assert list(found) == [name]
    assert "is not the one the hub stated" in found[name]


def test_files_from_elsewhere_are_read_and_compared_with_nothing(copied: Path) -> None:
    checks = check(copied)
    assert set(checks) == {"config.json", "tokenizer.json", INDEX, *SHARDS}, "files nobody loads are no concern"
    assert {check.compared_with for check in checks.values()} == {None}
    assert not faults(copied)


def test_a_file_cut_short_is_found_without_a_hash(copied: Path) -> None:
    data = (copied / SHARDS[0]).read_bytes()
    (copied / SHARDS[0]).write_bytes(data[:-1])
    (copied / "config.json").write_text('{"model_type": ')
    found = faults(copied)
    assert set(found) == {SHARDS[0], "config.json"}
    assert "no whole safetensors file" in found[SHARDS[0]]
    assert "no JSON" in found["config.json"]


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ({"weight_map": {"weight_0": SHARDS[1]}}, f"it names weight_0 in {SHARDS[1]}, which does not hold it"),
        ({"weight_map": {"weight_0": "no.safetensors"}}, r"it names no.safetensors, which is not here"),
        ({"weight_map": {}}, "it has no `weight_map`"),
        ([], "it has no `weight_map`"),
    ],
)
def test_an_index_that_lies_is_found(copied: Path, index: object, fault: str) -> None:
    (copied / INDEX).write_text(json.dumps(index))
    assert faults(copied) == {INDEX: fault}


def test_a_link_that_leads_nowhere_is_found(pulled: Path) -> None:
    (pulled / SHARDS[0]).resolve().unlink()
    assert "cannot be read: No such file" in faults(pulled)[SHARDS[0]]


def test_a_link_of_ones_own_states_nothing(pulled: Path, tmp_path: Path) -> None:
    """A folder of links to files with plain names is as good as a folder of files."""
    shutil.copytree(pulled, tmp_path / "plain")
    (tmp_path / "links").mkdir()
    for path in (tmp_path / "plain").iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert {check.compared_with for check in check(tmp_path / "links").values()} == {None}
