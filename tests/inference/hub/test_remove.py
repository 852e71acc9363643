"""Removing takes one repository off the disk, with every commit and part of it, and nothing beside it."""

import errno
from pathlib import Path

import pytest

from sfvqa.errors import CheckpointError, ModelError, ModelNotDownloadedError, UsageError
from sfvqa.inference.hub import disk
from sfvqa.inference.hub.cache import disk_bytes, repository_folder
from sfvqa.inference.hub.progress import Stage
from sfvqa.inference.hub.pull import plan_pull, pull
from sfvqa.inference.hub.records import fixed_commit, records_path
from sfvqa.inference.hub.remove import plan_removal, remove
from sfvqa.inference.locate import is_downloaded
from sfvqa.registry import ModelSpec, find_model
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import checkpoint_of_numbers
from tests.inference.steps import run


def test_all_commits_go_and_the_neighbour_stays(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    old, new = hub.head, hub.publish(checkpoint_of_numbers(seed=1))
    run(pull(plan_pull(spec, update=True)))
    neighbour = disk.cache_folder() / "models--acme--other" / "snapshots" / ("c" * 40) / "config.json"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text("{}")

    plan = plan_removal(spec)
    assert plan.commits == tuple(sorted((old, new)))
    assert plan.freed_bytes == disk_bytes(spec) > 1_000_000
    assert is_downloaded(spec), "a plan deletes nothing"
    remove(plan)
    assert not repository_folder(spec).exists()
    assert neighbour.read_text() == "{}"
    assert fixed_commit(spec) is None
    with pytest.raises(ModelNotDownloadedError, match="nothing to remove"):
        plan_removal(spec)


def test_half_a_download_can_be_removed(hub: FakeHub, spec: ModelSpec) -> None:
    hub.pause_seconds = 0.01
    steps = pull(plan_pull(spec))
    next(step for step in steps if step.stage is Stage.DOWNLOAD and step.file.endswith(".safetensors"))
    steps.close()
    plan = plan_removal(spec)
    assert plan.freed_bytes == disk_bytes(spec) > 1000
    remove(plan)
    assert not repository_folder(spec).exists()


def test_a_record_that_cannot_be_read_is_found_out_before_anything_is_deleted(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    records_path().write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        plan_removal(spec)
    assert hub.head in {path.name for path in repository_folder(spec).glob("snapshots/*")}


def test_a_cache_that_may_not_be_written_is_a_clear_error(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub logs what it may not delete, or raises; that was "The system refused something: 'main'"."""
    run(pull(plan_pull(spec)))

    def refuse(path: object, **_settings: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(CheckpointError, match="could not be removed entirely"):
        remove(plan_removal(spec))
    assert fixed_commit(spec) == hub.head


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_removed_says_why(spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="tiny is part of the package"):
        plan_removal(find_model("tiny"))
    with pytest.raises(ModelNotDownloadedError):
        plan_removal(find_model("bench-0.5b"))
    folder = repository_folder(spec)
    Path(folder / "snapshots").mkdir(parents=True)
    (folder / "snapshots" / "a-file").touch()
    with pytest.raises(CheckpointError, match=f"Remove the folder {folder} by hand"):
        plan_removal(spec)
