"""One more token of every answer: what the decoder's forward computes of a single position, in a fraction of its calls.

A forward pass spends more time on its way to the kernels than in them where a model is small: modules in modules,
keywords, masks and rotary tables made anew, a cache copied to grow by a position. Here all that is made once an answer.
On a single CUDA device a step can be recorded as a graph, and replayed for every answer of its size.
"""

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sfvqa.errors import UsageError
from sfvqa.model.hybrid_layer import LookingPositions, SlowKeysValues
from sfvqa.model.kv_cache import SlowFastCache
from sfvqa.model.slow_fast import SlowFastForConditionalGeneration


def decoding_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Leave out cuDNN's attention: it makes a plan for every new number of keys, which takes longer than a step."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


_STEPPED = ("llama", "mistral", "qwen2", "qwen3")
"""Decoders, by transformers' model type, whose layers compute what `_run_layer` does."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """A decoder layer, the room for its keys and values `[B, KV heads, room, head_dim]`, and what it looks at."""

    modules: Any
    keys: Tensor
    values: Tensor
    slow: SlowKeysValues | None


class _Step:
    """The step itself, over layers with room; it advances `place`, where it writes, and each answer's position.

    `bias` `[B, 1, 1, room]` is added to the scores: the lowest finite number at padding, and at what is not written
    yet where a step looks at all of the room.
    """

    def __init__(self, model: SlowFastForConditionalGeneration, layers: list[_Layer], batch_size: int) -> None:
        decoder: Any = model.language_model
        self._decoder, self._lm_head = decoder, model.lm_head
        self.layers, self.room = layers, layers[0].keys.shape[2]
        embeddings = decoder.embed_tokens.weight
        self.device, self.dtype = embeddings.device, embeddings.dtype
        self._devices = {layer.keys.device for layer in layers}
        cosines, sines = decoder.rotary_emb(embeddings[:1], torch.arange(self.room, device=self.device)[None])
        # Rotating by halves is rolling by a half: the minus sign goes into the table.
        signed = torch.cat([-sines[..., : sines.shape[-1] // 2], sines[..., sines.shape[-1] // 2 :]], dim=-1)
        self._rotary = torch.stack([cosines[0], signed[0]], dim=1).to(self.device)  # [room, 2, head_dim]
        self._positions = torch.zeros(batch_size, dtype=torch.long, device=self.device)
        self._place = torch.zeros(1, dtype=torch.long, device=self.device)
        self.bias: Tensor | None = None

    def begin(self, mask: Tensor) -> None:
        """Go on behind the positions that `mask` `[B, L]` tells apart from padding."""
        self._positions.copy_(mask.sum(dim=1))
        self._place.fill_(mask.shape[1])

    def run(self, token_ids: Tensor, num_keys: int, *, opens_bias: bool = False) -> Tensor:
        """Tokens `[B]` → logits `[B, V]`, looking at the first `num_keys` of the room."""
        if opens_bias and self.bias is not None:
            self.bias.index_fill_(3, self._place, 0)
        rotary, bias = self._rotary.index_select(0, self._positions), self.bias
        if bias is not None and num_keys < self.room:
            bias = bias[..., :num_keys]
        everywhere = {
            device: (rotary.to(device), self._place.to(device), None if bias is None else bias.to(device))
            for device in self._devices
        }
        hidden = self._decoder.embed_tokens(token_ids)
        for layer in self.layers:
            device = layer.keys.device
            hidden = _run_layer(layer, hidden.to(device), *everywhere[device], num_keys)
        self._positions += 1
        self._place += 1
        logits: Tensor = self._lm_head(_norm(self._decoder.norm, hidden.to(self._decoder.norm.weight.device)))
        return logits


class DecodeStep:
    """Runs the next token of every answer behind what a cache holds, at most `num_steps` times.

    The cache grows with each step, as in a forward pass: its layers hold views of the room made here, into which only
    this object writes, behind what others may share. `mask` `[B, L]` tells the cache's positions apart from padding.
    """

    @torch.inference_mode()
    def __init__(
        self, model: SlowFastForConditionalGeneration, cache: SlowFastCache, mask: Tensor, num_steps: int
    ) -> None:
        looks = _look_at_kept(model, cache, len(mask))
        decoder: Any = model.language_model
        layers = [
            _Layer(layer, *_roomy(held, num_steps), looks.get(index))
            for index, (layer, held) in enumerate(zip(decoder.layers, cache.layers, strict=True))
        ]
        self._step, self._cache, self._length = _Step(model, layers, len(mask)), cache, mask.shape[1]
        mask = mask.to(self._step.device)
        self._step.begin(mask)
        if not bool(mask.all()):
            self._step.bias = _bias(functional.pad(mask, (0, num_steps), value=1), self._step.dtype)

    @staticmethod
    def is_possible(model: SlowFastForConditionalGeneration) -> bool:
        """Whether a step computes what a forward pass would: by sdpa, over known layers that keep all positions.

        A model that prefills with flash-attn decodes by sdpa too: flash-attn would unpad a padded batch in each layer,
        and wait for the device to do so. Rotary tables that change as the text grows cannot be made ahead. Under
        autocast, as training measures a model, keys and values have dtypes of their own.
        """
        if torch.is_autocast_enabled(model.device.type):
            return False
        decoder = model.config.decoder_config
        if decoder.model_type not in _STEPPED or model.config._attn_implementation == "eager":
            return False
        has_fixed_tables = decoder.rope_parameters["rope_type"] not in ("dynamic", "longrope")
        return has_fixed_tables and SlowFastCache(model.config).is_forkable

    @torch.inference_mode()
    def __call__(self, token_ids: Tensor) -> Tensor:
        """Run the tokens `[B]` through the model; logits `[B, V]`."""
        step = self._step
        self._length += 1
        with decoding_kernels(step.device):
            logits = step.run(token_ids.to(step.device), self._length)
        cached: list[Any] = self._cache.layers
        for held, layer in zip(cached, step.layers, strict=True):
            held.keys, held.values = layer.keys[:, :, : self._length], layer.values[:, :, : self._length]
        return logits


class StaticDecode(StrEnum):
    """Values of `--static-decode`; `auto` is on where it pays: on CUDA, where steps have a fixed size."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def why_not_static(*, attention: str, quantization: str, evidence: bool = False) -> str | None:
    """What stands against steps of fixed size, by how a model is to compute; `quantization` may be auto."""
    reasons = {
        "--static-decode on computes attention by sdpa, not by eager.": attention == "eager",
        "8-bit weights are multiplied differently at each step, which cannot be recorded.": quantization == "8bit",
        "The steps that --static-decode on records and replays cannot be watched for evidence.": evidence,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def check_static_decode(wanted: str, against: str | None) -> None:
    """UsageError where it is asked for, and something stands `against` it."""
    if wanted == StaticDecode.ON and against is not None:
        raise UsageError(against, "Leave out --static-decode, or what stands against it.")


def decodes_static(wanted: str, against: str | None, device: torch.device) -> bool:
    """Whether tokens are decoded over buffers of fixed size."""
    return against is None and (wanted == StaticDecode.ON or (wanted == StaticDecode.AUTO and device.type == "cuda"))


_MOST_RECORDED = 8


class RecordedSteps:
    """Steps over buffers of fixed size, kept for the answers to come: on CUDA each is recorded once and replayed.

    There is one for each batch size, room, and size of the slow path. All write into the same buffers, as large as the
    largest needs. Elsewhere than on CUDA the same steps run without a recording.
    """

    def __init__(self) -> None:
        self._recorded: dict[tuple[object, ...], _RecordedStep] = {}
        self._buffers: dict[str, Tensor] = {}
        self._in_use: Callable[[], object] = lambda: None
        self._mutex = threading.Lock()
        self.graphs = _Graphs()

    @staticmethod
    def is_possible(model: SlowFastForConditionalGeneration) -> bool:
        """Whether the model's steps have a fixed size, on one device."""
        return DecodeStep.is_possible(model) and len({parameter.device for parameter in model.parameters()}) == 1

    @torch.inference_mode()
    def begin(
        self, model: SlowFastForConditionalGeneration, cache: SlowFastCache, mask: Tensor, room: int
    ) -> Callable[[Tensor], Tensor] | None:
        """Begin answers behind a cache, which is copied and does not grow, with `room` for that many positions in all.

        What is returned runs the tokens `[B]` through the model; the next call overwrites its logits `[B, V]`. As long
        as somebody holds it, the buffers are taken, and others get None.
        """
        with self._mutex:
            return self._begin(model, cache, mask, room) if self._in_use() is None else None

    def clear(self) -> None:
        """Let go of the buffers and what was recorded over them, since memory ran out."""
        self._recorded.clear()
        self._buffers.clear()

    def _begin(
        self, model: SlowFastForConditionalGeneration, cache: SlowFastCache, mask: Tensor, room: int
    ) -> Callable[[Tensor], Tensor]:
        looks = _look_at_kept(model, cache, len(mask))
        seen = [(tuple(slow.keys.shape), slow.padding_bias is None) for slow in looks.values()]
        size = (len(mask), room, *seen)
        step = self._recorded.pop(size, None)
        if step is None:
            layers = self._make_layers(model, cache, looks, room)
            while len(self._recorded) >= _MOST_RECORDED:
                del self._recorded[next(iter(self._recorded))]
            step = _RecordedStep(_Step(model, layers, len(mask)), self.graphs)
        self._recorded[size] = step  # as the last that was used
        step.begin(cache, looks, mask)
        run = partial(step)  # one for each answer, to know of its end
        self._in_use = weakref.ref(run)
        return run

    def _make_layers(
        self,
        model: SlowFastForConditionalGeneration,
        cache: SlowFastCache,
        looks: Mapping[int, SlowKeysValues],
        room: int,
    ) -> list[_Layer]:
        decoder: Any = model.language_model
        first: Any = cache.layers[0]
        batch_size, num_heads, _, head_dim = first.keys.shape
        own = self._buffer("own", (len(cache.layers), 2, batch_size, num_heads, room, head_dim), first.keys)
        slow = {}
        if looks:
            found = next(iter(looks.values()))
            both = self._buffer("slow", (len(looks), 2, *found.keys.shape), found.keys)
            bias = None if found.padding_bias is None else torch.zeros_like(found.padding_bias)
            looking = LookingPositions(None, torch.zeros_like(found.looking.is_real))
            slow = {
                index: SlowKeysValues(keys, values, bias, looking)
                for index, (keys, values) in zip(looks, both.unbind(), strict=True)
            }
        return [
            _Layer(layer, keys, values, slow.get(index))
            for index, (layer, (keys, values)) in enumerate(zip(decoder.layers, own.unbind(), strict=True))
        ]

    def _buffer(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A view of what all steps share; one that outgrows it is the end of those recorded with less."""
        size = torch.Size(shape).numel()
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._recorded.clear()
            self._buffers.pop(name, None)  # the smaller one goes first
            self._buffers[name] = like.new_zeros(size)
        return self._buffers[name][:size].view(shape)


class _RecordedStep:
    """A step that looks at all of its room, recorded the second time it runs; the first sets up what CUDA needs."""

    def __init__(self, step: _Step, graphs: "_Graphs") -> None:
        self._step, self._graphs = step, graphs
        batch_size = len(step.layers[0].keys)
        step.bias = torch.zeros(batch_size, 1, 1, step.room, dtype=step.dtype, device=step.device)
        self._token_ids = torch.zeros(batch_size, dtype=torch.long, device=step.device)
        self._has_run = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def begin(self, cache: SlowFastCache, looks: Mapping[int, SlowKeysValues], mask: Tensor) -> None:
        """Copy what a cache holds and what the answers look at into the buffers."""
        step = self._step
        mask = mask.to(step.device)
        step.begin(mask)
        assert step.bias is not None
        step.bias.copy_(_bias(functional.pad(mask, (0, step.room - mask.shape[1])), step.dtype))
        cached: list[Any] = cache.layers
        for index, (layer, held) in enumerate(zip(step.layers, cached, strict=True)):
            for buffer, tensor in ((layer.keys, held.keys), (layer.values, held.values)):
                buffer[:, :, : mask.shape[1]].copy_(tensor)
                buffer[:, :, mask.shape[1] :].zero_()  # no mask leaves out what is not a number
            if layer.slow is not None:
                found = looks[index]
                layer.slow.keys.copy_(found.keys)
                layer.slow.values.copy_(found.values)
                layer.slow.looking.is_real.copy_(found.looking.is_real)
                if layer.slow.padding_bias is not None and found.padding_bias is not None:
                    layer.slow.padding_bias.copy_(found.padding_bias)

    @torch.inference_mode()
    def __call__(self, token_ids: Tensor) -> Tensor:
        self._token_ids.copy_(token_ids)
        with decoding_kernels(self._step.device):
            if self._has_run and self._graph is None and self._step.device.type == "cuda":
                recorded = self._graphs.record(self._run, self._step.device)
                self._graph, self._logits = recorded or (None, None)
            if self._graph is None or self._logits is None:
                logits = self._run()
                self._has_run = True
                return logits
        self._graph.replay()
        return self._logits

    def _run(self) -> Tensor:
        return self._step.run(self._token_ids, self._step.room, opens_bias=True)


class _Graphs:
    """Records graphs, all with one pool of memory; `trouble` says why there are none."""

    def __init__(self) -> None:
        self.trouble = ""
        self._pool: Any = None
        self._stream: Any = None

    def record(self, run: Callable[[], Tensor], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Tensor] | None:
        """What `run` does on a CUDA device as a graph, and what it returns; None where that fails once."""
        if self.trouble:
            return None
        graph = torch.cuda.CUDAGraph()
        # One for all graphs, since the pool keeps a workspace of cuBLAS for each; and of this device: on another's
        # torch records nothing of what would run at once, and never again.
        self._stream = self._stream or torch.cuda.Stream(device)
        try:
            # Threads that read videos meanwhile may allocate: only this one's mistakes are to break the recording.
            with (
                torch.cuda.device(device),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                logits = run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # nothing has run yet, and the step can
            self.trouble = str(error).split("\n", 1)[0].rstrip(".")
            return None
        self._pool = graph.pool()
        return graph, logits


def _look_at_kept(
    model: SlowFastForConditionalGeneration, cache: SlowFastCache, batch_size: int
) -> Mapping[int, SlowKeysValues]:
    decoder: Any = model.language_model
    return model.look_at_kept(cache, decoder.embed_tokens.weight.new_empty(batch_size, 1, 0))


def _roomy(held: Any, num_steps: int) -> tuple[Tensor, Tensor]:
    """Keys and values with room for more positions, in place of which the cache's layer holds a view of them."""
    roomy, length = [], held.keys.shape[2]
    for name in ("keys", "values"):
        tensor = getattr(held, name)
        room = functional.pad(tensor, (0, 0, 0, num_steps))  # with zeros: no mask leaves out what is not a number
        setattr(held, name, room[:, :, :length])
        roomy.append(room)
    return roomy[0], roomy[1]


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores `[B, 1, 1, L]`: the lowest finite number where the mask `[B, L]` is 0."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask.bool(), torch.finfo(dtype).min)[:, None, None]


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """RMSNorm, as every decoder family has it."""
    return functional.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _run_layer(
    layer: _Layer, hidden: Tensor, rotary: Tensor, place: Tensor, bias: Tensor | None, num_keys: int
) -> Tensor:
    """`[B, D]` → `[B, D]`; writes the position's keys and values at `place`, and looks at the first `num_keys`."""
    modules, attention = layer.modules, layer.modules.self_attn
    heads = (len(hidden), -1, attention.head_dim)
    normed = _norm(modules.input_layernorm, hidden)
    query, key = attention.q_proj(normed).view(heads), attention.k_proj(normed).view(heads)
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
    num_queries, half = query.shape[1], attention.head_dim // 2
    both = torch.cat([query, key], dim=1)
    both = torch.addcmul(both * rotary[:, :1], both.roll(half, -1), rotary[:, 1:])
    query, key = both[:, :num_queries], both[:, num_queries:]
    layer.keys.index_copy_(2, place, key[:, :, None])
    layer.values.index_copy_(2, place, attention.v_proj(normed).view(heads)[:, :, None])
    # The heads that share keys go in as more queries of one head, so that no kernel has to repeat the keys.
    attended = functional.scaled_dot_product_attention(
        query.unflatten(1, (layer.keys.shape[1], -1)),
        layer.keys[:, :, :num_keys],
        layer.values[:, :, :num_keys],
        bias,
        scale=attention.scaling,
    ).flatten(1)
    if layer.slow is not None:
        attended = attention.slow_attention(query[:, :, None], attended[:, None], layer.slow)[:, 0]
    hidden = hidden + attention.o_proj(attended)
    normed, mlp = _norm(modules.post_attention_layernorm, hidden), modules.mlp
    update: Tensor = mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    return hidden + update
