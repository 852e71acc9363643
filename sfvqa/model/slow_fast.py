"""The assembled model: frames → visual tokens → slow and fast tokens → logits. Knows nothing of files or prompts.

`random_model` makes one of any size with random weights, to measure what cannot be fetched.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from sfvqa.model.adapter import AdapterTensors
from sfvqa.model.config import IMAGE_TOKEN_ID, SlowFastConfig
from sfvqa.model.hybrid_layer import (
    GatedSlowAttention,
    LookingPositions,
    SlowInLayers,
    SlowKeysValues,
    hybrid_decoder,
)
from sfvqa.model.kv_cache import SlowFastCache
from sfvqa.model.loading import ModelBuilder, Placement, StoredModel, build_empty, read_generation_config
from sfvqa.model.quantization import Quantization, quantizer_for, refuse_other
from sfvqa.model.visual_tokens import SlowTokens, VisualTokens, pool_frames, split_video
from sfvqa.video.clip import CHUNK_SIZE


class SlowAttention(StrEnum):
    """When generated tokens look at the slow tokens."""

    ALWAYS = "always"
    """At every step, as response tokens do in training."""
    PREFILL = "prefill"
    """Only the prompt does: what the published reference computes."""


_OF_TRANSFORMERS = {"adapter_kwargs", "local_files_only", "revision", "trust_remote_code", "use_safetensors"}
"""Keywords that its auto classes pass on, or that say what is the case anyway: a local folder, safetensors, no code."""


class SlowFastForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Slow-fast video language model (Shi et al. 2025), native to transformers.

    In `input_ids` every fast token has a position of its own, which holds `IMAGE_TOKEN_ID`.
    """

    config: SlowFastConfig
    config_class = SlowFastConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ConvNextBlock"]  # noqa: RUF012 - transformers adds the decoder's and other towers'
    _skip_keys_device_placement = ["cache"]  # noqa: RUF012
    _tied_weights_keys = {"lm_head.weight": "language_model.embed_tokens.weight"}  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        decoder = config.decoder_config
        self.vision_tower: Any = config.family.tower(config.vision)
        self.projector = config.family.projector(config.vision, decoder.hidden_size)
        self.language_model = hybrid_decoder(decoder.model_type)(config)
        self.lm_head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, GatedSlowAttention):
            nn.init.constant_(module.warm_up_gate, module.first_warm_up)

    # --- frames → tokens -------------------------------------------------------------------------------------------

    def features(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pixels `[t, 3, H, W]`, a few frames at a time → what the vision tower makes of them, `[t, h, w, C]`."""
        for pixel_values in chunks:
            yield self.vision_tower(pixel_values.to(self.device, self.dtype))

    def encode_frames(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pixels `[t, 3, H, W]`, a few frames at a time → their visual tokens `[t, h, w, D]`, not pooled yet."""
        return map(self.projector, self.features(chunks))

    def pool(self, visual_tokens: Tensor) -> Tensor:
        """Visual tokens `[t, h, w, D]` of a video of several frames, averaged over space as its config says."""
        return pool_frames(visual_tokens, self.config.video_pooling_stride)

    def visual_tokens_of(self, features: Iterable[Tensor], num_frames: int) -> Tensor:
        """Features of a video's frames, in chunks → their visual tokens `[T, h, w, D]`.

        Those of an only frame, a picture's or a video's, are not pooled (reference).
        """
        tokens = map(self.projector, features)
        return torch.cat(list(tokens if num_frames == 1 else map(self.pool, tokens)))

    def encode_video(self, pixel_values: Tensor, *, chunk_size: int = CHUNK_SIZE) -> VisualTokens:
        """Pixels `[T, 3, H, W]` → slow and fast tokens; `chunk_size` frames at a time bound the memory, no more."""
        features = self.features(pixel_values.split(chunk_size))
        return self.split(self.visual_tokens_of(features, len(pixel_values)))

    def encode_features(self, features: Tensor) -> VisualTokens:
        """What the vision tower made of a video, `[T, h, w, C]` → slow and fast tokens, as `encode_video` does it."""
        return self.split(self.visual_tokens_of(features.split(CHUNK_SIZE), len(features)))

    def split(self, visual_tokens: Tensor) -> VisualTokens:
        """A video's visual tokens `[T, h, w, D]` → slow and fast tokens."""
        tokens = split_video(visual_tokens, self.config)
        behind = getattr(self.projector, "behind_video", None)
        return tokens if behind is None else VisualTokens(tokens.slow, torch.cat([tokens.fast, behind]))

    # --- tokens → logits -------------------------------------------------------------------------------------------

    def embed(self, input_ids: Tensor, visual_tokens: Sequence[VisualTokens | None] | None = None) -> Tensor:
        """Embeddings `[B, L, D]`, each sample's fast tokens where `input_ids` `[B, L]` hold `IMAGE_TOKEN_ID`.

        Raises ValueError when a sample's placeholders and fast tokens differ in number.
        """
        is_fast = input_ids == IMAGE_TOKEN_ID
        embeddings: Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_fast, 0))
        samples = visual_tokens if visual_tokens is not None else [None] * len(input_ids)
        lengths = [0 if sample is None else len(sample.fast) for sample in samples]
        if is_fast.sum(dim=1).tolist() != lengths:
            raise ValueError(f"{is_fast.sum(dim=1).tolist()} placeholders in the prompts for {lengths} fast tokens")
        present = [sample.fast for sample in samples if sample is not None]
        if not present:
            return embeddings
        fast = torch.cat(present).to(embeddings)
        return embeddings.masked_scatter(is_fast[..., None].to(embeddings.device), fast)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        visual_tokens: Sequence[VisualTokens | None] | None = None,
        pixel_values: Sequence[Tensor | None] | None = None,
        features: Sequence[Tensor | None] | None = None,
        is_text: Tensor | None = None,
        slow_tokens: Tensor | None = None,
        slow_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        slow_attention: SlowAttention | str = SlowAttention.ALWAYS,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits `[B, L, V]`, or of the last `logits_to_keep` positions; with `labels` `[B, L]` the mean loss.

        Give `input_ids` `[B, L]` with `visual_tokens`, one entry a sample, None for text only, or the `pixel_values`
        `[T, 3, H, W]` or tower's `features` `[T, h, w, C]` to make them of; or, as `generate` does, `inputs_embeds`
        with `is_text` `[B, L]`, `slow_tokens` `[B, S, D]` and `slow_mask` `[B, S]`. What a SlowFastCache in `cache`
        holds of slow tokens is looked at again without being given again.
        """
        for encode, videos in ((self.encode_video, pixel_values), (self.encode_features, features)):
            visual_tokens = visual_tokens if videos is None else _of_each(videos, encode)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)  # learned tokens, where a step has several batches
        slow = None
        if slow_tokens is not None and slow_mask is not None:
            slow = SlowTokens(slow_tokens, slow_mask, is_ragged=not bool(slow_mask.all()))
        if inputs_embeds is None:
            assert input_ids is not None
            if visual_tokens is None and cache is not None and cache.get_seq_length() > 0:
                inputs_embeds = self.get_input_embeddings()(input_ids)  # after the prompt: no placeholder to find
            else:
                inputs_embeds = self.embed(input_ids, visual_tokens)
                if self.config.hybrid_layers:
                    slow = slow or SlowTokens.stack(visual_tokens or [])
                is_text = input_ids != IMAGE_TOKEN_ID
        if attention_mask is not None:  # made where the vision tower is, which may be another device
            attention_mask = attention_mask.to(inputs_embeds.device)
        if use_cache is None:
            use_cache = not self.training and labels is None
        if use_cache and cache is None:
            cache = SlowFastCache(self.config)
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        length_before = cache.get_seq_length() if isinstance(cache, SlowFastCache) else 0
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            slow=self._look_up(inputs_embeds, is_text, attention_mask, slow, cache, SlowAttention(slow_attention)),
            **kwargs,
        )
        if use_cache and isinstance(cache, SlowFastCache):
            cache.check_grown_to(length_before + inputs_embeds.shape[1])
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch)
        return CausalLMOutputWithPast(
            loss, logits, cache=outputs.cache, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def look_at_kept(self, cache: SlowFastCache, inputs_embeds: Tensor) -> Mapping[int, SlowKeysValues]:
        """What the next token of every answer looks at, by hybrid layer; of `inputs_embeds` only the kind counts."""
        return self._look_up(inputs_embeds, None, None, None, cache, SlowAttention.ALWAYS)

    def _look_up(
        self,
        inputs_embeds: Tensor,
        is_text: Tensor | None,
        attention_mask: Tensor | None,
        slow: SlowTokens | None,
        cache: Cache | None,
        slow_attention: SlowAttention,
    ) -> Mapping[int, SlowKeysValues]:
        """What this pass looks at, by hybrid layer: projected and, to be looked at again, kept; or from the cache."""
        slow_cache = cache if isinstance(cache, SlowFastCache) else None
        if slow is not None:
            if cache is not None and slow_cache is None:
                raise ValueError("a cache for a video must be a SlowFastCache, which keeps its slow keys and values")
            mask, is_ragged = slow.mask.to(inputs_embeds.device), slow.is_ragged
            if slow_attention is SlowAttention.PREFILL:
                slow_cache = None
            if slow_cache is not None:
                slow_cache.slow_mask, slow_cache.slow_is_ragged = mask, is_ragged
        elif slow_cache is not None and slow_cache.slow_mask is not None:
            mask, is_ragged = slow_cache.slow_mask, slow_cache.slow_is_ragged
        else:
            return {}
        has_video, length = mask.any(dim=1, keepdim=True), inputs_embeds.shape[1]
        scope = self.config.slow_attention_scope
        looking = LookingPositions.of(
            scope, has_video=has_video, length=length, is_text=is_text, attention_mask=attention_mask
        )
        bias = None
        if is_ragged:
            bias = torch.zeros_like(mask, dtype=inputs_embeds.dtype)
            bias = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)[:, None, None, :]
        if slow is not None and slow_cache is None:
            return {} if looking is None else self.slow_in_layers(slow.tokens.to(inputs_embeds.dtype), bias, looking)
        projected = None if slow is None else self.project_slow(slow.tokens.to(inputs_embeds.dtype))
        found: dict[int, SlowKeysValues] = {}
        assert slow_cache is not None
        for layer_idx in self.config.hybrid_layers:
            if projected is None:
                keys, values = slow_cache.slow_layers[layer_idx]
            else:
                keys, values = projected[layer_idx]
                slow_cache.store_slow(keys, values, layer_idx)
            if looking is not None:
                bias_here = None if bias is None else bias.to(keys.device)
                found[layer_idx] = SlowKeysValues(keys, values, bias_here, looking.on(keys.device))
        return found

    def project_slow(self, tokens: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Slow tokens `[B, S, D]` → the keys and values `[B, KV heads, S, head_dim]` of each hybrid layer."""
        normalised = _normalised(tokens, self.language_model.norm)
        return {layer_idx: self._project(layer_idx, normalised) for layer_idx in self.config.hybrid_layers}

    def slow_in_layers(self, tokens: Tensor, bias: Tensor | None, looking: LookingPositions) -> SlowInLayers:
        """The same, projected when a layer looks, with who `looking` is and the `bias` at padding."""
        normalised = _normalised(tokens, self.language_model.norm)

        def project(layer_idx: int) -> SlowKeysValues:
            keys, values = self._project(layer_idx, normalised)
            bias_here = None if bias is None else bias.to(keys.device)
            return SlowKeysValues(keys, values, bias_here, looking.on(keys.device))

        return SlowInLayers(self.config.hybrid_layers, project)

    def _project(self, layer_idx: int, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """Slow tokens `[B, S, D]` from `_normalised` → a hybrid layer's slow keys and values."""
        layer: Any = self.language_model.layers[layer_idx]
        device = layer.self_attn.slow_attention.warm_up_gate.device  # of a model that is spread over several
        parts = normalised.to(device).split(_PROJECTED_AT_A_TIME, dim=1)
        projected = [layer.self_attn.project_slow(layer.input_layernorm.weight * part) for part in parts]
        keys, values = (torch.cat(each, dim=2) for each in zip(*projected, strict=True))
        return keys, values

    # --- generation ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual_tokens: Sequence[VisualTokens | None] | None = None,
        pixel_values: Sequence[Tensor | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' `generate` (beams, sampling, …) on prompts with videos, as `forward` takes them.

        As with other models, what it returns begins with `input_ids`. The prompt goes in as embeddings, so that no
        logits processor ever sees a placeholder id.
        """
        if pixel_values is not None:
            visual_tokens = _of_each(pixel_values, self.encode_video)
        slow = SlowTokens.stack(visual_tokens or [])
        if slow is not None:
            kwargs.update(slow_tokens=slow.tokens, slow_mask=slow.mask, is_text=input_ids != IMAGE_TOKEN_ID)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        kwargs.setdefault("cache", SlowFastCache(self.config))
        written: Any = super().generate(
            inputs_embeds=self.embed(input_ids, visual_tokens), attention_mask=attention_mask, **kwargs
        )
        new_ids = written if isinstance(written, Tensor) else written.sequences
        asked = input_ids.repeat_interleave(len(new_ids) // len(input_ids), dim=0)
        ids = torch.cat([asked.to(new_ids.device), new_ids], dim=1)
        if isinstance(written, Tensor):
            return ids
        written.sequences = ids
        return written

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As transformers'; after the prompt the slow keys and values come from the cache."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration:
            for name in ("slow_tokens", "slow_mask", "is_text"):
                inputs.pop(name, None)
        return inputs

    # --- files -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]  # not all that transformers' takes
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: SlowFastConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Placement = None,
        attn_implementation: str | None = None,
        quantization: Quantization | str | None = None,
        adapter: Callable[[StoredModel], AdapterTensors] | None = None,
        **unused: Any,
    ) -> Self:
        """Load a folder straight onto its devices; keywords are transformers' own but for the last two.

        The host holds at most one tensor file beside what is loaded. `quantization` None is what the checkpoint is
        stored in; `adapter` reads an adapter's tensors for it. Raises CheckpointError naming the tensors that are
        missing, unexpected or of another shape, and the file that cannot be read; UsageError for another quantization
        than that of a quantized checkpoint.
        """
        if unknown := [name for name in unused if name not in _OF_TRANSFORMERS and not name.startswith("_")]:
            raise TypeError(f"from_pretrained takes no {', '.join(unknown)}")
        folder = Path(pretrained_model_name_or_path)
        stored = StoredModel.of(folder, cls, config, attn_implementation)
        if quantization is None:
            quantization = stored.quantization
        refuse_other(folder, stored.quantization, Quantization(quantization))
        is_chosen = dtype is not None and dtype != "auto"
        chosen = getattr(torch, str(dtype).removeprefix("torch.")) if is_chosen else stored.dtype
        builder = ModelBuilder(stored.network, chosen, device_map, quantizer_for(quantization))
        adapting = adapter(stored) if adapter else None
        beside = builder.quantized_weights
        for name, parts in adapting.merge(stored, beside=beside) if adapting else stored.tensors():
            builder.put(name, parts)
        loaded = builder.finish()
        if adapting:
            adapting.put_beside(loaded, beside, chosen)
        if (generation := read_generation_config(folder)) is not None:
            loaded.generation_config = generation
        return loaded  # type: ignore[no-any-return]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Save in our own format, whatever format was loaded."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)

    # --- parts -----------------------------------------------------------------------------------------------------

    @contextmanager
    def without_slow(self) -> Iterator[None]:
        """Force every warm-up gate to zero for a while: the model then sees the fast tokens only."""
        gates = [module.warm_up_gate for module in self.modules() if isinstance(module, GatedSlowAttention)]
        values = [gate.detach().clone() for gate in gates]
        try:
            for gate in gates:
                gate.data.zero_()
            yield
        finally:
            for gate, value in zip(gates, values, strict=True):
                gate.data.copy_(value)


_PROJECTED_AT_A_TIME = 1024
"""Slow tokens whose norm, in float32, a processor's caches can hold: it takes several times as long in memory."""


def _normalised(tokens: Tensor, norm: Any) -> Tensor:
    """Slow tokens `[B, S, D]` as every layer's RMSNorm has them before its own weight; `norm` is any of the decoder's.

    Layers differ in the weight alone, and so the rest is done once for all of them.
    """
    parts = []
    for part in tokens.split(_PROJECTED_AT_A_TIME, dim=1):
        exact = part.float()
        scale = torch.rsqrt(exact.pow(2).mean(dim=-1, keepdim=True) + norm.variance_epsilon)
        parts.append((exact * scale).to(tokens.dtype))
    return torch.cat(parts, dim=1)


STANDARD_DEVIATION = 0.02
_OPEN = 0.5  # gates and layer scales: at their first value, 0, slow attention and the vision tower would do nothing


def random_model(
    config: SlowFastConfig,
    *,
    dtype: torch.dtype,
    device_map: Placement = None,
    attn_implementation: str | None = None,
    quantization: Quantization | str = Quantization.NONE,
    seed: int = 0,
) -> SlowFastForConditionalGeneration:
    """Build a model with random tensors, drawn one by one on their devices: at most one is unquantized at a time.

    Weights are normal with a deviation of 0.02, norms 1, biases 0; the same seed gives the same model on one device.
    """
    model = build_empty(SlowFastForConditionalGeneration, config, attn_implementation)
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    builder = ModelBuilder(model, dtype, device_map, quantizer_for(quantization))
    for name, shape in shapes.items():
        builder.put(name, {"weight": _draw(name, shape, dtype, builder.device_of(name), seed)}, copy=False)
    finished: SlowFastForConditionalGeneration = builder.finish()
    return finished


def _draw(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if name.endswith((".gamma", ".warm_up_gate", "gate_proj.bias")):
        return tensor.fill_(_OPEN)
    if len(shape) == 1:
        return tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    own_seed = zlib.crc32(f"{seed} {name}".encode())  # by name: the order of modules does not matter
    return tensor.normal_(std=STANDARD_DEVIATION, generator=torch.Generator(device).manual_seed(own_seed))


def _of_each(videos: Sequence[Tensor | None], encode: Callable[[Tensor], VisualTokens]) -> list[VisualTokens | None]:
    return [None if video is None else encode(video) for video in videos]
