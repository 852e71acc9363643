"""A network without memory → the network on its devices, tensor by tensor: no second copy, nothing left empty."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sfvqa.errors import CheckpointError
from sfvqa.model.config import SlowFastConfig
from sfvqa.model.quantization import LinearQuantizer
from sfvqa.model.tensor_files import FETCH_AGAIN

M = TypeVar("M", bound=nn.Module)

DeviceMap = Mapping[str, torch.device]
"""Where the modules of these names go, with all that is in them; the empty name stands for the whole network."""

Placement = str | torch.device | DeviceMap | Callable[[Any], DeviceMap] | None
"""One device (None: the CPU), a device map, or what computes one from a network without memory."""


def build_empty(model_class: Callable[[SlowFastConfig], M], config: SlowFastConfig, attention: str | None = None) -> M:
    """A network of a config that takes no memory; raises what torch and transformers raise for contradictions."""
    config = copy.deepcopy(config)
    if attention is not None:
        config._attn_implementation = attention
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
