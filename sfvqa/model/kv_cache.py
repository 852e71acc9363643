"""The KV cache of a slow-fast model: self-attention's, and the slow keys and values of each hybrid layer beside it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from sfvqa.errors import SfvqaError


class SlowFastCache(DynamicCache):
    """Holds the slow keys and values `[B, KV heads, S, head_dim]` of each hybrid layer, computed once at prefill.

    They do not grow with the text, so `crop` leaves them alone; everything that acts on the batch dimension acts on
    them as well. `slow_mask` is `[B, S]`, true where a slow token is real; `slow_is_ragged` says whether it is
    anywhere false.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.slow_layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.slow_mask: Tensor | None = None
        self.slow_is_ragged = False

    def check_grown_to(self, length: int) -> None:
        """Raise SfvqaError unless every layer holds `length` positions; a layer without them computes wrongly.

        transformers renamed the argument that hands layers their cache once, and hybrid layers went without.
        """
        lengths = [self.get_seq_length(layer_idx) for layer_idx in range(len(self.layers))]
        if lengths != [length] * len(lengths):
            raise SfvqaError(
                f"After {length} positions the decoder's layers hold {lengths} in their cache: transformers "
                f"{transformers.__version__} hands it over in a way that sfvqa does not know.",
                "Install sfvqa again, with the version of transformers that it asks for.",
            )

    def store_slow(self, keys: Tensor, values: Tensor, layer_idx: int) -> None:
        """Keep the slow keys and values of one hybrid layer, replacing earlier ones."""
        self.slow_layers[layer_idx] = keys.contiguous(), values.contiguous()

    @property
    def num_complete(self) -> int:
        """Number of positions that every layer holds; after an interrupted pass some hold more.

        A layer grows by its keys first: Ctrl-C between the two leaves it a key more than values.
        """
        layers = [layer for layer in self.layers if isinstance(layer, DynamicLayer)]
        grown = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return min(tensor.shape[-2] if tensor is not None and tensor.numel() else 0 for tensor in grown)

    @property
    def num_bytes(self) -> int:
        """What its keys and values take, also where others share them."""
        held = [tensor for layer in self.layers if isinstance(layer, DynamicLayer) for tensor in _held_by(layer)]
        held += [tensor for pair in self.slow_layers.values() for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    @property
    def is_forkable(self) -> bool:
        """Whether all positions are there: a layer with a sliding window forgets the oldest."""
        return all(type(layer) is DynamicLayer for layer in self.layers)

    def fork(self, length: int) -> "SlowFastCache":
        """A cache of the first `length` positions that grows on its own; what both hold is shared, not copied.

        Layers replace their tensors when they grow, or write behind what others hold (DecodeStep), so that neither
        sees the other's tokens.
        """
        forked = copy.copy(self)
        forked.slow_layers = dict(self.slow_layers)
        forked.layers = []
        for shared in self.layers:
            layer: Any = copy.copy(shared)
            layer.keys, layer.values = (tensor[..., :length, :] for tensor in _held_by(shared))
            forked.layers.append(layer)
        return forked

    @classmethod
    def stack(cls, caches: Sequence["SlowFastCache"]) -> "SlowFastCache":
        """The rows of several forkable caches in one, in order; it empties them, so that nothing is held twice.

        Positions are padded on the left to the longest, slow tokens on the right to the most there are: the attention
        mask must leave out the ones, and `slow_mask` does the others.
        """
        longest = max(cache.get_seq_length() for cache in caches)
        num_rows = [len(_held_by(cache.layers[0])[0]) for cache in caches]
        stacked = copy.copy(caches[0])
        stacked.layers = []
        for layer_idx in range(len(caches[0].layers)):
            layer = DynamicLayer()
            layer.update(*_join([_padded(cache._take(layer_idx), longest, on_left=True) for cache in caches]))
            stacked.layers.append(layer)
        stacked._stack_slow(caches, num_rows)
        return stacked

    def _stack_slow(self, caches: Sequence["SlowFastCache"], num_rows: Sequence[int]) -> None:
        with_slow = [cache for cache in caches if cache.slow_mask is not None]
        self.slow_layers, self.slow_mask, self.slow_is_ragged = {}, None, False
        if not with_slow:
            return
        masks = [
            torch.zeros(rows, 0, dtype=torch.bool) if cache.slow_mask is None else cache.slow_mask
            for cache, rows in zip(caches, num_rows, strict=True)
        ]
        most = max(mask.shape[1] for mask in masks)
        self.slow_is_ragged = any(cache.slow_is_ragged for cache in caches) or min(m.shape[1] for m in masks) < most
        device = masks[caches.index(with_slow[0])].device
        self.slow_mask = torch.cat([functional.pad(mask.to(device), (0, most - mask.shape[1])) for mask in masks])
        for layer_idx, (keys, _) in list(with_slow[0].slow_layers.items()):
            nothing = [keys.new_zeros(rows, keys.shape[1], 0, keys.shape[-1]) for rows in num_rows]
            self.slow_layers[layer_idx] = _join(
                [
                    _padded(cache.slow_layers.pop(layer_idx, (none, none)), most, on_left=False)
                    for cache, none in zip(caches, nothing, strict=True)
                ]
            )

    def keep(self, rows: Tensor, start: int) -> None:
        """Hold these rows only, their positions from `start` on, and as many slow tokens as the longest of them has."""
        for layer in self.layers:
            held: Any = layer
            held.keys, held.values = (tensor[rows.to(tensor.device), :, start:] for tensor in _held_by(layer))
        if self.slow_mask is not None and self.slow_is_ragged:
            self._trim_slow(self.slow_mask[rows.to(self.slow_mask.device)])
        self._select_slow(rows)

    def _trim_slow(self, kept: Tensor) -> None:
        """Hold no slow tokens, padded on the right, that none of the rows with this mask has."""
        num_slow = kept.sum(dim=1)
        most, self.slow_is_ragged = int(num_slow.max()), bool(num_slow.min() < num_slow.max())
        if not most:
            self.forget_slow()
            return
        assert self.slow_mask is not None
        self.slow_mask = self.slow_mask[:, :most]
        for layer_idx, (keys, values) in self.slow_layers.items():  # views, of which `_select_slow` copies the rows
            self.slow_layers[layer_idx] = keys[:, :, :most], values[:, :, :most]

    def _take(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        keys_values = _held_by(self.layers[layer_idx])
        self.layers[layer_idx] = DynamicLayer()
        return keys_values

    def forget_slow(self) -> None:
        """Drop the slow tokens, so that later passes look at none."""
        self.slow_layers.clear()
        self.slow_mask = None

    def reset(self) -> None:
        super().reset()  # type: ignore[no-untyped-call]
        self.forget_slow()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        self._select_slow(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.slow_mask is not None:
            self._select_slow(torch.arange(len(self.slow_mask)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._select_slow(indices)

    def _select_slow(self, rows: Tensor) -> None:
        if self.slow_mask is not None:
            self.slow_mask = self.slow_mask[rows.to(self.slow_mask.device)]
        for layer_idx, (keys, values) in self.slow_layers.items():
            self.slow_layers[layer_idx] = keys[rows.to(keys.device)], values[rows.to(values.device)]


def _held_by(layer: object) -> tuple[Tensor, Tensor]:
    """The keys and values of a layer that has some."""
    assert isinstance(layer, CacheLayerMixin)
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _padded(keys_values: tuple[Tensor, Tensor], length: int, *, on_left: bool) -> tuple[Tensor, Tensor]:
    """Keys and values with zeros where they hold fewer than `length` positions."""
    missing = length - keys_values[0].shape[-2]
    if not missing:
        return keys_values
    around = (0, 0, missing, 0) if on_left else (0, 0, 0, missing)
    keys, values = (functional.pad(tensor, around) for tensor in keys_values)
    return keys, values


def _join(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    keys, values = zip(*rows, strict=True)
    return torch.cat(keys), torch.cat(values)
