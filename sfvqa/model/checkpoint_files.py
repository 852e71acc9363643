"""The files of a checkpoint folder: its config.json, and its tensors, read and written one file at a time."""

import dataclasses
import difflib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedConfig

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.model.config import SlowFastConfig, SlowFastVisionConfig, is_reference_config, read_reference_config
from sfvqa.model.quantization import Quantization, quantization_of

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


def read_config(folder: str | Path) -> SlowFastConfig:
    """The config of a checkpoint folder in either format; raises CheckpointError, which names the file."""
    path = Path(folder) / "config.json"
    fields = read_json(path)
    try:
        return _build_config(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message.removesuffix('.')} (in {path}).", error.remedy) from error
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{path} describes no model: {reason_of(error)}.", "Check it.") from error


def read_quantization(folder: str | Path) -> Quantization:
    """In what the weights of a checkpoint folder are stored: `none`, unless it is a quantized checkpoint."""
    return quantization_of(read_json(Path(folder) / "config.json"))


def _build_config(fields: dict[str, Any]) -> SlowFastConfig:
    if is_reference_config(fields):
        return read_reference_config(fields)
    if fields.get("model_type") != SlowFastConfig.model_type:
        raise CheckpointError(
            f"The model is of type {fields.get('model_type')!r}.", "Only slow-fast checkpoints can be loaded."
        )
    # Without these transformers would fall back on the defaults of a 7B model.
    for name in ("text_config", "vision_config"):
        if not isinstance(fields.get(name), dict):
            raise CheckpointError(f"{name} is {fields.get(name)!r}, no object.", CHECK_CONFIG)
    _refuse_unknown_fields(fields, SlowFastConfig)
    _refuse_unknown_fields(fields["vision_config"], SlowFastVisionConfig)
    return SlowFastConfig.from_dict(fields)


CHECK_CONFIG = "Check config.json."
_WRITTEN_BESIDE = {"transformers_version", "torch_dtype", "auto_map", "quantization_config", "use_cache"}
"""Fields of a config.json that are in no config class: who wrote it, in training too, and how it is stored."""


def _refuse_unknown_fields(fields: dict[str, Any], config_class: type[PreTrainedConfig]) -> None:
    """CheckpointError for a field nothing reads: misspelt, it would leave another one at its default."""
    known = {field.name for field in dataclasses.fields(config_class)} | _WRITTEN_BESIDE | {"model_type"}
    for name in fields.keys() - known:
        if not name.startswith("_"):  # transformers' private ones
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else CHECK_CONFIG
            raise CheckpointError(f"There is no field {name}.", hint)


def reason_of(error: Exception) -> str:
    """What an exception says, in one line and without the pages that follow."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    text = " ".join(str(cause).split(". Errors:")[0].split())
    return text.removesuffix(".") or type(error).__name__


SHARD_BYTES = 500_000_000  # what a file adds to the memory while it is written, and when it is loaded


def write_shards(tensors: Iterable[list[tuple[str, Tensor]]], folder: Path) -> None:
    """Files of about SHARD_BYTES and their index; the tensors of one list, all of one weight, stay in one file."""
    weight_map: dict[str, str] = {}
    waiting: dict[str, Tensor] = {}
    num_files = 0

    def write() -> None:
        nonlocal num_files
        num_files += 1
        file = f"model-{num_files:05d}.safetensors"
        save_file(waiting, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(waiting, file))
        waiting.clear()

    for parts in tensors:
        size = sum(tensor.nbytes for _, tensor in parts)
        if waiting and sum(tensor.nbytes for tensor in waiting.values()) + size > SHARD_BYTES:
            write()
        waiting.update((name, tensor.to("cpu", copy=True).contiguous()) for name, tensor in parts)
    write()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_new(out: Path) -> None:
    """UsageError for the folder of a new checkpoint that is there already."""
    if out.exists():
        raise UsageError(f"{out} is there already.", "Name a folder that does not exist yet.")


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to write to beside `out`, which becomes `out` when nothing went wrong; UsageError where none can be."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{out.parent} cannot be written to: {reason}.", "Name another folder.") from error
    with beside as unfinished:
        folder = Path(unfinished) / out.name
        folder.mkdir()
        yield folder
        folder.rename(out)
