"""The memory that a run will take, before it starts: by part, by phase, and what would make it fit.

What a step takes is counted (see counted_step.py); loading, answering, and what is held beside tensors are arithmetic.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from sfvqa.checkpoints.memory import SLACK, RunSize, estimate_memory
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.inference.prompt import layout_of
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization
from sfvqa.registry import QuantizationName
from sfvqa.training.annotations import Example
from sfvqa.training.counted_step import BatchSize, CountedModel, UpdateSize
from sfvqa.training.engines import Engine, parts_kept_whole
from sfvqa.training.options import FineTuning
from sfvqa.training.rows import IGNORED, DialogueWriter, check_lengths, num_fast_tokens

TRAINER_BYTES = 182_000_000
"""What Trainer, PEFT and bitsandbytes add to the program itself, resident: measured with `sfvqa.lab.adapters`, whose
model is next to nothing (Linux, torch 2.13, CPU)."""


@dataclass(frozen=True)
class Conversations:
    """A batch of the largest: their rows, and the questions of each and the tokens of an answer where it is asked."""

    rows: BatchSize
    num_questions: int
    num_answer_tokens: int

    def of(self, num_rows: int) -> Self:
        """As many of them."""
        return replace(self, rows=replace(self.rows, num_rows=num_rows))


def largest_of(
    examples: Iterable[Example], writer: DialogueWriter, config: SlowFastConfig, num_frames: int
) -> Conversations:
    """One row as long as the longest, with as many frames and as much text as any; the longest may be text.

    Videos whose frames are not known have `num_frames`. Raises UsageError for rows that are too long, as the run does.
    """
    sizes, known = [], []
    for example in examples:
        layout: tuple[Any, ...] = ()
        frames = 0 if example.video is None else len(example.timestamps_seconds or ()) or num_frames
        num_fast = num_fast_tokens(frames, config) if frames else 0
        if frames:
            times = example.timestamps_seconds or (0.0,) * frames
            layout = layout_of(num_fast, times, example.duration_seconds, config)
        rows = writer.rows(example, layout)
        length = max(len(row.ids) for row in rows)
        answer = max(sum(label != IGNORED for label in row.labels) for row in rows)
        sizes.append((length, frames, length - num_fast, len(example.turns), answer))
        if not frames or example.timestamps_seconds:
            known += [(example, len(row.ids)) for row in rows]
    check_lengths(known, config)
    length, frames, num_text, num_questions, answer = map(max, zip(*sizes, strict=True))
    return Conversations(BatchSize(1, length, frames, num_text), num_questions, answer)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by part, on a `device` of a kind: cpu, cuda or mps.

    There throughout are the program (on CUDA the libraries' workspace), weights, what the optimizer keeps of them, and
    frames that were read and wait for their step. The others come and go: a step's gradients and activations at their
    most; a validation; another model that is measured before the first step, its weights included.
    Loading, and giving weights that were frozen their precision back, is done by the host, of which CUDA has none.
    """

    device: str
    process_bytes: int
    weights_bytes: int
    optimizer_bytes: int
    frames_bytes: int
    step_bytes: int
    validation_bytes: int
    base_bytes: int
    host_process_bytes: int
    loading_bytes: int
    saving_bytes: int

    @property
    def phases(self) -> dict[str, int]:
        """Peak memory on the device in each phase that the run has there."""
        held = self.process_bytes + self.weights_bytes
        learning = held + self.optimizer_bytes + self.frames_bytes
        found = {"training": learning + self.step_bytes}
        if self.validation_bytes:
            found["validation"] = learning + self.validation_bytes
        if self.base_bytes:
            found["the other model"] = held + self.base_bytes
        return found if self.device == "cuda" else found | self.host_phases

    @property
    def host_phases(self) -> dict[str, int]:
        """Peak memory of the host in what it does itself."""
        saving = {"saving": self.saving_bytes} if self.saving_bytes else {}
        return {
            name: self.host_process_bytes + size for name, size in ({"loading": self.loading_bytes} | saving).items()
        }

    @property
    def peak_bytes(self) -> int:
        """Peak memory on the device."""
        return max(self.phases.values())

    @property
    def needed_bytes(self) -> int:
        """Free memory needed on the device."""
        return int(self.peak_bytes * SLACK)

    @property
    def host_needed_bytes(self) -> int:
        """Free memory needed on the host of a CUDA device; on others it is the same."""
        return int(max(self.host_phases.values()) * SLACK) if self.device == "cuda" else self.needed_bytes


