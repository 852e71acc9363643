"""The memory that a run will take, before it starts: a step is taken with tensors that have no values, and counted.

Nothing is computed and no weight is read. What a step takes is the network's own doing, whatever its family, and what
autograd and PEFT make of it; loading, the optimizer, and what is held beside tensors are arithmetic.
"""

import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.training_args import OptimizerNames

from sfvqa.checkpoints.device import free_memory_bytes
from sfvqa.checkpoints.memory import CHUNK_SIZE, CPU_PROCESS_BYTES, SLACK
from sfvqa.errors import ExitCode
from sfvqa.inference.prompt import layout_of
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import LookingPositions
from sfvqa.model.loading import build_empty
from sfvqa.model.quantization import Quantization, quantizable_linears
from sfvqa.training.annotations import Example
from sfvqa.training.options import FineTuning
from sfvqa.training.rows import DialogueWriter, num_fast_tokens
from sfvqa.wording import readable_size

TRAINER_BYTES = 182_000_000
"""What Trainer, PEFT and bitsandbytes add to the program itself, resident: measured with `sfvqa.lab.adapters`, whose
model is next to nothing (Linux, torch 2.13, CPU)."""


@dataclass(frozen=True)
class BatchSize:
    """Rows of a batch, the tokens of the longest, and the frames of each one's video, 0 for text alone."""

    num_rows: int
    length: int
    num_frames: int
    num_text_tokens: int


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by part. Weights and what the optimizer keeps of them are there throughout; `step_bytes` come and go.

    They are gradients and activations at their most. `loading_bytes` are the weights in float32 and a file of them.
    """

    process_bytes: int
    weights_bytes: int
    optimizer_bytes: int
    step_bytes: int
    loading_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the run."""
        held = self.weights_bytes + self.optimizer_bytes + self.step_bytes
        return self.process_bytes + max(self.loading_bytes, held)

    @property
    def needed_bytes(self) -> int:
        """Free memory needed."""
        return int(self.peak_bytes * SLACK)


def largest_batch(
    examples: Iterable[Example], writer: DialogueWriter, config: SlowFastConfig, num_rows: int, num_frames: int
) -> BatchSize:
    """A batch of rows as long as the longest, with as many frames and as much text as any; the longest may be text.

    Videos whose frames are not known have `num_frames`.
    """
    sizes = []
    for example in examples:
        layout: tuple[Any, ...] = ()
        frames = 0 if example.video is None else len(example.timestamps_seconds or ()) or num_frames
        num_fast = num_fast_tokens(frames, config) if frames else 0
        if frames:
            times = example.timestamps_seconds or (0.0,) * frames
            layout = layout_of(num_fast, times, example.duration_seconds, config)
        length = max(len(row.ids) for row in writer.rows(example, layout))
        sizes.append((length, frames, length - num_fast))
    return BatchSize(num_rows, *map(max, zip(*sizes, strict=True)))


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


def estimate_training(
    config: SlowFastConfig,
    options: FineTuning,
    batch: BatchSize,
    prepare: Callable[[SlowFastForConditionalGeneration], None],
    *,
    file_bytes: int,
) -> TrainingMemory:
    """Estimate the memory of a run on one device.

    `prepare` chooses what learns of a model in float32, and keeps the rest, as the run does; `file_bytes` is the size
    of the largest file of weights.
    """
    model: Any = build_empty(SlowFastForConditionalGeneration, config)
    if options.quantization == Quantization.FOUR_BIT:
        _quantize(model)
    loaded = sum(parameter.nbytes for parameter in model.parameters())
    prepare(model.train())
    live = _Live()
    with FakeTensorMode(), live:
        _give_tensors(model)
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        weights = live.bytes
        _step(model, options, batch)
        step = live.peak - weights
        num_learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        return TrainingMemory(
            process_bytes=CPU_PROCESS_BYTES + TRAINER_BYTES,
            weights_bytes=weights,
            optimizer_bytes=int(num_learned * _STATE_BYTES.get(OptimizerNames(options.optimizer), _OF_ADAMW)),
            step_bytes=step,
            loading_bytes=loaded + file_bytes,
        )


_OF_ADAMW = 8.0
_STATE_BYTES = {
    OptimizerNames.ADAMW_BNB: 2.0,
    OptimizerNames.ADAMW_8BIT: 2.0,
    OptimizerNames.PAGED_ADAMW_8BIT: 2.0,
    OptimizerNames.LION: 4.0,
    OptimizerNames.PAGED_LION: 4.0,
    OptimizerNames.LION_8BIT: 1.0,
    OptimizerNames.PAGED_LION_8BIT: 1.0,
    OptimizerNames.SGD: 0.0,
    OptimizerNames.ADAFACTOR: 0.1,  # a row and a column of each weight
}
"""What optimizers keep of a number that learns; others count as AdamW's two averages in float32 do."""


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


def _step(model: SlowFastForConditionalGeneration, options: FineTuning, batch: BatchSize) -> None:
    """Forward and backward of one batch. What looks at values, where rows are joined, is left out."""
    network: Any = model
    precision = getattr(torch, options.precision)
    with torch.autocast("cpu", dtype=precision, enabled=precision is not torch.float32):
        seen = [_see(network, batch.num_frames) for _ in range(batch.num_rows)] if batch.num_frames else []
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
            inputs_embeds=embeddings, position_ids=torch.arange(batch.length)[None], use_cache=False, slow=slow
        )
        logits = network.lm_head(outputs.last_hidden_state)
        loss = network.loss_function(logits, ids, logits.shape[-1])
    loss.backward()


def _see(network: Any, num_frames: int) -> Any:
    """A video through the tower, without gradients where that is frozen, as FrozenTower has it."""
    side = network.config.vision.image_size
    pixels = torch.zeros(num_frames, 3, side, side)
    learns = any(parameter.requires_grad for parameter in network.vision_tower.parameters())
    with torch.set_grad_enabled(learns):
        features = list(network.features(pixels.split(CHUNK_SIZE)))
    bridge_learns = any(parameter.requires_grad for parameter in network.projector.parameters())
    with torch.set_grad_enabled(learns or bridge_learns):
        return network.split(network.visual_tokens_of(features, num_frames))


def tell(memory: TrainingMemory) -> ExitCode:
    """Print an estimate part by part, and whether it fits on the CPU; the exit code says that too."""
    free = free_memory_bytes(torch.device("cpu"))
    parts = {
        "program": memory.process_bytes,
        "weights": memory.weights_bytes,
        "optimizer": memory.optimizer_bytes,
        "gradients and activations": memory.step_bytes,
    }
    for name, size in parts.items():
        print(f"{name:<26}{readable_size(size)}")
    print(f"{'peak while loading':<26}{readable_size(memory.process_bytes + memory.loading_bytes)}")
    print(f"{'needed':<26}{readable_size(memory.needed_bytes)}")
    print(f"{'free':<26}{'unknown' if free is None else readable_size(free)}")
    if free is None or memory.needed_bytes <= free:
        return ExitCode.OK
    print(
        "It does not fit: use --gradient-checkpointing, --precision bfloat16, --lora-rank 16, --quantization 4bit, "
        "a smaller --batch-size, or fewer frames (--num-frames).",
        file=sys.stderr,
    )
    return ExitCode.OUT_OF_MEMORY
