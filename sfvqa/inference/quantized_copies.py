"""The quantized copies kept on this machine: what they were made of, and which one to load. Imports no torch.

A copy is a checkpoint folder of our own format; what it was made of stands in `COPY_FILE`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sfvqa.errors import ModelNotDownloadedError
from sfvqa.inference.copy_folders import KEPT_KINDS, copies_folder, copy_folder
from sfvqa.inference.hub.records import fixed_commit
from sfvqa.inference.locate import CheckpointLocation, find, is_downloaded, locate, locate_registered, missing_files
from sfvqa.inference.revision import revision_of
from sfvqa.registry import ModelSpec

COPY_FILE = "sfvqa_copy.json"
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Provenance:
    """What a copy was made of, and by which versions of what."""

    model: str
    repo_id: str | None
    revision: str
    quantization: str
    device: str
    versions: dict[str, str]

    def write(self, folder: Path) -> None:
        """Put it beside the weights."""
        fields = {"schema_version": _SCHEMA_VERSION, **asdict(self)}
        (folder / COPY_FILE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class QuantizedCopy:
    """One copy that is whole, and what it takes on disk."""

    folder: Path
    provenance: Provenance
    size_bytes: int


def list_copies() -> list[QuantizedCopy]:
    """Every copy, by folder name; what is no whole copy is left out."""
    root = copies_folder()
    folders = sorted(path for path in root.iterdir() if not path.name.startswith(".")) if root.is_dir() else []
    return [copy for folder in folders if (copy := _read(folder)) is not None]


def copies_of(spec: ModelSpec) -> list[QuantizedCopy]:
    """Every copy of one registered model."""
    return [copy for copy in list_copies() if copy.provenance.model == spec.name]


def find_copy(spec: ModelSpec, quantization: str, revision: str | None) -> QuantizedCopy | None:
    """The copy of a registered model that was made of this commit, None of any; None when there is none."""
    copy = _read(copy_folder(spec.name, quantization))
    if copy is None or copy.provenance.quantization != quantization:
        return None
    return copy if revision in (None, copy.provenance.revision) else None


def copies_alone(spec: ModelSpec) -> tuple[QuantizedCopy, ...]:
    """What can be loaded of a model whose own files are not here, best first; nothing where they are."""
    return () if spec.is_bundled or is_downloaded(spec) else _usable_copies(spec)


def is_here(spec: ModelSpec) -> bool:
    """Whether a model can be loaded on this machine: from its own files or from a kept copy."""
    return is_downloaded(spec) or bool(copies_alone(spec))


def locate_for(model: str | Path, quantization: str) -> tuple[CheckpointLocation, QuantizedCopy | None]:
    """As `locate`, but a kept copy of the same commit in this quantization is taken instead, and named.

    When the model itself is not on this machine, a copy of it will do, for `auto` the best. Same errors as `locate`.
    """
    spec = find(model)
    if not isinstance(spec, ModelSpec):
        return locate(model), None
    try:
        location = locate_registered(spec)
    except ModelNotDownloadedError as error:
        kept = {copy.provenance.quantization: copy for copy in _usable_copies(spec)}
        if not kept:
            raise
        best = next(iter(kept))
        copy = kept.get(best if quantization == "auto" else quantization)
        if copy is None:
            remedy = f"A copy of it in {best} is: use --quant {best}. {error.remedy}"
            raise ModelNotDownloadedError(error.message, remedy) from error
        return CheckpointLocation(spec.name, copy.folder, spec, copy.provenance.revision), copy
    if quantization not in KEPT_KINDS:
        return location, None
    revision = revision_of(location)
    copy = find_copy(spec, quantization, revision)
    return (replace(location, folder=copy.folder, revision=revision), copy) if copy else (location, None)


def _usable_copies(spec: ModelSpec) -> tuple[QuantizedCopy, ...]:
    """Of the commit that the model stays at, or of any; best first."""
    commit = fixed_commit(spec)
    found = (find_copy(spec, kind, commit) for kind in KEPT_KINDS)
    return tuple(copy for copy in found if copy is not None)


def _read(folder: Path) -> QuantizedCopy | None:
    try:
        fields = json.loads((folder / COPY_FILE).read_text(encoding="utf-8"))
        if fields.pop("schema_version") != _SCHEMA_VERSION or missing_files(folder):
            return None
        provenance = Provenance(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return QuantizedCopy(folder, provenance, size)
