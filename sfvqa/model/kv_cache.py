"""The KV cache of a slow-fast model: self-attention's, and the slow keys and values of each hybrid layer beside it."""

import copy
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, StaticLayer

from sfvqa.errors import SfvqaError


class SlowFastCache(DynamicCache):
    """Holds the slow keys and values, computed once at prefill, by decoder layer.

    They do not grow with the text, so `crop` leaves them alone; everything that acts on the batch dimension acts on
    them as well. `slow_mask` is `[B, S]`, true where a slow token is real; `slow_is_ragged` says whether it is
    anywhere false.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        decoder = config.get_text_config(decoder=True)
        super().__init__(config=decoder)
        self.num_decoder_layers: int = decoder.num_hidden_layers
        self.slow_layers: dict[int, DynamicLayer] = {}
        self.slow_mask: Tensor | None = None
        self.slow_is_ragged = False

    def check_grown_to(self, length: int) -> None:
        """SfvqaError unless every layer holds `length` positions: without them a layer computes something else.

        transformers renamed the argument that hands layers their cache once, and hybrid layers went without.
        """
        lengths = [self.get_seq_length(layer_idx) for layer_idx in range(self.num_decoder_layers)]
        if lengths != [length] * len(lengths):
            raise SfvqaError(
                f"After {length} positions the decoder's layers hold {lengths} in their cache: transformers "
                f"{transformers.__version__} hands it over in a way that sfvqa does not know.",
                "Install sfvqa again, with the version of transformers that it asks for.",
            )

    def store_slow(self, keys: Tensor, values: Tensor, layer_idx: int) -> None:
        """Keep the slow keys and values `[B, KV heads, S, head_dim]` of one hybrid layer, replacing earlier ones."""
        layer = DynamicLayer()
        layer.update(keys, values)
        self.slow_layers[layer_idx] = layer

    def slow_keys_values(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """What `store_slow` kept for one hybrid layer."""
        layer = self.slow_layers[layer_idx]
        assert layer.keys is not None
        assert layer.values is not None
        return layer.keys, layer.values

    @property
    def num_complete(self) -> int:
        """Positions that every layer holds: fewer than some do where a pass was broken off.

        A layer grows by its keys first: Ctrl-C between the two leaves it a key more than values.
        """
        layers = [layer for layer in self.layers if isinstance(layer, DynamicLayer)]
        grown = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return min(tensor.shape[-2] if tensor is not None and tensor.numel() else 0 for tensor in grown)

    @property
    def is_forkable(self) -> bool:
        """Whether all positions are there: a layer with a sliding window forgets the oldest."""
        return all(type(layer) is DynamicLayer for layer in self.layers)

    @property
    def is_static(self) -> bool:
        """Whether it was made by `with_room_for`; how many positions it holds is then known to the device alone."""
        return any(isinstance(layer, StaticLayer) for layer in self.layers)

    def with_room_for(self, num_more: int) -> "SlowFastCache":
        """A forkable cache's copy that is written in place and never grows: attention sees its empty positions too,
        and the mask must leave them out. Slow keys and values are shared, not copied.
        """
        static = copy.copy(self)
        static.layers = []
        for layer in self.layers:
            assert type(layer) is DynamicLayer, "a layer that forgets has no fixed size"
            assert layer.keys is not None
            assert layer.values is not None
            roomy = StaticLayer(layer.keys.shape[-2] + num_more)
            roomy.update(layer.keys, layer.values)
            static.layers.append(roomy)
        return static

    def fork(self, length: int) -> "SlowFastCache":
        """A cache of the first `length` positions that grows on its own; what both hold is shared, not copied.

        Layers replace their tensors when they grow and never write into them, so that neither sees the other's tokens.
        """
        forked = copy.copy(self)
        forked.layers = []
        for shared in self.layers:
            layer = copy.copy(shared)
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
            forked.layers.append(layer)
        forked.slow_layers = {layer_idx: copy.copy(layer) for layer_idx, layer in self.slow_layers.items()}
        return forked

    @classmethod
    def stack(cls, caches: Sequence["SlowFastCache"]) -> "SlowFastCache":
        """The rows of several forkable caches in one, in order; it empties them, so that nothing is held twice.

        Positions are padded on the left to the longest, slow tokens on the right to the most there are: the attention
        mask must leave out the ones, and `slow_mask` does the others.
        """
        lengths, num_rows = [cache.get_seq_length() for cache in caches], [cache._num_rows for cache in caches]
        stacked = copy.copy(caches[0])
        stacked.layers = []
        for layer_idx in range(stacked.num_decoder_layers):
            layers = [_pad_layer(cache._take(layer_idx), max(lengths), on_left=True) for cache in caches]
            stacked.layers.append(_join(*layers))
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
        for layer_idx, some in list(with_slow[0].slow_layers.items()):
            layers = [
                _pad_layer(cache.slow_layers.pop(layer_idx, _no_tokens(some, rows)), most, on_left=False)
                for cache, rows in zip(caches, num_rows, strict=True)
            ]
            self.slow_layers[layer_idx] = _join(*layers)

    @property
    def _num_rows(self) -> int:
        layer = self.layers[0]
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        return len(layer.keys)

    def _take(self, layer_idx: int) -> DynamicLayer:
        layer = self.layers[layer_idx]
        assert isinstance(layer, DynamicLayer)
        self.layers[layer_idx] = DynamicLayer()
        return layer

    def forget_slow(self) -> None:
        """Let what comes look at no slow tokens any more."""
        self.slow_layers.clear()
        self.slow_mask = None

    def reset(self) -> None:
        super().reset()  # type: ignore[no-untyped-call]
        self.forget_slow()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        for layer in self.slow_layers.values():
            layer.reorder_cache(beam_idx)
        if self.slow_mask is not None:
            self.slow_mask = self.slow_mask.index_select(0, beam_idx.to(self.slow_mask.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        for layer in self.slow_layers.values():
            layer.batch_repeat_interleave(repeats)
        if self.slow_mask is not None:
            self.slow_mask = self.slow_mask.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        for layer in self.slow_layers.values():
            layer.batch_select_indices(indices)
        if self.slow_mask is not None:
            self.slow_mask = self.slow_mask[indices]


def _pad_layer(layer: DynamicLayer, length: int, *, on_left: bool) -> tuple[Tensor, Tensor]:
    """A layer's keys and values with zeros where it holds fewer than `length` positions."""
    assert layer.keys is not None
    assert layer.values is not None
    missing = length - layer.keys.shape[-2]
    around = (0, 0, missing, 0) if on_left else (0, 0, 0, missing)
    return functional.pad(layer.keys, around), functional.pad(layer.values, around)


def _join(*keys_values: tuple[Tensor, Tensor]) -> DynamicLayer:
    keys, values = zip(*keys_values, strict=True)
    layer = DynamicLayer()
    layer.update(torch.cat(keys), torch.cat(values))
    return layer


def _no_tokens(like: DynamicLayer, num_rows: int) -> DynamicLayer:
    """A layer of slow keys and values for rows without a video."""
    assert like.keys is not None
    assert like.values is not None
    nothing = like.keys.new_zeros(num_rows, like.keys.shape[1], 0, like.keys.shape[-1])
    layer = DynamicLayer()
    layer.update(nothing, nothing)
    return layer
