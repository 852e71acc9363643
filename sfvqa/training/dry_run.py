"""What a run would take of memory, before it starts: for its largest batch, whether it fits, and what would fit."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sfvqa.checkpoints.device import free_memory_bytes, resolve_device
from sfvqa.checkpoints.find import find, locate, weight_files
from sfvqa.checkpoints.host import free_host_bytes
from sfvqa.checkpoints.known import read_sizes, read_trained_with
from sfvqa.errors import ExitCode, UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model import SlowFastConfig, read_config
from sfvqa.model.quantization import Quantization
from sfvqa.training.annotations import Example, Source, read_annotations, read_sources
from sfvqa.training.chosen import check_quantization, choose, resolve
from sfvqa.training.counted_step import BatchSize
from sfvqa.training.engines import Engine
from sfvqa.training.learning import prepare
from sfvqa.training.memory import (
    Conversations,
    TrainingMemory,
    estimate_base,
    estimate_training,
    largest_of,
)
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import DialogueWriter
from sfvqa.training.stream import RowsOnDisk, Stream, streamed_sources
from sfvqa.wording import plural, readable_size


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


def dry_run(model: str | Path, annotations: Path | Sequence[Source], videos: Path, options: FineTuning) -> DryRun:
    """What `fine_tune` would take of memory, without reading weights; of a stream, for its first rows (`shuffle_rows`).

    Errors as there, but for the run's folder.
    """
    if (engine := Engine.launched()) is not Engine.DDP:
        raise UsageError(
            f"A dry run counts a whole model, of which a process has a share with the recipe {engine}.",
            "Leave out `accelerate launch`: then it says what each process takes with the recipe ddp.",
        )
    sources = [Source(annotations)] if isinstance(annotations, Path) else annotations
    options, looking = resolve(options, read_trained_with(find(model)))
    check_quantization(model, options.quantization)
    with ExitStack() as stack:
        if streamed := streamed_sources(sources, options):
            rows = RowsOnDisk(Path(stack.enter_context(TemporaryDirectory())), videos)
            examples = Stream(streamed, rows, options).first_block()
        else:
            examples = read_sources(sources, videos, options.seed)
        if options.validation_file:
            examples += [replace(one, held_out=True) for one in read_annotations(options.validation_file, videos)]
        nothing = VideoCache(Path("nothing-is-kept"), 0)
        examples, _ = choose(examples, looking, options, nothing, before={}, streams=bool(streamed))
    learned, held_out = ([one for one in examples if one.held_out is held] for held in (False, True))
    folder, device = locate(model).folder, resolve_device(options.device).type
    config, num_frames = read_config(folder), looking.sampling.num_frames
    batch, validated = (_largest(part, folder, config, num_frames) for part in (learned, held_out))
    assert batch is not None
    file_bytes = max((folder / name).stat().st_size for name in weight_files(folder))

    def estimate(asked: FineTuning) -> TrainingMemory:
        return estimate_training(
            config,
            asked,
            batch.of(asked.batch_size),
            lambda made: prepare(made, folder, asked),
            file_bytes=file_bytes,
            device=device,
            validated=validated and validated.of(asked.batch_size),
            base_bytes=_base_bytes(held_out, asked, device),
        )

    return DryRun(options, batch.of(options.batch_size).rows, estimate)


def _largest(examples: list[Example], folder: Path, config: SlowFastConfig, num_frames: int) -> Conversations | None:
    """The largest conversations of some; None of none."""
    return largest_of(examples, DialogueWriter.of(folder, config), config, num_frames) if examples else None


def _base_bytes(held_out: list[Example], options: FineTuning, device: str) -> int:
    """What measuring the model to compare with takes."""
    if options.against_base is None:
        return 0
    known, folder = read_sizes(options.against_base), locate(options.against_base).folder
    config, num_frames = read_config(folder), known.trained_with.sampling.num_frames
    asked = _largest([replace(one, timestamps_seconds=None) for one in held_out], folder, config, num_frames)
    assert asked is not None  # where nothing is held out there is no validation
    return estimate_base(config, asked.of(options.batch_size), known.auto_dtype(device), known.quantization, device)


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


_NAMES = {"cpu": "the CPU", "cuda": "a CUDA device", "mps": "Apple's GPU"}


def _line(name: str, size: int | None) -> str:
    return f"{name:<28}{'unknown' if size is None else readable_size(size):>9}"


def _fits(memory: TrainingMemory) -> bool:
    """Whether there is room for it; assumed where the system does not say what is free."""
    free, host = free_memory_bytes(torch.device(memory.device)), free_host_bytes()
    fits_there = free is None or memory.needed_bytes <= free
    return fits_there and (host is None or memory.host_needed_bytes <= host)
