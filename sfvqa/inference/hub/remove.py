"""Takes a pulled model off this machine again, with the tools of its cache."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import CheckpointError, ModelNotDownloadedError, UsageError
from sfvqa.inference.hub.cache import repository_folder
from sfvqa.inference.hub.disk import cache_folder
from sfvqa.inference.hub.records import fixed_commit, forget_commit
from sfvqa.registry import ModelSpec

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy


@dataclass(frozen=True)
class RemovalPlan:
    """What goes: every commit of the model's repository in the cache, and parts of interrupted downloads."""

    spec: ModelSpec
    folder: Path
    commits: tuple[str, ...]
    freed_bytes: int
    strategy: "DeleteCacheStrategy"


def plan_removal(spec: ModelSpec) -> RemovalPlan:
    """Find what removing a model frees; UsageError for a bundled one, ModelNotDownloadedError when it is not here."""
    from huggingface_hub import scan_cache_dir

    if spec.is_bundled:
        raise UsageError(f"{spec.name} is part of the package.", "It goes when sfvqa is uninstalled.")
    if spec.repo_id is None or not (folder := repository_folder(spec)).is_dir():
        raise ModelNotDownloadedError(f"The model {spec.name} is not on this machine.", "There is nothing to remove.")
    fixed_commit(spec)  # a record that cannot be read is found out before anything is deleted
    cache = scan_cache_dir(cache_folder())
    found = next((repo for repo in cache.repos if repo.repo_type == "model" and repo.repo_id == spec.repo_id), None)
    if found is None:
        raise CheckpointError(
            f"The cache does not know what it has of {spec.repo_id} any more.", f"Remove the folder {folder} by hand."
        )
    commits = tuple(sorted(revision.commit_hash for revision in found.revisions))
    strategy = cache.delete_revisions(*commits)
    partial = sum(part.size_on_disk for part in cache.incomplete_files if found.repo_path in part.file_path.parents)
    return RemovalPlan(spec, folder, commits, strategy.expected_freed_size + partial, strategy)


def remove(plan: RemovalPlan) -> None:
    """Carry a plan out, and let the next pull start with the newest commit."""
    with contextlib.suppress(OSError):  # huggingface_hub raises some and logs others
        plan.strategy.execute()
    if plan.folder.exists():
        raise CheckpointError(f"{plan.folder} could not be removed entirely.", "See whose files it holds.")
    forget_commit(plan.spec)
