"""Models on a Hugging Face hub → its cache on this machine: planned, pulled, verified, removed. Imports no torch.

huggingface_hub does the work. This adds what it leaves open: nothing that could run code is fetched, every wait for a
hub ends, every byte is checked, and an error says what to do.
"""

import contextlib
import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import sfvqa
from sfvqa.checkpoints.find import (
    DEFAULT_REVISION,
    PROCESSOR_FILES,
    SPEECH_WEIGHTS,
    TOKENIZER_FILES,
    fixed_commit,
    forget_commit,
    is_commit,
    is_downloaded,
    missing_speech_files,
    record_commit,
)
from sfvqa.errors import CheckpointError, DownloadError, ModelNotDownloadedError, SfvqaError, UsageError
from sfvqa.registry import PublishedModel, SpeechSpec
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    from huggingface_hub import DryRunFileInfo
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

WANTED = (
    *("config.json", "generation_config.json", "model.safetensors.index.json", "*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja"),
    *PROCESSOR_FILES,
)
WANTED_SPEECH = ("config.json", SPEECH_WEIGHTS, "tokenizer.json", "vocabulary.*", "preprocessor_config.json")
"""The files of a checkpoint, at the top of its repository; nothing that could run code is among them."""

LISTING_SECONDS, LISTING_BYTES = 60.0, 32 << 20
"""What a listing may take, and an answer in it: a repository of a hundred thousand files stays below."""
STALL_SECONDS = 300.0
"""How long no byte may come; huggingface_hub counts those of plain HTTP ten million at a time."""
_SILENCE_SECONDS, _POLL_SECONDS, _STOP_SECONDS = 10.0, 0.1, 12.0
_CHUNK_BYTES = 4 << 20
_HASH_NAMES = {40: "git-sha1", 64: "sha256"}  # what a hub states of small files and of large ones, by its digits
_RESUME = "Rerun the command to resume: files that are complete are kept."


class Stage(StrEnum):
    """What is being done with the bytes."""

    DOWNLOAD = "download"
    CHECK = "check"


@dataclass(frozen=True)
class ByteProgress:
    """How many bytes of a stage are done."""

    stage: Stage
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class FileCheck:
    """Result of checking a file: `compared_with` is sha256, git-sha1 or None; `fault` says what is wrong."""

    path: Path
    size_bytes: int
    compared_with: str | None
    fault: str | None


@dataclass(frozen=True)
class PullPlan:
    """What a pull involves: the commit, its files and their sizes, the target folder, and the bytes still missing.

    `previous_commit` is the one the model was at before, None when nothing was recorded.
    """

    spec: PublishedModel
    commit: str
    file_bytes: Mapping[str, int]
    folder: Path
    missing_bytes: int
    previous_commit: str | None

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(self.file_bytes.values())


def plan_pull(spec: PublishedModel, *, update: bool = False) -> PullPlan:
    """Ask the hub what pulling a model involves, at the recorded commit or, with `update`, the newest.

    Writes nothing. Raises DownloadError for what the hub or the network refuses, and when the disk has no room.
    """
    from huggingface_hub import HfApi, snapshot_download

    previous = fixed_commit(spec)
    revision = spec.revision if update or previous is None else previous

    def ask() -> tuple[str, list["DryRunFileInfo"]]:
        commit = revision
        if not is_commit(commit):
            api = HfApi(library_name="sfvqa", library_version=sfvqa.__version__)
            commit = api.model_info(str(spec.repo_id), revision=revision).sha
        if commit is None or not is_commit(commit):
            raise ValueError(f"{commit!r} is no commit")
        # By commit: for a branch, even a dry run would move what the cache knows the branch to be at.
        return commit, snapshot_download(**_what(spec, commit, int), dry_run=True)

    with _hub_failures(spec, revision), _beside(ask) as asked:
        commit, files = asked.result(LISTING_SECONDS)
    _check_complete(spec, {file.filename for file in files})
    sizes = {file.filename: file.file_size or 0 for file in files}
    missing = sum(sizes[file.filename] for file in files if file.will_download)
    _check_room(spec, missing)
    return PullPlan(spec, commit, sizes, repository_folder(spec) / "snapshots" / commit, missing, previous)


