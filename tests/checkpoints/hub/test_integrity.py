"""Verifying finds a single flipped bit and a file cut short, and needs no network for it."""

import shutil
from pathlib import Path

import pytest

from sfvqa.checkpoints.download import FileCheck, check_folder, plan_pull, pull
from sfvqa.checkpoints.find import locate
from sfvqa.registry import ModelSpec
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, checkpoint_of_numbers, flip_a_bit
from tests.inference.steps import run
from tests.windows import needs_links


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
    return {check.path.name: check for check in checks}


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
    assert set(faults(copied)) == {SHARDS[0]}


def test_a_link_that_leads_nowhere_is_found(pulled: Path) -> None:
    (pulled / SHARDS[0]).resolve().unlink()
    assert "cannot be read" in faults(pulled)[SHARDS[0]]


@needs_links
def test_a_link_of_ones_own_states_nothing(pulled: Path, tmp_path: Path) -> None:
    """A folder of links to files with plain names is as good as a folder of files."""
    shutil.copytree(pulled, tmp_path / "plain")
    (tmp_path / "links").mkdir()
    for path in (tmp_path / "plain").iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert {check.compared_with for check in check(tmp_path / "links").values()} == {None}
