"""Which model to use when it is, or is not, said: the named one, the configured one, a downloaded one, or tiny."""

from dataclasses import dataclass
from enum import StrEnum

import torch

from sfvqa.inference.device import free_memory_bytes, resolve_device, resolve_dtype
from sfvqa.inference.locate import is_downloaded
from sfvqa.registry import ModelSpec, load_registry

BUNDLED_MODEL = "tiny"
_ROOM = 1.1  # activations, caches and the allocator's slack beside the weights, for the default number of frames


class ChoiceSource(StrEnum):
    """Why a model was chosen."""

    NAMED = "named"
    CONFIGURED = "configured"
    DOWNLOADED = "downloaded"
    BUNDLED = "bundled"


@dataclass(frozen=True)
class ModelChoice:
    """The model to load, why, and a sentence that says so; a bundled choice says what it can answer."""

    model: str
    source: ChoiceSource
    reason: str


def choose_model(
    named: str | None = None, *, configured: str | None = None, device: str = "auto", dtype: str = "auto"
) -> ModelChoice:
    """Choose the model named, else configured, else downloaded and small enough for the free memory, else tiny.

    Looks on this machine only. A name is not checked here: loading it is what tells.
    """
    if named:
        return ModelChoice(named, ChoiceSource.NAMED, f"Using {named}.")
    if configured:
        return ModelChoice(configured, ChoiceSource.CONFIGURED, f"Using {configured}, as configured.")
    where = resolve_device(device)
    free = free_memory_bytes(where)
    too_large = []
    for spec in load_registry():
        if spec.is_bundled or not is_downloaded(spec):
            continue
        needed = bytes_needed(spec, where, dtype)
        if free is None or needed <= free:
            return ModelChoice(spec.name, ChoiceSource.DOWNLOADED, f"Using {spec.name}, which is downloaded.")
        too_large.append(f"{spec.name} needs {_gigabytes(needed)} on {where.type}, where {_gigabytes(free)} are free")
    tiny = load_registry().find(BUNDLED_MODEL)
    why = f" ({'; '.join(too_large)})" if too_large else ""
    return ModelChoice(
        tiny.name,
        ChoiceSource.BUNDLED,
        f"Using the bundled {tiny.name}{why}: it can answer questions about {tiny.can_answer}. "
        "See `sfvqa demo`, and `sfvqa models list` for other models.",
    )


def bytes_needed(spec: ModelSpec, device: torch.device, dtype: str = "auto") -> int:
    """Memory to use a published model on `device`, from its size as stored (bfloat16) and the dtype it is loaded in."""
    loaded = resolve_dtype(dtype, device, torch.bfloat16)
    return int(spec.size_bytes * loaded.itemsize / torch.bfloat16.itemsize * _ROOM)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
