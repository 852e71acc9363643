"""The tensor files of a checkpoint folder: what they hold, by their headers, and their tensors one file at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfvqa.errors import CheckpointError

FETCH_AGAIN = "The checkpoint is incomplete or damaged: fetch it again."
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Shard:
    """One open tensor file. Its tensors are views of the file: copy what is to outlive it."""

    path: Path
    names: tuple[str, ...]
    _file: Any

    def read(self, name: str) -> Tensor:
        """One tensor, as stored; CheckpointError when it cannot be read."""
        with _naming(self.path):
            tensor: Tensor = self._file.get_tensor(name)
            return tensor

    def shape(self, name: str) -> list[int]:
        """The shape of one tensor, from the header."""
        shape: list[int] = self._file.get_slice(name).get_shape()
        return shape


@dataclass(frozen=True)
class TensorFiles:
    """The tensor files of a folder, one or as many as its index names."""

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> "TensorFiles":
        """Those of a checkpoint folder; CheckpointError names an index that is damaged or a file that is missing."""
        index = folder / _INDEX
        names = {_SINGLE}
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict) or not all(_is_file_name(name) for name in weight_map.values()):
                raise CheckpointError(f"{index} does not say which file holds which tensor.", FETCH_AGAIN)
            names = set(weight_map.values())
        paths = tuple(folder / name for name in sorted(names))
        for path in paths:
            if not path.is_file():
                raise CheckpointError(f"The tensor file {path} is missing.", FETCH_AGAIN)
        return cls(paths)

    def shards(self) -> Iterator[Shard]:
        """Every file, open while it is the current one: no two are in memory at a time."""
        for path in self.paths:
            with _open(path) as shard:
                yield shard

    def shapes(self) -> dict[str, list[int]]:
        """The shape of every tensor; CheckpointError names a file that is torn, or a tensor that is there twice."""
        found: dict[str, list[int]] = {}
        for shard in self.shards():
            if twice := sorted(found.keys() & set(shard.names)):
                raise CheckpointError(f"{twice[0]} is in {shard.path.name} and in another tensor file.", FETCH_AGAIN)
            found |= {name: shard.shape(name) for name in shard.names}
        return found


def _is_file_name(name: object) -> bool:
    """Whether a file of an index lies beside it, not elsewhere on the disk."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\"}


@contextmanager
def _open(path: Path) -> Iterator[Shard]:
    with _naming(path):
        file = safe_open(path, framework="pt")
    with file:
        names = tuple(file.keys())  # type: ignore[no-untyped-call]
        yield Shard(path, names, file)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The tensor file {path} is corrupt: {error}.", FETCH_AGAIN) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; CheckpointError when it is missing or damaged."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path.name} in {path.parent}.", "Name a checkpoint folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", FETCH_AGAIN) from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object.", FETCH_AGAIN)
    return fields
