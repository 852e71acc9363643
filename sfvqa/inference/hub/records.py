"""Which commit of a repository was pulled first, so that a new one on the hub changes nothing unasked: a small JSON."""

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

from sfvqa.errors import ModelError
from sfvqa.registry import ModelSpec

RECORDS_FILE = "revisions.json"
SCHEMA_VERSION = 1
DEFAULT_REVISION = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def records_path() -> Path:
    """Where commits are recorded: SFVQA_REVISIONS, else revisions.json in the user's data folder."""
    import platformdirs

    override = os.environ.get("SFVQA_REVISIONS")
    return Path(override) if override else Path(platformdirs.user_data_dir("sfvqa", appauthor=False)) / RECORDS_FILE


def is_commit(revision: str | None) -> bool:
    """Whether a revision is the full hash of a commit, which never means another one."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def fixed_commit(spec: ModelSpec) -> str | None:
    """The commit a model stays at: pinned in models.toml, else recorded; None before the first pull.

    Raises ModelError that names a record that cannot be read.
    """
    return spec.revision if is_commit(spec.revision) else _read().get(_key(spec))


def record_commit(spec: ModelSpec, commit: str) -> None:
    """Keep `commit` for a model from now on; one that models.toml pins needs no record."""
    if not is_commit(spec.revision):
        _write(_read() | {_key(spec): commit})


def forget_commit(spec: ModelSpec) -> None:
    """Let the next pull of a model take the newest commit."""
    records = _read()
    if records.pop(_key(spec), None) is not None:
        _write(records)


def _key(spec: ModelSpec) -> str:
    return f"{spec.repo_id}@{spec.revision or DEFAULT_REVISION}"


def _read() -> dict[str, str]:
    path = records_path()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _corrupt(path, str(error)) from error
    revisions = document.get("revisions") if isinstance(document, dict) else None
    if not isinstance(revisions, dict):
        raise _corrupt(path, "it has no `revisions`")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise _corrupt(path, f"its schema_version is {document.get('schema_version')!r}, not {SCHEMA_VERSION}")
    for key, commit in revisions.items():
        if not isinstance(commit, str) or not is_commit(commit):
            raise _corrupt(path, f"{commit!r} for {key} is no commit")
    return revisions


def _write(records: dict[str, str]) -> None:
    """Write beside the file and rename, so that nobody ever reads half of it."""
    path = records_path()
    document = {"schema_version": SCHEMA_VERSION, "revisions": dict(sorted(records.items()))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=2) + "\n")
            Path(beside).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
            raise
    except OSError as error:
        raise ModelError(
            f"The commit of the model cannot be recorded in {path}: {error.strerror or error}.",
            "Make that folder writable, or name another file with SFVQA_REVISIONS.",
        ) from error


def _corrupt(path: Path, why: str) -> ModelError:
    return ModelError(
        f"The record of pulled commits, {path}, cannot be read: {why}.",
        "Remove that file: the next `sfvqa models pull NAME` writes a new one.",
    )