def estimate_training(
    config: SlowFastConfig,
    options: FineTuning,
    batch: Conversations,
    prepare: Callable[[SlowFastForConditionalGeneration], Any],
    *,
    file_bytes: int,
    device: str = "cpu",
    validated: Conversations | None = None,
    base_bytes: int = 0,
) -> TrainingMemory:
    """Estimate the memory of a run on one device of a kind; a step is counted with the CPU's kernels in any case.

    `prepare` chooses what learns of a model in float32, and keeps the rest, as the run does; `file_bytes` is the size
    of the largest file of weights; `validated` is a batch of validation, and `base_bytes` what `estimate_base` says.
    UsageError for an optimizer that needs what is not installed.
    """
    model = CountedModel(
        config,
        prepare,
        precision=getattr(torch, options.precision),
        in_four_bits=options.quantization == Quantization.FOUR_BIT,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    learned = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    update = UpdateSize.of(learned, options.optimizer)
    step = model.step_bytes(batch.rows, accumulates=options.accumulation > 1)
    validation = 0
    if validated is not None:
        precision, bits = options.precision, QuantizationName(options.quantization)
        validation = max(model.measuring_bytes(validated.rows), _answering(config, validated, precision, bits, device))
    loading = model.loaded_bytes + file_bytes
    is_rounded = options.precision != "float32" and options.lora_rank is None
    program = _program_bytes(config, "cpu") + TRAINER_BYTES
    return TrainingMemory(
        device=device,
        process_bytes=_program_bytes(config, device) if device == "cuda" else program,
        weights_bytes=model.weights_bytes,
        optimizer_bytes=update.kept_bytes,
        frames_bytes=_waiting_bytes(config, options, batch.rows),
        step_bytes=max(step, sum(parameter.nbytes for parameter in learned) + update.passing_bytes),
        validation_bytes=validation,
        base_bytes=base_bytes,
        host_process_bytes=program,
        loading_bytes=loading,
        saving_bytes=loading + (0 if device == "cuda" else update.kept_bytes) if is_rounded else 0,
    )


def estimate_base(
    config: SlowFastConfig, conversations: Conversations, dtype: str, quantization: QuantizationName, device: str
) -> int:
    """Bytes that another model and its validation take at their most."""
    run = _run_size(conversations, dtype, quantization, device)
    estimate = estimate_memory(architecture_of(config), fast_tokens_of(config), run)
    counted = CountedModel(config, dtype=getattr(torch, dtype))
    loss = estimate.weights_bytes + counted.measuring_bytes(conversations.rows)
    return max(estimate.peak_bytes - estimate.process_bytes, loss)


def training_bytes(
    model: SlowFastForConditionalGeneration, optimizer: str, engine: Engine = Engine.DDP, num_processes: int = 1
) -> int:
    """The memory of weights, gradients and optimizer at the end of a step, activations not counted.

    Of a model that processes share, what the first of them holds, without what it gathers while a step runs.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = UpdateSize.of(learned, optimizer).kept_bytes / max(sum(parameter.numel() for parameter in learned), 1)
    if engine is not Engine.DDP:
        kept //= 1  # of each number; the count of steps, which DDP's figure has too, is no tensor that is divided
    whole = tuple(f"{part}." for part in parts_kept_whole(engine, model))
    total = 0.0
    for name, parameter in model.named_parameters():
        held = 2 * parameter.itemsize + kept if parameter.requires_grad else parameter.itemsize
        share, is_whole = parameter.numel(), name.startswith(whole)
        if engine is Engine.ZERO3:  # it has another weight in float32, and gathers small ones once
            held += 4 if parameter.requires_grad else 0
            share = math.ceil(share / num_processes)
            total += parameter.nbytes if is_whole or parameter.numel() <= _SMALL else 0
        elif engine is Engine.FSDP and not is_whole and parameter.is_floating_point():
            share = math.ceil(len(parameter) / num_processes) * (share // len(parameter))  # by rows
        total += share * held
    return round(total)


_SMALL = 100_000  # numbers: stage3_param_persistence_threshold, as DeepSpeed has it


def _answering(
    config: SlowFastConfig, conversations: Conversations, dtype: str, quantization: QuantizationName, device: str
) -> int:
    """What answering the questions of a batch takes beside the model."""
    run = _run_size(conversations, dtype, quantization, device)
    estimate = estimate_memory(architecture_of(config), fast_tokens_of(config), run)
    held = estimate.process_bytes + estimate.weights_bytes
    return max(size for phase, size in estimate.phases.items() if phase != "load") - held


_MORE_TOKENS = 32  # than the true answer has, which one in validation may take at most


def _run_size(conversations: Conversations, dtype: str, quantization: QuantizationName, device: str) -> RunSize:
    rows = conversations.rows
    return RunSize(
        max(rows.num_frames, 1),
        dtype,
        device,
        quantization,
        rows.num_text_tokens,
        conversations.num_answer_tokens + _MORE_TOKENS,
        batch_size=rows.num_rows * conversations.num_questions,
        num_videos=rows.num_rows,
    )


def _program_bytes(config: SlowFastConfig, device: str) -> int:
    """What there is beside tensors: on the CPU the program, on CUDA a workspace."""
    run = RunSize(1, "float32", device)
    return estimate_memory(architecture_of(config), fast_tokens_of(config), run).process_bytes


def _waiting_bytes(config: SlowFastConfig, options: FineTuning, batch: BatchSize) -> int:
    """Pixel values of a step's batches, of the one that accelerate reads ahead, and of two more a worker."""
    num_batches, side = options.accumulation + 1 + 2 * options.num_workers, int(config.vision.image_size)
    return num_batches * batch.num_rows * batch.num_frames * 3 * side**2 * 4
