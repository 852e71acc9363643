"""`from_pretrained` of our own: strict, straight onto the devices, one tensor file at a time."""

from pathlib import Path
from typing import Any, Self

import torch
from transformers import GenerationConfig

from sfvqa.errors import CheckpointError
from sfvqa.model.building import ModelBuilder, Placement
from sfvqa.model.config import SlowFastConfig
from sfvqa.model.config_file import reason_of
from sfvqa.model.quantization import Quantization, quantizer_for, refuse_other
from sfvqa.model.stored import StoredModel, build_checked
from sfvqa.model.tensor_files import FETCH_AGAIN

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
        stored = StoredModel.of(folder, cls, config)
        if quantization is None:
            quantization = stored.quantization
        refuse_other(folder, stored.quantization, Quantization(quantization))
        model = build_checked(cls, folder, stored.config, attn_implementation)
        builder = ModelBuilder(model, _dtype_to_load(dtype, stored), device_map, quantizer_for(quantization))
        for name, parts in stored.tensors():
            if len(parts) > 1:
                builder.put_quantized(name, parts)
            else:
                builder.put(name, parts["weight"])
        loaded: Self = builder.finish()
        _read_generation_config(folder, loaded)
        return loaded

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save in our own format, whatever format was loaded."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]


def _dtype_to_load(wanted: torch.dtype | str | None, stored: StoredModel) -> torch.dtype:
    if wanted is None or wanted == "auto":
        return stored.dtype
    dtype: torch.dtype = wanted if isinstance(wanted, torch.dtype) else getattr(torch, wanted)
    return dtype


def _read_generation_config(folder: Path, model: Any) -> None:
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:  # TypeError: JSON that is no object
            raise CheckpointError(f"{path} cannot be read: {reason_of(error)}.", FETCH_AGAIN) from error
