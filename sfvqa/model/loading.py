"""Loading a checkpoint folder strictly: the reference's format or our own, every tensor accounted for."""

import contextlib
import dataclasses
import difflib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from sfvqa.errors import CheckpointError
from sfvqa.model.config import SlowFastConfig, SlowFastVisionConfig
from sfvqa.model.reference_format import (
    TENSOR_NAMES,
    is_reference_config,
    read_reference_config,
    rename_tensor,
)

NUM_NAMED_TENSORS = 5


def read_config(folder: str | Path) -> SlowFastConfig:
    """The config of a checkpoint folder in either format; raises CheckpointError, which names the file."""
    path = Path(folder) / "config.json"
    fields = _read_json(path)
    try:
        return _build_config(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message.removesuffix('.')} (in {path}).", error.remedy) from error
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{path} describes no model: {_reason(error)}.", "Check it.") from error


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
            raise CheckpointError(f"{name} is {fields.get(name)!r}, no object.", _CHECK_CONFIG)
    _refuse_unknown_fields(fields, SlowFastConfig)
    _refuse_unknown_fields(fields["vision_config"], SlowFastVisionConfig)
    return SlowFastConfig.from_dict(fields)


_CHECK_CONFIG = "Check config.json."
_WRITTEN_BESIDE = {"transformers_version", "torch_dtype", "auto_map"}
"""Fields of a config.json that are in no config class: how transformers says who wrote it."""


def _refuse_unknown_fields(fields: dict[str, Any], config_class: type[PreTrainedConfig]) -> None:
    """CheckpointError for a field nothing reads: misspelt, it would leave another one at its default."""
    known = {field.name for field in dataclasses.fields(config_class)} | _WRITTEN_BESIDE | {"model_type"}
    for name in fields.keys() - known:
        if not name.startswith("_"):  # transformers' private ones
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else _CHECK_CONFIG
            raise CheckpointError(f"There is no field {name}.", hint)


def _reason(error: Exception) -> str:
    """What an exception says, in one line and without the pages that follow."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    text = " ".join(str(cause).split(". Errors:")[0].split())
    return text.removesuffix(".") or type(error).__name__


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
        shapes = _read_shapes(folder)
        if is_reference_config(_read_json(folder / "config.json")):
            kwargs.setdefault("key_mapping", dict(TENSOR_NAMES))
            shapes = {rename_tensor(name): shape for name, shape in shapes.items()}
        _refuse_misfits(folder, cls._compare(folder, config, shapes))
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

    @classmethod
    def _compare(cls, folder: Path, config: SlowFastConfig, found: dict[str, list[int]]) -> dict[str, Any]:
        """How tensors `found` in the files fit the model, as transformers would tell after taking its memory."""
        try:
            with torch.device("meta"):
                model: Any = cls(config)  # type: ignore[call-arg]
        except CheckpointError:
            raise
        except Exception as error:  # torch and transformers find some contradictions only here
            raise CheckpointError(
                f"The model that {folder / 'config.json'} describes cannot be built: {_reason(error)}.", _CHECK_CONFIG
            ) from error
        wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        unused = "|".join(model._keys_to_ignore_on_load_unexpected)
        return {
            "missing_keys": wanted.keys() - found.keys() - model.all_tied_weights_keys.keys(),
            "unexpected_keys": {name for name in found.keys() - wanted.keys() if not re.search(unused, name)},
            "mismatched_keys": {
                (name, tuple(found[name]), tuple(shape))
                for name, shape in wanted.items()
                if name in found and found[name] != shape
            },
        }

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


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor, from the files' headers; CheckpointError names a file that is torn or missing."""
    shapes: dict[str, list[int]] = {}
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(f"{index} does not say which file holds which tensor.", _FETCH_AGAIN)
        files = sorted({folder / name for name in weight_map.values()})
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"The tensor file {file} is missing.", _FETCH_AGAIN)
        try:
            with safe_open(file, framework="numpy") as tensors:
                shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"The tensor file {file} is corrupt: {error}.", _FETCH_AGAIN) from error
    return shapes


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
