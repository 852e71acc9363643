"""Loading a checkpoint folder strictly: the reference's format or our own, every tensor accounted for."""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.model.building import ModelBuilder, Placement, build_empty
from sfvqa.model.config import SlowFastConfig, SlowFastVisionConfig
from sfvqa.model.quantization import Quantization, quantization_of, quantizer_for
from sfvqa.model.reference_format import (
    is_reference_config,
    read_reference_config,
    rename_tensor,
)
from sfvqa.model.tensor_files import FETCH_AGAIN, TensorFiles, read_json

NUM_NAMED_TENSORS = 5


def read_config(folder: str | Path) -> SlowFastConfig:
    """The config of a checkpoint folder in either format; raises CheckpointError, which names the file."""
    path = Path(folder) / "config.json"
    fields = read_json(path)
    try:
        return _build_config(fields)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message.removesuffix('.')} (in {path}).", error.remedy) from error
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{path} describes no model: {_reason(error)}.", "Check it.") from error


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
            raise CheckpointError(f"{name} is {fields.get(name)!r}, no object.", _CHECK_CONFIG)
    _refuse_unknown_fields(fields, SlowFastConfig)
    _refuse_unknown_fields(fields["vision_config"], SlowFastVisionConfig)
    return SlowFastConfig.from_dict(fields)


_CHECK_CONFIG = "Check config.json."
_WRITTEN_BESIDE = {"transformers_version", "torch_dtype", "auto_map", "quantization_config"}
"""Fields of a config.json that are in no config class: who wrote it, and how its weights are stored."""


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


_OF_TRANSFORMERS = {"adapter_kwargs", "local_files_only", "revision", "trust_remote_code", "use_safetensors"}
"""Keywords that its auto classes pass on, or that say what is the case anyway: a local folder, safetensors, no code."""


class LoadsStrictlyMixin:
    """`from_pretrained` that reads both formats and refuses a checkpoint that does not fit the model exactly."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: SlowFastConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Placement = None,
        attn_implementation: str | None = None,
        quantization: Quantization | str | None = None,
        **unused: Any,
    ) -> Self:
        """Load a folder straight onto its devices; keywords are transformers' own, but for `quantization`.

        The host holds at most one tensor file beside what is loaded. `quantization` None is what the checkpoint is
        stored in. Raises CheckpointError naming the tensors that are missing, unexpected or of another shape, and the
        file that cannot be read; UsageError for another quantization than that of a quantized copy.
        """
        if unknown := [name for name in unused if name not in _OF_TRANSFORMERS and not name.startswith("_")]:
            raise TypeError(f"from_pretrained takes no {', '.join(unknown)}")
        folder = Path(pretrained_model_name_or_path)
        fields = read_json(folder / "config.json")
        config = config or read_config(folder)
        files = TensorFiles.of(folder)
        rename = rename_tensor if is_reference_config(fields) else str
        found = {rename(name): shape for name, shape in files.shapes().items()}
        stored = _check_quantization(folder, quantization_of(fields), quantization)
        quantizer = quantizer_for(quantization or stored)
        model = _build_empty(cls, folder, config, attn_implementation)
        wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        builder = ModelBuilder(model, _dtype_to_load(dtype, config, files), device_map, quantizer)
        parts = _stored_parts(builder) if stored is not Quantization.NONE else {}
        _refuse_misfits(folder, model, found, _stored_shapes(wanted, builder, parts, found))
        for shard in files.shards():
            names = {rename(name): name for name in shard.names}
            for name in (name for name in names if name in wanted):
                if name in parts:
                    builder.put_quantized(name, {key: shard.read(part) for key, part in parts[name].items()})
                else:
                    builder.put(name, shard.read(names[name]))
        loaded: Self = builder.finish()
        _read_generation_config(folder, loaded)
        return loaded

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save in our own format, whatever format was loaded."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]


def _build_empty(model_class: Any, folder: Path, config: SlowFastConfig, attention: str | None) -> Any:
    try:
        return build_empty(model_class, config, attention)
    except CheckpointError:
        raise
    except Exception as error:  # torch and transformers find some contradictions only here
        raise CheckpointError(
            f"The model that {folder / 'config.json'} describes cannot be built: {_reason(error)}.", _CHECK_CONFIG
        ) from error


def _check_quantization(folder: Path, stored: Quantization, wanted: Quantization | str | None) -> Quantization:
    if stored is not Quantization.NONE and wanted is not None and Quantization(wanted) is not stored:
        raise UsageError(
            f"The checkpoint in {folder} is a copy quantized to {stored}; it cannot be loaded as {wanted}.",
            f"Use --quant {stored}, or the checkpoint that it was made of.",
        )
    return stored


def _dtype_to_load(wanted: torch.dtype | str | None, config: SlowFastConfig, files: TensorFiles) -> torch.dtype:
    """The dtype named, else the config's, else that of the first tensor that has one."""
    for named in (wanted, config.dtype):
        if named not in (None, "auto"):
            dtype: torch.dtype = named if isinstance(named, torch.dtype) else getattr(torch, str(named))
            return dtype
    tensors = (shard.read(name) for shard in files.shards() for name in shard.names)
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _stored_parts(builder: ModelBuilder) -> dict[str, dict[str, str]]:
    """By quantized weight, what the tensors it is stored in are called."""
    quantizer = builder.quantizer
    assert quantizer is not None
    keys = quantizer.stored_shapes((1, 1))
    return {name: {key: quantizer.tensor_name(name, key) for key in keys} for name in builder.quantized_weights}


def _stored_shapes(
    wanted: dict[str, list[int]],
    builder: ModelBuilder,
    parts: dict[str, dict[str, str]],
    found: dict[str, list[int]],
) -> dict[str, list[int]]:
    """The shapes of all tensors as the files should hold them, those of quantized weights in their parts."""
    shapes = dict(wanted)
    for name, names in parts.items():
        assert builder.quantizer is not None
        for key, shape in builder.quantizer.stored_shapes(tuple(wanted[name])).items():
            shapes[names[key]] = list(shape) if shape is not None else found.get(names[key], [])
    return shapes


def _read_generation_config(folder: Path, model: Any) -> None:
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {_reason(error)}.", FETCH_AGAIN) from error


def _refuse_misfits(folder: Path, model: Any, found: dict[str, list[int]], wanted: dict[str, list[int]]) -> None:
    unused = "|".join(model._keys_to_ignore_on_load_unexpected)
    complaints = []
    if missing := sorted(wanted.keys() - found.keys() - model.all_tied_weights_keys.keys()):
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := sorted(name for name in found.keys() - wanted.keys() if not re.search(unused, name)):
        complaints.append(f"unexpected: {_some(unexpected)}")
    both = sorted(found.keys() & wanted.keys())
    if shapes := [f"{name} is {found[name]}, not {wanted[name]}" for name in both if found[name] != wanted[name]]:
        complaints.append(f"of another shape: {_some(shapes)}")
    if complaints:
        raise CheckpointError(
            f"The tensors in {folder} do not fit the model its config.json describes ({'; '.join(complaints)}).",
            FETCH_AGAIN,
        )


def _some(names: list[str]) -> str:
    named = ", ".join(names[:NUM_NAMED_TENSORS])
    rest = len(names) - NUM_NAMED_TENSORS
    return named + (f" and {rest} more" if rest > 0 else "")
