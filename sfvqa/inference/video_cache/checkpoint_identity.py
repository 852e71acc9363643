"""Which weights a model is, found out before any is loaded: two that may differ never share an identity."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from sfvqa.errors import CheckpointError
from sfvqa.inference.hub.records import is_commit
from sfvqa.inference.locate import CheckpointLocation, find_for_random_weights, weight_files
from sfvqa.inference.quantized_copies import QuantizedCopy, locate_for
from sfvqa.registry import ModelSpec
from sfvqa.video.content_hash import hash_files


def identify_checkpoint(location: CheckpointLocation, copy: QuantizedCopy | None, random_weights: bool) -> str:
    """Name the weights and config of a model as `locate_for` found it, or of one with random weights.

    `REPOSITORY@COMMIT` for one that was pulled; for any other, a quantized copy too, a hash of its files as they are
    now; `random:…` with a hash of the architecture. Raises CheckpointError for files that cannot be read.
    """
    spec = location.spec
    if random_weights:
        assert spec is not None  # find_for_random_weights refuses folders
        return f"random:{spec.name}:{_architecture_hash(spec)}"
    if copy is None and spec is not None and spec.repo_id is not None and is_commit(location.revision):
        return f"{spec.repo_id}@{location.revision}"
    return f"{spec.name if spec else 'folder'}:{_folder_hash(location)}"


def identify_model(model: str | Path, quantization: str, *, random_weights: bool) -> str:
    """The same for a model by what is asked for: the one that loading it so would take. Errors as `locate_for`."""
    if not random_weights:
        return identify_checkpoint(*locate_for(model, quantization), random_weights=False)
    spec = find_for_random_weights(model)
    return identify_checkpoint(CheckpointLocation(spec.name, Path(), spec), None, random_weights=True)


def _architecture_hash(spec: ModelSpec) -> str:
    architecture = json.dumps(asdict(spec.architecture), sort_keys=True)
    return hashlib.sha256(architecture.encode()).hexdigest()[:16]


def _folder_hash(location: CheckpointLocation) -> str:
    try:
        weights = [location.folder / name for name in weight_files(location.folder)]
        return hash_files([location.folder / "config.json", *weights])
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or location.folder} cannot be read: {error.strerror or error}.",
            "Check the disk, or fetch the checkpoint again.",
        ) from error
