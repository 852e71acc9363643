"""Whether files are what they should be: their hash against the stated one, and headers that say what is in them."""

import hashlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sfvqa.inference.hub.cache import bytes_on_disk, stated_hash
from sfvqa.inference.hub.listing import HASH_NAMES, is_wanted
from sfvqa.inference.hub.progress import ByteProgress, Stage
from sfvqa.inference.locate import WEIGHTS_INDEX

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class FileCheck:
    """What became of checking a file: `compared_with` is sha256, git-sha1 or None, `fault` None or what is wrong."""

    name: str
    size_bytes: int
    compared_with: str | None
    fault: str | None


def hash_progressively(
    path: Path, stated: str, name: str, before_bytes: int, total_bytes: int
) -> Generator[ByteProgress, None, str]:
    """Hash a file as `stated` was made, yielding progress; the digest is the return value.

    A hub states sha256 of large files, and of small ones what git does: sha1 of `blob SIZE\\0` and the bytes.
    `before_bytes` of `total_bytes` are through before this one.
    """
    if HASH_NAMES[len(stated)] == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            before_bytes += len(chunk)
            yield ByteProgress(Stage.CHECK, before_bytes, total_bytes, name)
    return digest.hexdigest()


def check_folder(folder: Path) -> Generator[ByteProgress, None, tuple[FileCheck, ...]]:
    """Check every file of a checkpoint folder that a model is loaded from; the result is the return value.

    Needs no network: in the cache the hub's hashes are the names of the blobs. Files elsewhere have none.
    """
    paths = sorted(path for path in folder.iterdir() if is_wanted(path.name))
    done, total = 0, sum(bytes_on_disk(path) for path in paths)
    checks = []
    for path in paths:
        stated, fault = stated_hash(path), None
        size = bytes_on_disk(path)
        try:
            if stated is not None:
                digest = yield from hash_progressively(path, stated, path.name, done, total)
                if digest != stated:
                    fault = f"its {HASH_NAMES[len(stated)]} is not the one the hub stated"
            fault = fault or header_fault(path)
        except OSError as error:
            fault = f"it cannot be read: {error.strerror or error}"
        done += size
        checks.append(FileCheck(path.name, size, HASH_NAMES[len(stated)] if stated else None, fault))
    return tuple(checks)


def header_fault(path: Path) -> str | None:
    """What is wrong with the form of a file: a safetensors header that does not fit its bytes, JSON that is none."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy"):
                return None
        if path.name == WEIGHTS_INDEX:
            return _index_fault(path)
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8-sig"))
    except SafetensorError as error:
        return f"it is no whole safetensors file ({error})"
    except ValueError as error:
        return f"it is no JSON ({error})"
    return None


def _index_fault(path: Path) -> str | None:
    """Whether every tensor is in the file that the index names for it; a file that is damaged itself says so alone."""
    from safetensors import SafetensorError, safe_open

    index = json.loads(path.read_text(encoding="utf-8-sig"))
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, Mapping) or not weight_map:
        return "it has no `weight_map`"
    for name in sorted(set(weight_map.values())):
        try:
            with safe_open(path.parent / name, framework="numpy") as file:
                held = set(file.keys())
        except FileNotFoundError:
            return f"it names {name}, which is not here"
        except SafetensorError:
            continue
        if lacking := [tensor for tensor, where in weight_map.items() if where == name and tensor not in held]:
            return f"it names {lacking[0]} in {name}, which does not hold it"
    return None
