"""Loading a checkpoint folder strictly: the reference's format or our own, every tensor accounted for."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from sfvqa.errors import CheckpointError
from sfvqa.model.config import SlowFastConfig
from sfvqa.model.reference_format import (
    TENSOR_NAMES,
    is_reference_config,
    read_reference_config,
)

NUM_NAMED_TENSORS = 5


def read_config(folder: str | Path) -> SlowFastConfig:
    """The config of a checkpoint folder in either format; raises CheckpointError."""
    path = Path(folder) / "config.json"
    fields = _read_json(path)
    if is_reference_config(fields):
        return read_reference_config(fields)
    if fields.get("model_type") != SlowFastConfig.model_type:
        raise CheckpointError(
            f"{path} describes a model of type {fields.get('model_type')!r}.",
            "Only slow-fast checkpoints can be loaded.",
        )
    return SlowFastConfig.from_dict(fields)


class LoadsStrictlyMixin:
    """`from_pretrained` that reads both formats and refuses a checkpoint that does not fit the model exactly."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self:
        """Load a folder; keywords are transformers' own (`dtype`, `device_map`, `attn_implementation`, …).

        Raises CheckpointError naming the tensors that are missing, unexpected or of another shape, and the file that
        cannot be read.
        """
        folder = Path(pretrained_model_name_or_path)
        config = kwargs.pop("config", None) or read_config(folder)
        if is_reference_config(_read_json(folder / "config.json")):
            kwargs.setdefault("key_mapping", dict(TENSOR_NAMES))
        _check_readable(folder)
        try:
            with _without_load_report():
                model, info = super().from_pretrained(  # type: ignore[misc]
                    folder,
                    *args,
                    config=config,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    use_safetensors=True,
                    local_files_only=True,
                    **kwargs,
                )
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"The weights in {folder} cannot be read: {error}.", _FETCH_AGAIN) from error
        _refuse_misfits(folder, info)
        loaded: Self = model
        return loaded

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save in our own format, whatever format was loaded."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]


_FETCH_AGAIN = "The checkpoint is incomplete or damaged: fetch it again."


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from logging a table of what does not fit: it is the CheckpointError that says so."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path.name} in {path.parent}.", "Name a checkpoint folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", _FETCH_AGAIN) from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object.", _FETCH_AGAIN)
    return fields


def _check_readable(folder: Path) -> None:
    """Open every tensor file once: transformers' own error for a torn file does not name it."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted({folder / name for name in _read_json(index).get("weight_map", {}).values()})
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"The tensor file {file} is missing.", _FETCH_AGAIN)
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"The tensor file {file} is corrupt: {error}.", _FETCH_AGAIN) from error


def _refuse_misfits(folder: Path, info: dict[str, Any]) -> None:
    complaints = []
    for kind in ("missing_keys", "unexpected_keys"):
        if names := sorted(info[kind]):
            complaints.append(f"{kind.removesuffix('_keys')}: {_some(names)}")
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [f"{name} is {list(found)}, not {list(wanted)}" for name, found, wanted in mismatched]
        complaints.append(f"of another shape: {_some(shapes)}")
    if complaints:
        raise CheckpointError(
            f"The tensors in {folder} do not fit the model its config.json describes ({'; '.join(complaints)}).",
            _FETCH_AGAIN,
        )


def _some(names: list[str]) -> str:
    named = ", ".join(names[:NUM_NAMED_TENSORS])
    rest = len(names) - NUM_NAMED_TENSORS
    return named + (f" and {rest} more" if rest > 0 else "")
