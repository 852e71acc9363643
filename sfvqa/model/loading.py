"""`from_pretrained` of our own: strict, straight onto the devices, one tensor file at a time.

A folder is checked against the network that its config describes; the network is built without memory and filled
tensor by tensor, so that there is no second copy and nothing is left empty.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from sfvqa.errors import CheckpointError
from sfvqa.model.checkpoint_files import CHECK_CONFIG, FETCH_AGAIN, TensorFiles, read_config, read_json, reason_of
from sfvqa.model.config import SlowFastConfig, is_reference_config, rename_tensor
from sfvqa.model.quantization import (
    LinearQuantizer,
    Quantization,
    quantizable_linears,
    quantization_of,
    quantizer_for,
    refuse_other,
)

M = TypeVar("M", bound=nn.Module)

DeviceMap = Mapping[str, torch.device]
"""Where the modules of these names go, with all that is in them; the empty name stands for the whole network."""

Placement = str | torch.device | DeviceMap | Callable[[Any], DeviceMap] | None
"""One device (None: the CPU), a device map, or what computes one from a network without memory."""


def build_empty(model_class: Callable[[SlowFastConfig], M], config: SlowFastConfig, attention: str | None = None) -> M:
    """A network of a config that takes no memory; raises what torch and transformers raise for contradictions.

    Attention None is sdpa, whatever the config names: it may be compiled code on a hub, which transformers would fetch.
    """
    config = copy.deepcopy(config)
    config._attn_implementation = attention or "sdpa"
    with torch.device("meta"):
        return model_class(config)


class ModelBuilder:
    """Gives an empty network its tensors, in any order, each on its device, in its dtype, quantized as it comes."""

    def __init__(
        self, model: Any, dtype: torch.dtype, placement: Placement = None, quantizer: LinearQuantizer | None = None
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.quantizer = quantizer
        self.quantized_weights = quantizer.replace_linears(model, dtype) if quantizer else frozenset()
        model.tie_weights(recompute_mapping=False)
        self.device_map = _device_map(model, placement)

    def device_of(self, name: str) -> torch.device:
        """Where a tensor or module goes."""
        while name and name not in self.device_map:
            name = name.rpartition(".")[0]
        return self.device_map[name]

    def put(self, name: str, values: Tensor, *, copy: bool = True) -> None:
        """Put one tensor in its place, quantizing it when it is a weight to be quantized.

        Without `copy` the model keeps `values` themselves where they are on the device, in the dtype, already.
        """
        if not values.is_floating_point():
            raise CheckpointError(f"The tensor {name} holds {str(values.dtype)[6:]}, no weights.", FETCH_AGAIN)
        device = self.device_of(name)
        if name in self.quantized_weights:
            assert self.quantizer is not None
            self._attach(name, self.quantizer.quantize(values.to(device)))
            return
        module, own_name = self._owner(name)
        tensor = values.to(device, self.dtype, copy=copy)
        setattr(module, own_name, nn.Parameter(tensor))

    def put_quantized(self, name: str, stored: Mapping[str, Tensor]) -> None:
        """Copy one weight that is stored quantized to its place."""
        assert self.quantizer is not None
        self._attach(name, self.quantizer.restore(stored, self.device_of(name)))

    def finish(self) -> Any:
        """The whole network, ready to use; its layers hand tensors over from device to device where it has several."""
        model = self.model
        self._tie()
        for name, module in model.named_modules():
            if any(buffer.is_meta for buffer in module.buffers(recurse=False)):  # those that no checkpoint holds
                module.to_empty(device=self.device_of(name), recurse=False)
                model._init_weights(module)
        empty = [name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_meta]
        assert not empty, f"never given: {empty}"
        if len(set(self.device_map.values())) > 1:
            from accelerate import dispatch_model

            dispatch_model(model, dict(self.device_map), skip_keys=model._skip_keys_device_placement)
        model.eval()
        return model

    def _attach(self, name: str, parameter: nn.Parameter) -> None:
        assert self.quantizer is not None
        self.quantizer.attach(self._owner(name)[0], parameter, self.dtype)

    def _owner(self, name: str) -> tuple[Any, str]:
        module_name, _, own_name = name.rpartition(".")
        return self.model.get_submodule(module_name), own_name

    def _tie(self) -> None:
        for name, source in self.model.all_tied_weights_keys.items():
            given, kept = self.model.get_parameter(name), self.model.get_parameter(source)
            if not given.is_meta and given is not kept and not torch.equal(given.to(kept.device), kept):
                raise CheckpointError(
                    f"config.json ties {name} to {source}, and the checkpoint holds both with different values.",
                    "Set tie_word_embeddings to false in config.json, or fetch the checkpoint again.",
                )
        self.model.tie_weights(recompute_mapping=False)


def _device_map(model: nn.Module, placement: Placement) -> DeviceMap:
    if callable(placement):
        placement = placement(model)
    if isinstance(placement, Mapping):
        return {name: torch.device(device) for name, device in placement.items()}
    return {"": torch.device(placement or "cpu")}


NUM_NAMED_TENSORS = 5


@dataclass(frozen=True, eq=False)
class StoredModel:
    """What a checkpoint folder holds, every tensor accounted for.

    `shapes` are those of the network's tensors, `parts` what the files call the tensors each of them is stored in, by
    key: the one tensor itself under the key `weight` or, in a quantized checkpoint, all it takes to restore a weight.
    """

    folder: Path
    config: SlowFastConfig
    files: TensorFiles
    quantization: Quantization
    shapes: Mapping[str, torch.Size]
    quantizable: frozenset[str]
    parts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, folder: Path, model_class: Any, config: SlowFastConfig | None = None) -> "StoredModel":
        """Read the config and the files' headers; CheckpointError names what is missing, unexpected or misshapen."""
        fields = read_json(folder / "config.json")
        config = config or read_config(folder)
        files = TensorFiles.of(folder)
        quantization = quantization_of(fields)
        model = build_checked(model_class, folder, config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        rename = rename_tensor if is_reference_config(fields) else str
        found = {rename(name): (name, shape) for name, shape in files.shapes().items()}
        quantizable = frozenset(f"{name}.weight" for name in quantizable_linears(model))
        quantizer = quantizer_for(quantization)
        stored_as = {
            name: _stored_as(name, shape, quantizer if name in quantizable else None) for name, shape in shapes.items()
        }
        wanted = {own: shape for parts in stored_as.values() for own, shape in parts.values()}
        _refuse_misfits(folder, model, {name: shape for name, (_, shape) in found.items()}, wanted)
        parts = {
            name: {key: found[own][0] for key, (own, _) in parts.items()}
            for name, parts in stored_as.items()
            if name in found
        }
        return cls(folder, config, files, quantization, shapes, quantizable, parts)

    def tensors(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The network's tensors by name, each as its parts, file by file: copy what is to outlive the next step."""
        names = {parts["weight"]: name for name, parts in self.parts.items()}
        for shard in self.files.shards():
            for stored_name in shard.names:
                if (name := names.get(stored_name)) is not None:
                    yield name, {key: shard.read(part) for key, part in self.parts[name].items()}

    @property
    def dtype(self) -> torch.dtype:
        """What the config says its weights are, else what the first of them is."""
        if isinstance(self.config.dtype, torch.dtype):
            return self.config.dtype
        if self.config.dtype is not None:
            named: torch.dtype = getattr(torch, self.config.dtype)
            return named
        stored = (parts["weight"].dtype for _, parts in self.tensors())
        return next((dtype for dtype in stored if dtype.is_floating_point), torch.float32)


def build_checked(model_class: Any, folder: Path, config: SlowFastConfig, attention: str | None = None) -> Any:
    """The network without memory; CheckpointError when the config contradicts itself."""
    try:
        return build_empty(model_class, config, attention)
    except CheckpointError:
        raise
    except Exception as error:  # torch and transformers find some contradictions only here
        raise CheckpointError(
            f"The model that {folder / 'config.json'} describes cannot be built: {reason_of(error)}.", CHECK_CONFIG
        ) from error


def _stored_as(
    name: str, shape: torch.Size, quantizer: LinearQuantizer | None
) -> dict[str, tuple[str, list[int] | None]]:
    """By key, what our own format calls the parts of a tensor, and their shapes (None: one that varies)."""
    if quantizer is None:
        return {"weight": (name, list(shape))}
    shapes = quantizer.stored_shapes(tuple(shape))
    return {
        key: (quantizer.tensor_name(name, key), list(shape) if shape is not None else None)
        for key, shape in shapes.items()
    }


def _refuse_misfits(folder: Path, model: Any, found: dict[str, list[int]], wanted: dict[str, list[int] | None]) -> None:
    unused = "|".join(model._keys_to_ignore_on_load_unexpected)
    complaints = []
    if missing := sorted(wanted.keys() - found.keys() - model.all_tied_weights_keys.keys()):
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := sorted(name for name in found.keys() - wanted.keys() if not re.search(unused, name)):
        complaints.append(f"unexpected: {_some(unexpected)}")
    both = sorted(found.keys() & wanted.keys())
    if shapes := [
        f"{name} is {found[name]}, not {wanted[name]}" for name in both if wanted[name] not in (None, found[name])
    ]:
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
        file that cannot be read; UsageError for another quantization than that of a quantized checkpoint.
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
