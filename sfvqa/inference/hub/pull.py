"""A model's files from a hub into its cache: what that takes, then the download; every file is checked."""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from sfvqa.errors import DownloadError
from sfvqa.inference.hub.cache import (
    blob_path,
    blobs_folder,
    bytes_on_disk,
    incomplete_path,
    link_blob,
    ref_path,
    repository_folder,
    snapshot_folder,
    write_ref,
)
from sfvqa.inference.hub.disk import cache_folder, check_room, free_bytes
from sfvqa.inference.hub.failures import hub_failures
from sfvqa.inference.hub.integrity import hash_progressively, header_fault
from sfvqa.inference.hub.listing import HASH_NAMES, HubFile, HubListing, fetch_listing, hub_headers
from sfvqa.inference.hub.progress import ByteProgress, Stage
from sfvqa.inference.hub.records import fixed_commit, is_commit, record_commit
from sfvqa.inference.hub.transfer import transfer
from sfvqa.inference.locate import CheckpointLocation, is_downloaded, locate_registered
from sfvqa.registry import ModelSpec


@dataclass(frozen=True)
class PullPlan:
    """What a pull will take: the commit, its files, where they go, and how many bytes are still to come.

    `previous_commit` is the one the model stood at before, None when nothing was recorded.
    """

    spec: ModelSpec
    listing: HubListing
    folder: Path
    missing_bytes: int
    free_bytes: int
    previous_commit: str | None

    @property
    def changes_commit(self) -> bool:
        """Whether the model moves from one commit to another."""
        return self.previous_commit not in (None, self.listing.commit)


@dataclass(frozen=True)
class PulledModel:
    """What a pull brought about; `replaced` are files that were here and damaged."""

    location: CheckpointLocation
    downloaded_bytes: int
    replaced: tuple[str, ...]


def plan_pull(spec: ModelSpec, *, update: bool = False) -> PullPlan:
    """Ask the hub what pulling a model takes: the commit it stays at, or with `update` the newest.

    Writes nothing. Raises DownloadError for what the hub or the network refuses, and when the disk has no room.
    """
    previous = fixed_commit(spec)
    revision = spec.revision if update or previous is None else previous
    listing = fetch_listing(spec, revision)
    missing = sum(_missing_bytes(spec, file) for file in listing.files)
    check_room(missing)
    return PullPlan(spec, listing, snapshot_folder(spec, listing.commit), missing, free_bytes(), previous)


def pull(plan: PullPlan) -> Generator[ByteProgress, None, PulledModel]:
    """Carry a plan out, yielding progress; what it brought about is the return value.

    Files that are here are checked as well, and fetched again when they are damaged. An interruption keeps every byte
    that came. The commit is recorded at once when no other is usable, else when the new one is whole.
    Raises DownloadError; a file whose hash is not the stated one is removed.
    """
    spec, listing = plan.spec, plan.listing
    with hub_failures(spec, listing.commit), _alone(spec):
        if not is_downloaded(spec):
            record_commit(spec, listing.commit)
        replaced = yield from _check_present(plan)
        missing = [file for file in listing.files if not blob_path(spec, file).exists()]
        check_room(sum(_missing_bytes(spec, file) for file in missing))
        before = sum(bytes_on_disk(incomplete_path(spec, file)) for file in missing)
        total = sum(_missing_bytes(spec, file) for file in missing) + before
        checked = listing.total_bytes - sum(file.size_bytes for file in missing)
        fetched = 0
        for file in listing.files:
            if file in missing and not blob_path(spec, file).exists():  # two files may have the same bytes
                for done in _fetch(spec, listing, file):
                    yield ByteProgress(Stage.DOWNLOAD, fetched + done, total, file.name)
                yield from _accept(spec, file, checked, listing.total_bytes)
                fetched, checked = fetched + file.size_bytes, checked + file.size_bytes
            link_blob(spec, listing.commit, file)
        _check_headers(plan)
        if not is_commit(spec.revision) and (plan.previous_commit != listing.commit or not ref_path(spec).exists()):
            write_ref(spec, listing.commit)
    record_commit(spec, listing.commit)
    return PulledModel(locate_registered(spec), total - before, replaced)


def _missing_bytes(spec: ModelSpec, file: HubFile) -> int:
    if blob_path(spec, file).exists():
        return 0
    there = bytes_on_disk(incomplete_path(spec, file))
    return file.size_bytes - there if there <= file.size_bytes else file.size_bytes


@contextlib.contextmanager
def _alone(spec: ModelSpec) -> Iterator[None]:
    """Keep a second pull of the same model from writing to the same files."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, but not marked so

    lock = cache_folder() / ".locks" / repository_folder(spec).name / "sfvqa-pull.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    blobs_folder(spec).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=0.2))
        except TimeoutError as error:
            raise DownloadError(
                f"Another process is pulling {spec.name}.", "Wait until it is done, or end it."
            ) from error
        yield


def _check_present(plan: PullPlan) -> Generator[ByteProgress, None, tuple[str, ...]]:
    """Remove files in the cache whose bytes are not the stated ones, with the links that lead to them; say which."""
    present = [file for file in plan.listing.files if blob_path(plan.spec, file).exists()]
    before, damaged = 0, []
    for file in present:
        blob = blob_path(plan.spec, file)
        digest = yield from hash_progressively(blob, file.stated_hash, file.name, before, plan.listing.total_bytes)
        if digest != file.stated_hash:
            (plan.folder / file.name).unlink(missing_ok=True)
            blob.unlink()
            damaged.append(file.name)
        before += file.size_bytes
    return tuple(damaged)


def _fetch(spec: ModelSpec, listing: HubListing, file: HubFile) -> Iterator[int]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not marked so

    url = hf_hub_url(listing.repo_id, file.name, revision=listing.commit)
    yield from transfer(url, build_hf_headers(headers=hub_headers()), incomplete_path(spec, file), file.size_bytes)


def _accept(spec: ModelSpec, file: HubFile, before: int, total: int) -> Iterator[ByteProgress]:
    """Give a fetched file its place if its bytes are the stated ones; else remove it and raise DownloadError."""
    incomplete = incomplete_path(spec, file)
    digest = yield from hash_progressively(incomplete, file.stated_hash, file.name, before, total)
    if digest != file.stated_hash:
        incomplete.unlink()
        raise DownloadError(
            f"{file.name} came with other bytes than the hub states: its {HASH_NAMES[len(digest)]} is {digest}, "
            f"not {file.stated_hash}.",
            "It was removed; pull again. If that repeats, something on the way, or the disk, changes files.",
        )
    incomplete.replace(blob_path(spec, file))


def _check_headers(plan: PullPlan) -> None:
    for file in plan.listing.files:
        if fault := header_fault(plan.folder / file.name):
            raise DownloadError(
                f"{file.name} of {plan.listing.repo_id} at {plan.listing.commit[:12]} is broken as published: {fault}.",
                "Tell its authors; `--update` takes a newer commit if there is one.",
            )


def adopt(spec: ModelSpec) -> CheckpointLocation:
    """Find a model on this machine alone and keep its commit; ModelNotDownloadedError when it is not all here."""
    location = locate_registered(spec)
    if is_commit(location.revision) and location.revision is not None:
        record_commit(spec, location.revision)
    return location
