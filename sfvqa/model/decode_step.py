"""One more token of every answer: what the decoder's forward computes of a single position, in a fraction of its calls.

A forward pass spends more time on its way to the kernels than in them where a model is small: modules in modules,
keywords, masks and rotary tables made anew, a cache copied to grow by a position. Here all that is made once an answer.
On a single CUDA device a step can be recorded and replayed as a graph.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sfvqa.model.hybrid_layer import SlowKeysValues
from sfvqa.model.kv_cache import SlowFastCache
from sfvqa.model.slow_fast import SlowFastForConditionalGeneration

# cuDNN's attention is not among them: it makes a plan for every new number of keys, which takes longer than a step.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A decoder layer, the room for its keys and values `[B, KV heads, room, head_dim]`, and what it looks at."""

    modules: Any
    keys: Tensor
    values: Tensor
    slow: SlowKeysValues | None


class DecodeStep:
    """Runs the next token of every answer behind what a cache holds, at most `num_steps` times.

    The cache grows with each step, as in a forward pass: its layers hold views of the room made here, into which only
    this object writes, behind what others may share. `mask` `[B, L]` tells the cache's positions apart from padding.

    `recorded` runs the steps over buffers of fixed size: on CUDA the second is recorded as a graph (the first runs as
    it is, so that whatever is set up on first use is there) and replayed from then on. The cache does not grow then.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        cache: SlowFastCache,
        mask: Tensor,
        num_steps: int,
        *,
        recorded: bool = False,
    ) -> None:
        decoder: Any = model.language_model
        self._model, self._decoder, self._cache, self._recorded = model, decoder, cache, recorded
        embeddings = decoder.embed_tokens.weight
        batch_size, self._length = mask.shape
        device, dtype = embeddings.device, embeddings.dtype
        mask = mask.to(device)
        looks = model.look_at_kept(cache, embeddings.new_empty(batch_size, 1, 0))
        self._layers = [
            _Layer(layer, *_roomy(held, num_steps), looks.get(index))
            for index, (layer, held) in enumerate(zip(decoder.layers, cache.layers, strict=True))
        ]
        first = mask.long().sum(dim=1, keepdim=True)
        positions = first + torch.arange(num_steps, device=device)
        cosines, sines = decoder.rotary_emb(embeddings[:1], positions)
        # Rotating by halves is rolling by a half: the minus sign goes into the table.
        signed = torch.cat([-sines[..., : sines.shape[-1] // 2], sines[..., sines.shape[-1] // 2 :]], dim=-1)
        self._rotary = torch.stack([cosines, signed], dim=2)
        self._bias = _bias(mask, num_steps, dtype, leave_out_rest=recorded)
        self._token_ids = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._num_done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_logits: Tensor | None = None

    @staticmethod
    def is_possible(model: SlowFastForConditionalGeneration, cache: SlowFastCache) -> bool:
        """Whether a step computes what a forward pass would: by sdpa, on one device, over layers that keep all.

        A model that prefills with flash-attn decodes by sdpa too: flash-attn would unpad a padded batch in each layer,
        and wait for the device to do so. Rotary tables that change as the text grows cannot be made ahead.
        """
        rotary = model.config.decoder_config.rope_parameters["rope_type"]
        is_on_one_device = len({parameter.device for parameter in model.parameters()}) == 1
        is_plain = model.config._attn_implementation != "eager" and rotary not in ("dynamic", "longrope")
        return cache.is_forkable and is_on_one_device and is_plain

    @torch.inference_mode()
    def __call__(self, token_ids: Tensor) -> Tensor:
        """Run the tokens `[B]` through the model; logits `[B, V]`, which a recorded next step overwrites."""
        self._token_ids.copy_(token_ids)
        if self._recorded and self._bias is not None:
            self._bias[..., self._length] = 0
        is_on_cuda = self._token_ids.device.type == "cuda"
        if is_on_cuda:
            with sdpa_kernel(_KERNELS):
                logits = self._replay() if self._recorded and self._num_done > 0 else self._run()
        else:
            logits = self._run()
        self._num_done += 1
        self._length += 1
        self._step += 1
        if not self._recorded:
            cached: list[Any] = self._cache.layers
            for held, layer in zip(cached, self._layers, strict=True):
                held.keys, held.values = layer.keys[:, :, : self._length], layer.values[:, :, : self._length]
        return logits

    def _replay(self) -> Tensor:
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            # Threads that read videos meanwhile may allocate: only this one's mistakes are to break the recording.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._graph_logits = self._run()
            self._graph = graph
        self._graph.replay()
        assert self._graph_logits is not None
        return self._graph_logits

    def _run(self) -> Tensor:
        num_keys = self._layers[0].keys.shape[2] if self._recorded else self._length + 1
        rotary = self._rotary.index_select(1, self._step)  # [B, 1, 2, head_dim]
        bias = None if self._bias is None else self._bias[..., :num_keys]
        place = self._step + (self._layers[0].keys.shape[2] - self._rotary.shape[1])
        hidden = self._decoder.embed_tokens(self._token_ids)
        for layer in self._layers:
            hidden = _run_layer(layer, hidden, rotary, place, num_keys, bias)
        logits: Tensor = self._model.lm_head(_norm(self._decoder.norm, hidden))
        return logits


def _roomy(held: Any, num_steps: int) -> tuple[Tensor, Tensor]:
    """Keys and values with room for more positions, in place of which the cache's layer holds a view of them."""
    roomy, length = [], held.keys.shape[2]
    for name in ("keys", "values"):
        tensor = getattr(held, name)
        room = functional.pad(tensor, (0, 0, 0, num_steps))  # with zeros: no mask leaves out what is not a number
        setattr(held, name, room[:, :, :length])
        roomy.append(room)
    return roomy[0], roomy[1]


def _bias(mask: Tensor, num_steps: int, dtype: torch.dtype, *, leave_out_rest: bool) -> Tensor | None:
    """What is added to the scores `[B, 1, 1, L + steps]`: the lowest number at padding, and at what is not written."""
    if not leave_out_rest and bool(mask.all()):
        return None
    rest = mask.new_full((len(mask), num_steps), 0 if leave_out_rest else 1)
    bias = torch.zeros(len(mask), mask.shape[1] + num_steps, dtype=dtype, device=mask.device)
    bias.masked_fill_(~torch.cat([mask, rest], dim=1).bool(), torch.finfo(dtype).min)
    return bias[:, None, None]


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """RMSNorm, as every decoder family has it."""
    return functional.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _run_layer(
    layer: _Layer, hidden: Tensor, rotary: Tensor, place: Tensor, num_keys: int, bias: Tensor | None
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
    both = torch.addcmul(both * rotary[:, :, 0], both.roll(half, -1), rotary[:, :, 1])
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