def _check_complete(spec: PublishedModel, names: set[str]) -> None:
    """DownloadError unless a repository has what its kind of model needs."""
    if isinstance(spec, SpeechSpec):
        if {SPEECH_WEIGHTS, "config.json", "tokenizer.json"} - names:
            what = f"lacks config.json, tokenizer.json, or weights in CTranslate2's form ({SPEECH_WEIGHTS})"
            raise DownloadError(f"{spec.repo_id} is not a speech model: it {what}.", "Choose another repository.")
        return
    has_weights = any(name.endswith(".safetensors") for name in names)
    if not (has_weights and "config.json" in names and names & set(TOKENIZER_FILES)):
        raise DownloadError(
            f"{spec.repo_id} is not a checkpoint: it lacks config.json, a tokenizer, or weights as safetensors.",
            "Other weight files can run code when opened and are never downloaded: choose another repository.",
        )


def pull(plan: PullPlan) -> Generator[ByteProgress, None, tuple[str, ...]]:
    """Carry out a plan, yielding progress; return the names of local files that were damaged.

    An interruption keeps the files that are complete. The commit is recorded at once when no other is usable, else
    when the new one is whole. Raises DownloadError; a file whose hash is not the stated one is removed.
    """
    spec, paths = plan.spec, [plan.folder / name for name in plan.file_bytes]
    with _hub_failures(spec, plan.commit):
        if not is_downloaded(spec):
            record_commit(spec, plan.commit)
        here = [path for path in paths if path.exists()]
        damaged = _remove_damaged((yield from _check(here, 0, plan.total_bytes)))
        missing = plan.missing_bytes + sum(plan.file_bytes[check.path.name] for check in damaged)
        _check_room(spec, missing)
        yield from _fetch(plan, missing)
        checked = set(here) - {check.path for check in damaged}
        before = sum(plan.file_bytes[path.name] for path in checked)
        new = [path for path in paths if path not in checked and path.exists()]
        if wrong := _remove_damaged((yield from _check(new, before, plan.total_bytes))):
            raise DownloadError(
                f"{wrong[0].path.name} of {spec.repo_id} does not match what the hub states: {wrong[0].fault}.",
                "It was removed; pull again. If that fails too, it was published so, or is changed on the way.",
            )
        ref = repository_folder(spec) / "refs" / (spec.revision or DEFAULT_REVISION)
        if not is_commit(spec.revision) and (plan.previous_commit != plan.commit or not ref.exists()):
            ref.parent.mkdir(parents=True, exist_ok=True)  # for whoever shares the cache, and has no record of ours
            ref.write_text(plan.commit, encoding="utf-8")
    record_commit(spec, plan.commit)
    return tuple(check.path.name for check in damaged)


def _fetch(plan: PullPlan, total_bytes: int) -> Iterator[ByteProgress]:
    """Download every file; TimeoutError if no byte arrives for STALL_SECONDS."""
    from huggingface_hub import snapshot_download

    most = 0

    def count(num_bytes: int) -> None:
        nonlocal most
        most = max(most, num_bytes)  # what a server sends again is no progress

    def fetch() -> None:
        # A file at a time, so that an interruption costs one at most; xet fetches the parts of a file side by side.
        snapshot_download(**_what(plan.spec, plan.commit, count), max_workers=1)

    with _beside(fetch) as fetched:
        done, since = 0, time.monotonic()
        while not fetched.done():
            wait([fetched], _POLL_SECONDS)
            if most > done:
                done, since = most, time.monotonic()
                yield ByteProgress(Stage.DOWNLOAD, min(done, total_bytes), total_bytes)
            elif time.monotonic() - since > STALL_SECONDS:
                raise TimeoutError
        fetched.result()


def _what(spec: PublishedModel, commit: str, report: Callable[[int], object]) -> dict[str, Any]:
    """Arguments for snapshot_download; `report` is called with the number of bytes received."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # public, but not marked so

    class Reporter(tqdm):
        """Draws nothing. Of the bars that count bytes, those that came and those that are written, the longer tells."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]
            self._counts_bytes = kwargs.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._counts_bytes:
                report(int(self.n))

    return {
        "repo_id": spec.repo_id,
        "revision": commit,
        "allow_patterns": WANTED_SPEECH if isinstance(spec, SpeechSpec) else WANTED,
        "ignore_patterns": "*/*",
        "library_name": "sfvqa",
        "library_version": sfvqa.__version__,
        "tqdm_class": Reporter,
    }


@contextlib.contextmanager
def _beside(task: Callable[[], T]) -> Iterator["Future[T]"]:
    """Run a task that asks a hub in another thread, so that it can be abandoned: it ends soon after the block."""
    from huggingface_hub import close_session, get_session
    from huggingface_hub.utils._xet import abort_xet_session

    hooks = get_session().event_hooks
    hooks["request"].append(_limit_silence)
    hooks["response"].append(_limit_length)
    pool = ThreadPoolExecutor(1)
    future = pool.submit(task)
    pool.shutdown(wait=False)
    try:
        yield future
    finally:
        hooks["request"].remove(_limit_silence)
        hooks["response"].remove(_limit_length)
        if not future.done():
            get_session().close()  # what waits for an answer fails, and nothing more is asked
            abort_xet_session()  # type: ignore[no-untyped-call]
            wait([future], _STOP_SECONDS)
            future.add_done_callback(lambda _: close_session())  # whoever asks next gets a session that is open


