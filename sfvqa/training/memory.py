"""The memory that a run will take, before it starts: by part, by phase, and what would make it fit.

What a step takes is counted (see counted_step.py); loading, answering, and what is held beside tensors are arithmetic.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Self

import torch

from sfvqa.checkpoints.device import free_memory_bytes
from sfvqa.checkpoints.host import free_host_bytes
from sfvqa.checkpoints.memory import SLACK, RunSize, estimate_memory
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.errors import ExitCode, UsageError
from sfvqa.inference.prompt import layout_of
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization
from sfvqa.registry import QuantizationName
from sfvqa.training.annotations import Example
from sfvqa.training.counted_step import BatchSize, CountedModel, UpdateSize
from sfvqa.training.engines import Engine, parts_kept_whole
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import IGNORED, DialogueWriter, check_lengths, num_fast_tokens
from sfvqa.wording import plural, readable_size

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


# --- what would make it fit -------------------------------------------------------------------------------------------


def lighter(options: FineTuning) -> Iterator[tuple[str, FineTuning]]:
    """Flags that make a run take less, each with those before it: first what changes nothing that is learned."""
    given: list[str] = []

    def more(flags: str, **changed: Any) -> tuple[str, FineTuning]:
        nonlocal options
        given.append(flags)
        options = replace(options, **changed)
        return " ".join(given), options

    if options.batch_size > 1 and not options.group_by_length:  # of which a batch of one row has none
        accumulation = options.accumulation * options.batch_size
        yield more(f"--batch-size 1 --accumulation {accumulation}", batch_size=1, accumulation=accumulation)
    if not options.gradient_checkpointing:
        yield more("--gradient-checkpointing", gradient_checkpointing=True)
    if options.precision == "float32":
        yield more("--precision bfloat16", precision="bfloat16")
    if options.stage is Stage.ALL and options.lora_rank is None and find_spec("peft"):
        yield more("--lora-rank 16", lora_rank=16)
    if options.lora_rank is not None and options.quantization == Quantization.NONE:
        yield more("--quantization 4bit", quantization="4bit")


@dataclass(frozen=True)
class DryRun:
    """A run that is only planned: `batch` is the largest of it, and `estimate` says what other options would take."""

    options: FineTuning
    batch: BatchSize
    estimate: Callable[[FineTuning], TrainingMemory]

    @cached_property
    def memory(self) -> TrainingMemory:
        """What the run would take."""
        return self.estimate(self.options)

    def tell(self) -> ExitCode:
        """Print the memory of the run part by part, whether it fits and what would; the exit code says that too."""
        memory = self.memory
        print("\n".join(self._lines(memory)))
        if _fits(memory):
            print("It fits.")
            return ExitCode.OK
        print(self._remedy(), file=sys.stderr)
        return ExitCode.OUT_OF_MEMORY

    def _lines(self, memory: TrainingMemory) -> Iterator[str]:
        where, batch = _NAMES[memory.device], self.batch
        rows = plural(batch.num_rows, "row")
        frames = f" and {plural(batch.num_frames, 'frame')}" if batch.num_frames else ""
        yield f"On {where}, in {self.options.precision}; a batch has {rows} of up to {batch.length:,} tokens{frames}."
        if memory.device != "cpu":
            yield f"Counted with the CPU's kernels, and not measured on {where}."
        parts = {
            "program" if memory.device != "cuda" else "workspace": memory.process_bytes,
            "weights": memory.weights_bytes,
            "optimizer": memory.optimizer_bytes,
            "frames that wait": memory.frames_bytes,
            "gradients and activations": memory.step_bytes,
        }
        for name, size in parts.items():
            yield _line(name, size)
        for phase, size in memory.phases.items():
            yield _line(f"{phase}, in all", size)
        yield _line("needed, with 5 % to spare", memory.needed_bytes)
        yield _line("free", free_memory_bytes(torch.device(memory.device)))
        if memory.device == "cuda":
            yield _line("needed on the host", memory.host_needed_bytes)
            yield _line("free on the host", free_host_bytes())

    def _remedy(self) -> str:
        """The least change with which it would fit."""
        tried = ""
        with suppress(UsageError):  # of what does not go with the options given, and nothing behind it would
            for flags, options in lighter(self.options):
                if _fits(memory := self.estimate(options)):
                    return f"It does not fit. It would with {flags}: {readable_size(memory.needed_bytes)}."
                tried = flags
        with_them = f", even with {tried}" if tried else ""
        return f"It does not fit{with_them}: use fewer frames (--num-frames), or a smaller model."


_NAMES = {"cpu": "the CPU", "cuda": "a CUDA device", "mps": "Apple's GPU"}


def _line(name: str, size: int | None) -> str:
    return f"{name:<28}{'unknown' if size is None else readable_size(size):>9}"


def _fits(memory: TrainingMemory) -> bool:
    """Whether there is room for it; assumed where the system does not say what is free."""
    free, host = free_memory_bytes(torch.device(memory.device)), free_host_bytes()
    fits_there = free is None or memory.needed_bytes <= free
    return fits_there and (host is None or memory.host_needed_bytes <= host)
