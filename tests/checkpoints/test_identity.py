"""A model that may be another has another identity, whatever it is loaded from."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import CheckpointLocation, identify_checkpoint, identify_model, locate
from sfvqa.errors import CheckpointError
from sfvqa.registry import find_model
from sfvqa.video.readers import local_file

TINY = locate("tiny")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(params=["whole", "sampled"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder nobody registered; one so large that its weights are sampled, too."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(TINY.folder, copy)
    if request.param == "sampled":
        monkeypatch.setattr(local_file, "WHOLE_LIMIT_BYTES", 0)
    return copy


def identity(folder: Path) -> str:
    return identify_model(folder, random_weights=False)


def change_a_weight(folder: Path) -> None:
    """In place, and where no sample is taken."""
    with next(folder.glob("*.safetensors")).open("r+b") as stream:
        stream.seek(local_file.SAMPLE_BYTES + 1)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))


def change_the_config(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    fields["vision_config"]["image_size"] *= 2
    (folder / "config.json").write_text(json.dumps(fields))


def say_otherwise_how_frames_become_pixels(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')


def put_an_index_beside(folder: Path) -> None:
    """The weights are then of another file."""
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    index = {"weight_map": {"a": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CHANGES = [change_a_weight, change_the_config, say_otherwise_how_frames_become_pixels, put_an_index_beside]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_another_model(folder: Path, change: Callable[[Path], None]) -> None:
    before = identity(folder)
    change(folder)
    assert identity(folder) != before


def test_a_moved_folder_is_the_same_model_and_the_tokenizer_does_not_matter(folder: Path) -> None:
    before = identity(folder)
    moved = folder.rename(folder.with_name("moved"))
    (moved / "tokenizer_config.json").write_text("{}")
    assert identity(moved) == before


def test_the_bundled_model_is_its_files() -> None:
    """Its config too, which may change with the package while the weights do not."""
    found = identify_model("tiny", random_weights=False)
    assert found.startswith("tiny:whole:")
    assert found == identify_checkpoint(TINY, random_weights=False)


def test_a_pulled_model_is_its_commit_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    spec = find_model("slowfast-7b-64f")
    location = CheckpointLocation(spec.name, tmp_path / "absent", spec, COMMIT)
    assert identify_checkpoint(location, random_weights=False) == f"{spec.repo_id}@{COMMIT}"
    other = replace(location, revision=COMMIT[::-1])
    assert identify_checkpoint(other, random_weights=False) != f"{spec.repo_id}@{COMMIT}"


def test_random_weights_are_those_of_an_architecture() -> None:
    spec = find_model("bench-0.5b")
    location = CheckpointLocation(spec.name, TINY.folder, spec)
    found = identify_checkpoint(location, random_weights=True)
    assert found.startswith("random:bench-0.5b:")
    deeper = replace(spec, architecture=replace(spec.architecture, num_layers=25))
    assert identify_checkpoint(replace(location, spec=deeper), random_weights=True) != found
    untrained = replace(TINY, revision=None)
    assert identify_checkpoint(untrained, random_weights=True) != identify_checkpoint(TINY, random_weights=False)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file") as caught:
        identity(tmp_path)
    assert caught.value.remedy