def _limit_silence(request: Any) -> None:
    """Time out every read: huggingface_hub lists files without a timeout."""
    waits = {kind: seconds or _SILENCE_SECONDS for kind, seconds in request.extensions["timeout"].items()}
    request.extensions = {**request.extensions, "timeout": waits}


def _limit_length(response: Any) -> None:
    """Limit the size of a listing: huggingface_hub reads all of it into memory."""
    whole = response.iter_bytes

    def pieces(chunk_size: int | None = None) -> Iterator[bytes]:
        size = 0
        for piece in whole(chunk_size):
            size += len(piece)
            if size > LISTING_BYTES:
                raise ValueError(f"an answer of more than {LISTING_BYTES} bytes")
            yield piece

    if "/api/" in response.url.path:
        response.iter_bytes = pieces


def repository_folder(spec: PublishedModel) -> Path:
    """The folder of a model's repository in the cache (HF_HOME's, HF_HUB_CACHE's); it need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{str(spec.repo_id).replace('/', '--')}"


def disk_bytes(spec: PublishedModel) -> int:
    """Disk space of a model's repository in bytes: all commits, each file once, and partial files."""
    folder = repository_folder(spec)
    files = {path.resolve() for pattern in ("snapshots/*/*", "blobs/*") for path in folder.glob(pattern)}
    return sum(map(_size, files))


def _check_room(spec: PublishedModel, needed_bytes: int) -> None:
    folder = repository_folder(spec).absolute().parent
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if needed_bytes > free:
        raise DownloadError(
            f"This needs {readable_size(needed_bytes)}, and the disk of {folder} has only {readable_size(free)} free.",
            "Free some space there, or set HF_HOME to a folder on another disk.",
        )


def check_folder(folder: Path) -> Generator[ByteProgress, None, tuple[FileCheck, ...]]:
    """Check every file that a model is loaded from, yielding progress; return the checks.

    Asks no hub: in the cache a file is a link to a blob, whose name is the hash that the hub stated. Files elsewhere
    have none; of tensor files the header is read all the same.
    """
    wanted = WANTED if missing_speech_files(folder) else WANTED_SPEECH
    paths = sorted(path for path in folder.iterdir() if any(path.match(pattern) for pattern in wanted))
    return (yield from _check(paths, 0, sum(map(_size, paths))))


def _check(
    paths: Iterable[Path], done_bytes: int, total_bytes: int
) -> Generator[ByteProgress, None, tuple[FileCheck, ...]]:
    from safetensors import SafetensorError, safe_open

    checks = []
    for path in paths:
        blob, size, fault = path.readlink().name if path.is_symlink() else "", _size(path), None
        algorithm = _HASH_NAMES.get(len(blob)) if set(blob) <= set("0123456789abcdef") else None
        try:
            if algorithm is not None:
                digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(b"blob %d\0" % size)
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        yield ByteProgress(Stage.CHECK, done_bytes + file.tell(), total_bytes)
                if digest.hexdigest() != blob:
                    fault = f"its {algorithm} is not the one the hub stated"
            if fault is None and path.suffix == ".safetensors":
                with safe_open(path, framework="numpy"):
                    pass
        except (OSError, SafetensorError) as error:
            fault = f"it cannot be read: {error}"
        done_bytes += size
        checks.append(FileCheck(path, size, algorithm, fault))
    return tuple(checks)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _remove_damaged(checks: Iterable[FileCheck]) -> list[FileCheck]:
    """Remove damaged files, links and blobs, and return their checks."""
    damaged = [check for check in checks if check.fault]
    for path in [check.path for check in damaged]:
        held = path.resolve()
        path.unlink()
        held.unlink(missing_ok=True)
    return damaged


def commits_here(spec: PublishedModel) -> list[str]:
    """The commits of a model in the cache, which `remove` would delete.

    UsageError for a model that is part of the package, ModelNotDownloadedError when there is nothing of it.
    """
    if spec.is_bundled:
        raise UsageError(f"{spec.name} is part of the package.", "Uninstall sfvqa to remove it.")
    if spec.repo_id is None or not repository_folder(spec).is_dir():
        raise ModelNotDownloadedError(f"The model {spec.name} is not on this machine.", "There is nothing to remove.")
    fixed_commit(spec)  # a record that cannot be read is found out before anything is deleted
    return sorted(path.name for path in repository_folder(spec).glob("snapshots/*"))


