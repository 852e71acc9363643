"""The config.json of a checkpoint folder, in the reference's format or our own, read strictly."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from sfvqa.errors import CheckpointError
from sfvqa.model.config import SlowFastConfig, SlowFastVisionConfig
from sfvqa.model.quantization import Quantization, quantization_of
from sfvqa.model.reference_format import is_reference_config, read_reference_config
from sfvqa.model.tensor_files import read_json


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
    """In what the weights of a checkpoint folder are stored: `none`, unless it is a quantized copy."""
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
