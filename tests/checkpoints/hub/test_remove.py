"""Removing takes one repository off the disk, with every commit and part of it, and nothing beside it."""

import errno
from pathlib import Path

import pytest

from sfvqa.checkpoints.download import commits_here, disk_bytes, plan_pull, pull, remove, repository_folder
from sfvqa.checkpoints.find import fixed_commit, is_downloaded, records_path
from sfvqa.errors import CheckpointError, DownloadError, ModelError, ModelNotDownloadedError, UsageError
from sfvqa.registry import ModelSpec, find_model
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import SHARDS, checkpoint_of_numbers
from tests.inference.steps import run


def test_all_commits_go_and_the_neighbour_stays(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    old, new = hub.head, hub.publish(checkpoint_of_numbers(seed=1))
    run(pull(plan_pull(spec, update=True)))
    neighbour = repository_folder(spec).parent / "models--acme--other" / "snapshots" / ("c" * 40) / "config.json"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text("{}")

    assert commits_here(spec) == sorted((old, new))
    assert disk_bytes(spec) > 1_000_000
    remove(spec)
    assert not repository_folder(spec).exists()
    assert neighbour.read_text() == "{}"
    assert fixed_commit(spec) is None
    with pytest.raises(ModelNotDownloadedError, match="nothing to remove"):
        remove(spec)


def test_half_a_download_can_be_removed(hub: FakeHub, spec: ModelSpec) -> None:
    """What huggingface_hub leaves when it is killed, too."""
    hub.statuses[f"/storage/{hub.head}/{SHARDS[1]}"] = (403, {})
    with pytest.raises(DownloadError):
        run(pull(plan_pull(spec)))
    assert not is_downloaded(spec)
    (repository_folder(spec) / "blobs" / "0123.incomplete").write_bytes(bytes(1000))
    assert disk_bytes(spec) > 401_000
    remove(spec)
    assert not repository_folder(spec).exists()


def test_a_record_that_cannot_be_read_is_found_out_before_anything_is_deleted(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    records_path().write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        remove(spec)
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
        remove(spec)
    assert fixed_commit(spec) == hub.head


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_removed_says_why(spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="tiny is part of the package"):
        commits_here(find_model("tiny"))
    with pytest.raises(ModelNotDownloadedError):
        commits_here(find_model("bench-0.5b"))
    folder = repository_folder(spec)
    Path(folder / "snapshots").mkdir(parents=True)
    (folder / "snapshots" / "a-file").touch()
    with pytest.raises(CheckpointError, match="Remove it by hand"):
        remove(spec)
