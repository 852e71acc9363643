"""A step of training with tensors that have no values, whose bytes are counted: nothing is computed, no weight is read.

What a step takes is the network's own doing, whatever its family, and what autograd, PEFT and the optimizer make of it.
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from sfvqa.errors import UsageError
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import LookingPositions
from sfvqa.model.loading import build_empty
from sfvqa.model.quantization import quantizable_linears
from sfvqa.video.clip import CHUNK_SIZE


@dataclass(frozen=True)
class BatchSize:
    """Rows of a batch, the tokens of the longest, and the frames of each one's video, 0 for text alone."""

    num_rows: int
    length: int
    num_frames: int
    num_text_tokens: int


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size

    def most(self, do: Callable[[], Any]) -> int:
        """The most bytes that there are while something is done, beyond those before it."""
        before = self.peak = self.bytes
        do()
        return self.peak - before


class CountedModel:
    """A network whose tensors have no values, and the bytes of what it does with them.

    `dtype` is that of its weights, `precision` what autocast computes in; `weights_bytes` is what it holds once
    `prepare` has chosen what learns, and `loaded_bytes` what it held before.
    """

    def __init__(
        self,
        config: SlowFastConfig,
        prepare: Callable[[SlowFastForConditionalGeneration], Any] = lambda _: None,
        *,
        dtype: torch.dtype = torch.float32,
        precision: torch.dtype = torch.float32,
        in_four_bits: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.network: Any = build_empty(SlowFastForConditionalGeneration, config).to(dtype)
        if in_four_bits:
            _quantize(self.network)
        self.loaded_bytes = sum(parameter.nbytes for parameter in self.network.parameters())
        prepare(self.network.train())
        self._precision = precision
        self._mode, self._live = FakeTensorMode(), _Live()
        with self._mode, self._live:
            _give_tensors(self.network)
        self.weights_bytes = self._live.bytes
        if gradient_checkpointing:
            self.network.activation_checkpointing_enable()

    def step_bytes(self, batch: BatchSize, *, accumulates: bool) -> int:
        """Gradients and activations at their most; of a step that `accumulates`, in its second batch."""

        def step() -> None:
            for _ in range(2 if accumulates else 1):
                self._loss(batch).backward()
            self.network.zero_grad()

        with self._mode, self._live:
            return self._live.most(step)

    @torch.no_grad()
    def measuring_bytes(self, batch: BatchSize) -> int:
        """What the loss of a batch takes where nothing is learned from it."""
        self.network.eval()
        with self._mode, self._live:
            return self._live.most(lambda: self._loss(batch))

    def _loss(self, batch: BatchSize) -> Tensor:
        """The loss of a batch, as forward has it; what looks at values, where rows are joined, is left out."""
        network, autocasts = self.network, self._precision is not torch.float32
        with torch.autocast("cpu", dtype=self._precision, enabled=autocasts):
            seen = [self._see(batch.num_frames) for _ in range(batch.num_rows)] if batch.num_frames else []
            ids = torch.zeros(batch.num_rows, batch.length, dtype=torch.long)
            embeddings = network.get_input_embeddings()(ids)
            slow = {}
            if seen:
                is_fast = torch.zeros(*ids.shape, 1, dtype=torch.bool)
                embeddings = embeddings.masked_scatter(is_fast, torch.cat([each.fast for each in seen]).to(embeddings))
                stacked = torch.stack([each.slow for each in seen])
                looking = LookingPositions(
                    torch.zeros(batch.num_rows, batch.num_text_tokens, dtype=torch.long),
                    torch.ones(batch.num_rows, batch.num_text_tokens, dtype=torch.bool),
                )
                slow = network.slow_in_layers(stacked, None, looking)
            outputs = network.language_model(
                inputs_embeds=embeddings,
                attention_mask=self._padding(batch),
                position_ids=torch.arange(batch.length)[None],
                use_cache=False,
                slow=slow,
            )
            logits = network.lm_head(outputs.last_hidden_state)
            loss: Tensor = network.loss_function(logits, ids, logits.shape[-1])
        returned = logits.float() if autocasts else logits  # accelerate gives back what autocast made, in float32
        del returned
        return loss

    @staticmethod
    def _padding(batch: BatchSize) -> Tensor | None:
        """The mask of a batch whose rows differ in length, as transformers makes it."""
        if batch.num_rows == 1:
            return None
        return torch.ones(batch.num_rows, 1, batch.length, batch.length, dtype=torch.bool)

    def _see(self, num_frames: int) -> Any:
        """A video through the tower; as FrozenTower has it where that is frozen."""
        network, side = self.network, self.network.config.vision.image_size
        pixels = torch.zeros(num_frames, 3, side, side)
        if any(parameter.requires_grad for parameter in network.vision_tower.parameters()):
            return network.encode_video(pixels)
        with torch.no_grad():
            features = torch.cat(list(network.features(pixels.split(CHUNK_SIZE))))
        bridge_learns = any(parameter.requires_grad for parameter in network.projector.parameters())
        with torch.set_grad_enabled(bridge_learns and torch.is_grad_enabled()):
            return network.encode_features(features)


class _OptimizerChoice(TrainingArguments):
    """Trainer's arguments, to choose an optimizer by: nothing that the processes of a run share is set up anew."""

    def __post_init__(self) -> None:
        self.optim = OptimizerNames(self.optim)


@dataclass(frozen=True)
class UpdateSize:
    """What an optimizer keeps of the weights that learn, and what comes and goes while it changes them."""

    kept_bytes: int
    passing_bytes: int

    @classmethod
    def of(cls, learned: list[nn.Parameter], optimizer: str) -> Self:
        """Measure one step of an optimizer, by transformers' name; UsageError if it needs what is not installed."""
        try:
            kind, settings = Trainer.get_optimizer_cls_and_kwargs(_OptimizerChoice("", optim=optimizer))
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"The optimizer {optimizer} cannot be used: {error}", "Install what it needs, or choose another."
            ) from error
        live = _Live()
        with FakeTensorMode(allow_non_fake_inputs=True), live:
            copies = [nn.Parameter(torch.empty(one.shape, dtype=one.dtype)) for one in learned]
            for copy in copies:
                copy.grad = torch.empty_like(copy)
            before = live.bytes
            looks = kind.__module__.startswith("bitsandbytes")  # at the values of its tables
            with unset_fake_temporarily() if looks else nullcontext():
                updates: Any = kind(copies, **settings)
                if hasattr(updates, "fill_qmap"):
                    updates.fill_qmap()
            made = live.bytes - before  # as Adagrad does before the first step
            most = made + live.most(updates.step)
            kept = live.bytes - before
        return cls(kept, most - kept)


def _give_tensors(model: nn.Module) -> None:
    """Give a network without memory tensors of its shapes, one that is tied to another the same."""
    given: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            if id(old) not in given:
                given[id(old)] = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
            module._parameters[name] = given[id(old)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class _FourBitProduct(torch.autograd.Function):
    """What bitsandbytes does with a weight in 4 bits, as far as memory goes: made anew for each product."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape = shape
        return nn.functional.linear(states, states.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ gradient.new_empty(ctx.shape), None


class _FourBitLinear(nn.Linear):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(1, 1, bias=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        num_weights = linear.weight.numel()
        self.weight = nn.Parameter(
            linear.weight.new_empty(num_weights // 2 + num_weights // 64, dtype=torch.uint8), requires_grad=False
        )
        self.bias = linear.bias

    def forward(self, states: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            states = states.to(torch.get_autocast_dtype("cpu"))
        product: Tensor = _FourBitProduct.apply(  # type: ignore[no-untyped-call]
            states, (self.out_features, self.in_features)
        )
        return product if self.bias is None else product + self.bias


def _quantize(model: nn.Module) -> None:
    for name, linear in quantizable_linears(model).items():
        model.set_submodule(name, _FourBitLinear(linear))