def remove(spec: PublishedModel) -> None:
    """Delete every commit of a model and partial downloads; the next pull takes the newest commit."""
    from huggingface_hub import scan_cache_dir

    commits, folder = commits_here(spec), repository_folder(spec)
    with contextlib.suppress(OSError, KeyError):  # huggingface_hub raises some and logs others
        scan_cache_dir(folder.parent).delete_revisions(*commits).execute()
    if folder.exists():
        raise CheckpointError(f"{folder} could not be removed entirely.", "Remove it by hand.")
    forget_commit(spec)


@contextlib.contextmanager
def _hub_failures(spec: PublishedModel, revision: str | None) -> Iterator[None]:
    """Raise DownloadError for any failure in the block, which asks a hub for `revision` of a model."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    endpoint = urlsplit(constants.ENDPOINT)
    host = endpoint.netloc.rpartition("@")[2] or constants.ENDPOINT
    try:
        yield
    except SfvqaError:
        raise
    except Exception as error:
        causes: list[BaseException] = [error]  # huggingface_hub wraps what tells most in what tells less
        while cause := causes[-1].__cause__ or causes[-1].__context__:
            causes.append(cause)
        for cause in causes:
            if isinstance(cause, HfHubHTTPError):
                page = f"{endpoint.scheme}://{host}/{spec.repo_id}"
                raise DownloadError(*_refusal(cause, spec, revision, host, page)) from error
        raise DownloadError(*_failure(causes, host)) from error


def _failure(causes: list[BaseException], host: str) -> tuple[str, str]:
    """Message and remedy for a failure without an answer, or on this machine."""
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "The disk of the Hugging Face cache is full.", f"Free some space there, or set HF_HOME. {_RESUME}"
        if isinstance(cause, OSError) and cause.errno and cause.filename:  # a file's, not the network's
            return f"{cause.filename} cannot be written: {cause.strerror}.", "Make it writable, or set HF_HOME."
    if "OfflineModeIsEnabled" in kinds:
        return "HF_HUB_OFFLINE is set, so nothing can be downloaded.", "Unset it to download."
    check_network = f"Check the network, and HF_ENDPOINT and HTTPS_PROXY if they are set. {_RESUME}"
    if kinds & {"TimeoutException", "TimeoutError"}:
        return f"{host} did not answer in time.", check_network
    if kinds & {"NetworkError", "ProxyError", "ProtocolError"}:
        return f"The connection to {host} failed: {str(causes[-1]).rstrip('.')}.", check_network
    if kinds & {"FileMetadataError", "InvalidURL", "UnsupportedProtocol", "ValueError", "TypeError", "LookupError"}:
        remedy = "Check HF_ENDPOINT if it is set, and whether the login page of a network answers instead."
        return f"{host} does not answer like a Hugging Face hub.", remedy
    return f"The download failed: {causes[0]}.", _RESUME


def _refusal(
    error: "HfHubHTTPError", spec: PublishedModel, revision: str | None, host: str, page: str
) -> tuple[str, str]:
    """Message and remedy for a refusal by the hub, by its status."""
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RevisionNotFoundError

    status, after = error.response.status_code, error.response.headers.get("Retry-After", "")
    log_in = "set HF_TOKEN, or run `hf auth login`"
    if isinstance(error, GatedRepoError):
        message = f"{spec.repo_id} is available only to users who have accepted its licence"
        remedy = f"Accept it at {page}, then {log_in}, and pull again."
    elif isinstance(error, (RevisionNotFoundError, RemoteEntryNotFoundError)):
        message = f"{host} has no revision {revision} of {spec.repo_id}, or lacks some of its files"
        remedy = f"`sfvqa models pull {spec.name} --update` takes the newest; correct a `revision` in {spec.source}."
    elif status in (401, 403, 404):
        message = f"{host} has no {spec.repo_id}, or does not let you read it"
        remedy = f"See {page}; correct `repo_id` in {spec.source}, or HF_ENDPOINT; for what is private, {log_in}."
    elif status == 429:
        message = f"{host} accepts no more requests from this address for now"
        remedy = f"Try again {f'in {after} seconds' if after.isdigit() else 'later'}; HF_TOKEN raises the limit."
    else:
        message = f"{host} is out of order" if status >= 500 else f"{host} refuses {spec.repo_id}"
        remedy = f"Try again later, or see {page}. {_RESUME}"
    return f"{message} ({status}).", remedy
