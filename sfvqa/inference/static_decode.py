"""Decoding over buffers of fixed sizes: every step is the same work at the same addresses, so CUDA can record it."""

import torch
from torch import Tensor

from sfvqa.inference.question import check_static_decode
from sfvqa.model import SlowFastCache, SlowFastForConditionalGeneration


class StaticDecoder:
    """Decodes one token of every answer a step, as `generation.decode` does, with room for all of them at once.

    On a single CUDA device the second step is recorded as a graph (the first runs as it is, so that whatever is set up
    on first use is there) and replayed from then on: launching some hundred small kernels one by one takes the
    processor longer than they run. Elsewhere every step runs as it is, over the same buffers.

    `mask` `[B, L]` tells the `L` positions of `cache` apart from padding. UsageError for an attention or a cache whose
    steps cannot be of fixed size.
    """

    def __init__(
        self, model: SlowFastForConditionalGeneration, cache: SlowFastCache, mask: Tensor, num_steps: int
    ) -> None:
        check_static_decode(model.config._attn_implementation)
        batch_size, self._length = mask.shape
        self._model, self._cache = model, cache.with_room_for(num_steps)
        embeddings = model.get_input_embeddings().weight
        assert isinstance(embeddings, Tensor)
        device, dtype = embeddings.device, embeddings.dtype
        # Added to the scores: whatever is not written yet is left out like padding, and let in step by step.
        self._bias = torch.full(
            (batch_size, 1, 1, self._length + num_steps), torch.finfo(dtype).min, dtype=dtype, device=device
        )
        self._bias[..., : self._length].masked_fill_(mask.to(device).bool()[:, None, None], 0)
        self._token_ids = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self._positions = mask.to(device).long().sum(dim=1, keepdim=True)
        is_on_one_device = len({parameter.device for parameter in model.parameters()}) == 1
        self._can_record = device.type == "cuda" and is_on_one_device
        self._num_done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recorded_logits: Tensor | None = None

    @torch.inference_mode()
    def step(self, token_ids: Tensor) -> Tensor:
        """Run the tokens `[B]` through the model; logits `[B, V]`, which the next step may overwrite."""
        self._token_ids.copy_(token_ids[:, None])
        self._bias[..., self._length + self._num_done] = 0
        logits = self._replay() if self._can_record and self._num_done > 0 else self._run()
        self._positions += 1
        self._num_done += 1
        return logits

    def _replay(self) -> Tensor:
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            # Threads that read videos meanwhile may allocate: only this one's mistakes are to break the recording.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._recorded_logits = self._run()
            self._graph = graph
        self._graph.replay()
        assert self._recorded_logits is not None
        return self._recorded_logits

    def _run(self) -> Tensor:
        output = self._model(
            inputs_embeds=self._model.get_input_embeddings()(self._token_ids),
            attention_mask=self._bias,
            position_ids=self._positions,
            cache=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
