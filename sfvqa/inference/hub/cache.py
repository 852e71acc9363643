"""Where the Hugging Face cache keeps a repository: blobs named by their hash, and a folder of links a commit."""

import os
import shutil
from pathlib import Path

from sfvqa.inference.hub.disk import cache_folder
from sfvqa.inference.hub.listing import HASH_NAMES, HubFile
from sfvqa.inference.hub.records import DEFAULT_REVISION
from sfvqa.registry import ModelSpec


def repository_folder(spec: ModelSpec) -> Path:
    """The folder of a model's repository in the cache; it need not exist."""
    from huggingface_hub.file_download import repo_folder_name

    assert spec.repo_id is not None
    return cache_folder() / repo_folder_name(repo_id=spec.repo_id, repo_type="model")


def snapshot_folder(spec: ModelSpec, commit: str) -> Path:
    """The folder of one commit."""
    return repository_folder(spec) / "snapshots" / commit


def blobs_folder(spec: ModelSpec) -> Path:
    """Where the bytes of all commits are."""
    return repository_folder(spec) / "blobs"


def blob_path(spec: ModelSpec, file: HubFile) -> Path:
    """Where the bytes of a file are."""
    return blobs_folder(spec) / file.stated_hash


def incomplete_path(spec: ModelSpec, file: HubFile) -> Path:
    """Where the bytes of a file gather until all are there and right."""
    return blobs_folder(spec) / f"{file.stated_hash}.incomplete"


def bytes_on_disk(path: Path) -> int:
    """Size of a file, 0 when there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def stated_hash(path: Path) -> str | None:
    """What the hub stated of a file in a snapshot: the name of the blob it links to; None for any other file."""
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if len(name) in HASH_NAMES and set(name) <= set("0123456789abcdef") else None


def link_blob(spec: ModelSpec, commit: str, file: HubFile) -> None:
    """Put a file whose bytes are here into the folder of a commit: a relative link, a copy where there can be none."""
    link, blob = snapshot_folder(spec, commit) / file.name, blob_path(spec, file)
    link.parent.mkdir(parents=True, exist_ok=True)
    if stated_hash(link) == file.stated_hash and link.exists():
        return
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(Path(os.path.relpath(blob, link.parent)))
    except OSError:  # Windows gives links to few
        shutil.copyfile(blob, link)


def ref_path(spec: ModelSpec) -> Path:
    """Where the cache keeps the commit that a branch was at when it was last looked up."""
    return repository_folder(spec) / "refs" / (spec.revision or DEFAULT_REVISION)


def write_ref(spec: ModelSpec, commit: str) -> None:
    """Let whoever shares the cache, and has no record of ours, find a commit by its branch."""
    path = ref_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(commit, encoding="utf-8")
    beside.replace(path)


def disk_bytes(spec: ModelSpec) -> int:
    """What a model's repository takes on the disk: all its commits, each file once, and parts of files."""
    folder = repository_folder(spec)
    paths = [*folder.glob("blobs/*"), *folder.glob("snapshots/*/*")]  # links in the latter, where there can be links
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())
