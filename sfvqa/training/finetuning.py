"""Fine-tuning on annotated videos through transformers' Trainer, in the paper's two stages."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainingArguments

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.checkpoint import load_checkpoint
from sfvqa.inference.device import memory_errors, resolve_device
from sfvqa.inference.locate import find
from sfvqa.inference.trained_with import read_trained_with
from sfvqa.model import num_frames_outside_fast_path
from sfvqa.model.quantization import Quantization
from sfvqa.training.annotations import check_videos, read_annotations
from sfvqa.training.dialogue import DialogueWriter
from sfvqa.training.run_folder import check_new_run, check_settings, last_state, read_settings, write_settings
from sfvqa.training.video_dataset import Looking, VideoDataset, collate
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.wording import plural

if TYPE_CHECKING:
    from pathlib import Path

    from sfvqa.inference.checkpoint import LoadedCheckpoint
    from sfvqa.inference.trained_with import TrainedWith
    from sfvqa.model import SlowFastForConditionalGeneration
    from sfvqa.training.annotations import Example
    from sfvqa.video.fitting import CropMode

logger = logging.getLogger(__name__)


class Stage(IntEnum):
    """What is learned: the paper's two stages (section 4.1)."""

    BRIDGE = 1
    """Projector and slow attention; everything that was there before stays as it is."""
    ALL = 2
    """Everything."""


@dataclass(frozen=True)
class FineTuning:
    """What a run does; `num_frames`, `sampling` and `crop` None are as in the checkpoint's own training.

    Lengths are optimizer steps.
    `batch_size` is rows on each device at a time, of which `accumulation` make a step. `precision` is float32,
    bfloat16 or float16: what is computed in; weights and optimizer stay in float32. `isolate_reading` reads each video
    in a process of its own, which can be ended when one hangs, and costs half a second. Raises UsageError when built.
    """

    stage: Stage = Stage.ALL
    num_frames: int | None = None
    sampling: SamplingStrategy | None = None
    crop: CropMode | None = None
    num_epochs: float = 1.0
    num_steps: int | None = None
    batch_size: int = 1
    accumulation: int = 1
    learning_rate: float = 2e-5
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    precision: str = "float32"
    gradient_checkpointing: bool = False
    freeze_vision: bool = False
    skip_unreadable: bool = False
    isolate_reading: bool = False
    save_every: int = 500
    num_kept: int = 2
    log_every: int = 10
    num_workers: int = 0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if (value := getattr(self, name)) is not None and not (math.isfinite(value) and value >= least):
                raise UsageError(f"{name} is {value}.", f"It must be a number from {least} on.")
        for name in ("num_epochs", "learning_rate"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise UsageError(f"{name} is {value}.", "It must be a number above 0.")
        if not 0 <= self.warmup_share < 1:  # Trainer would take more for a number of steps
            raise UsageError(f"warmup_share is {self.warmup_share}.", "It must be from 0 to below 1.")
        if self.seed > _HIGHEST_SEED:
            raise UsageError(f"seed is {self.seed}.", f"It must be at most {_HIGHEST_SEED}.")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise UsageError(f"There is no precision {self.precision!r}.", "Use float32, bfloat16 or float16.")
        if self.device not in ("auto", "cpu"):
            raise UsageError(
                f"Training runs on auto or cpu, not {self.device!r}.", "Choose GPUs by CUDA_VISIBLE_DEVICES."
            )
        if self.precision == "float16" and resolve_device(self.device).type == "cpu":
            # Trainer would compute in float32 without a word
            raise UsageError("On a CPU nothing is trained in float16.", "Use bfloat16.")


_AT_LEAST = {
    "num_frames": 1,
    "num_steps": 1,
    "batch_size": 1,
    "accumulation": 1,
    "save_every": 1,
    "num_kept": 1,
    "log_every": 1,
    "num_workers": 0,
    "seed": 0,
    "weight_decay": 0,
    "max_gradient_norm": 0,
}
TAKES_LESS = "Use a smaller --batch-size, --gradient-checkpointing, or fewer frames; a saved state is gone on from."
_HIGHEST_SEED = 2**32 - 1  # numpy's


def choose_learned(model: SlowFastForConditionalGeneration, stage: Stage, *, freeze_vision: bool = False) -> int:
    """Let gradients reach what a stage learns and nothing else; how many parameters that is."""
    for name, parameter in model.named_parameters():
        is_bridge = name.startswith("projector.") or ".slow_attention." in name
        is_frozen = freeze_vision and name.startswith("vision_tower.")
        parameter.requires_grad = is_bridge or (stage is Stage.ALL and not is_frozen)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def fine_tune(
    model: str | Path, annotations: Path, videos: Path, run: Path, options: FineTuning, *, resume: bool = False
) -> Path:
    """Train, and write the checkpoint folder `run`/checkpoint; `resume` goes on from the last state saved in `run`.

    Raises UsageError for bad annotations, videos that cannot be read, a run folder that is in use or, with `resume`,
    holds nothing or the state of other settings; ModelError for the checkpoint; OutOfMemoryError.
    """
    examples = read_annotations(annotations, videos)
    options, looking = _resolve(options, read_trained_with(find(model)))
    settings, state = _settings(model, annotations, videos, options), None
    if resume:
        before = read_settings(run)
        check_settings(run, before, settings)
        state = str(last_state(run))
        examples = _without(before.get("left_out") or [], examples)
    else:
        check_new_run(run)
    wanted = {str(example.video) for example in examples}
    examples = check_videos(examples, looking.sampling, looking.reading, skip_unreadable=options.skip_unreadable)
    settings["left_out"] = sorted(wanted - {str(example.video) for example in examples})
    if resume and settings["left_out"]:
        gone = ", ".join(settings["left_out"])
        raise UsageError(f"The run in {run} learned from {gone}, now unreadable.", "Mend them, or begin another run.")
    checkpoint = load_checkpoint(model, device="cpu", dtype=torch.float32)
    if checkpoint.quantization is not Quantization.NONE:
        raise UsageError(f"{model} is a quantized copy.", "Fine-tune the checkpoint that it was made of.")
    if left_out := num_frames_outside_fast_path(looking.sampling.num_frames, checkpoint.model.config):
        frames = plural(left_out, "frame")
        logger.warning("No window of the fast tokens holds the last %s of a video: only slow tokens show it.", frames)
    if options.stage is Stage.BRIDGE:
        examples = _with_videos(examples)
    trainer = make_trainer(checkpoint, examples, looking, run, options)
    if not resume:  # only now: a start that failed must not keep the folder from the next
        write_settings(run, settings)
    try:
        with memory_errors("training", lambda: TAKES_LESS):
            trainer.train(resume_from_checkpoint=state)
    except SfvqaError as error:
        raise _as_raised(error) from error
    return _write_result(trainer, checkpoint, run / "checkpoint", looking)


def _as_raised(error: SfvqaError) -> SfvqaError:
    """The same as a process that reads ahead raised it: torch passes on its class and, as its message, a traceback."""
    if not error.message.startswith("Caught "):
        return error
    return type(error)(error.message.rstrip().splitlines()[-1].partition(": ")[2])


def make_trainer(
    checkpoint: LoadedCheckpoint, examples: list[Example], looking: Looking, run: Path, options: FineTuning
) -> Trainer:
    """transformers' Trainer, ready to run; it is the model of `checkpoint` that learns."""
    model = checkpoint.model
    model.train()
    num_learned = choose_learned(model, options.stage, freeze_vision=options.freeze_vision)
    dataset = VideoDataset(
        examples, DialogueWriter(checkpoint.tokenizer, checkpoint.end_token_ids), model.config, looking
    )
    arguments = _arguments(run, options, has_text_alone=any(example.video is None for example in examples))
    if arguments.n_gpu > 1:
        raise UsageError(
            f"One process sees {arguments.n_gpu} GPUs.",
            "Start one a GPU, `torchrun --nproc-per-node N -m sfvqa.training.finetune …`, or set CUDA_VISIBLE_DEVICES.",
        )
    logger.info(
        "Stage %d: %s of %s, %s learn",
        options.stage,
        plural(len(dataset), "row"),
        plural(len(examples), "example"),
        plural(num_learned, "parameter"),
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collate,
        processing_class=checkpoint.tokenizer,
    )


def _with_videos(examples: list[Example]) -> list[Example]:
    kept = [example for example in examples if example.video is not None]
    if not kept:
        raise UsageError("No example has a video, and stage 1 learns from nothing else.", "Use --stage 2.")
    if len(kept) < len(examples):
        logger.warning("Stage 1 leaves out %s without a video.", plural(len(examples) - len(kept), "example"))
    return kept


def _without(left_out: list[str], examples: list[Example]) -> list[Example]:
    """What a run learned from: not the videos that could not be read when it began, even if they can be now."""
    return [example for example in examples if str(example.video) not in left_out]


def _resolve(options: FineTuning, known: TrainedWith) -> tuple[FineTuning, Looking]:
    """The options with what they leave to the checkpoint's own training, and what they make of a video."""
    num_frames = options.num_frames or known.num_frames
    if num_frames is None:
        raise UsageError("The checkpoint does not say how many frames it takes.", "Give --num-frames.")
    sampling = SamplingOptions(num_frames, strategy=options.sampling or known.strategy)
    crop = options.crop or known.crop
    looking = Looking(sampling, crop, ReadOptions(isolated=options.isolate_reading, num_threads=1))
    return dataclasses.replace(options, num_frames=num_frames, sampling=sampling.strategy, crop=crop), looking


def _arguments(run: Path, options: FineTuning, *, has_text_alone: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run),
        num_train_epochs=options.num_epochs,
        max_steps=options.num_steps or -1,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup_share,  # below 1 it is a share
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_gradient_norm,
        optim="adamw_torch",
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        activation_checkpointing=options.gradient_checkpointing,
        save_steps=options.save_every,
        save_total_limit=options.num_kept,
        logging_steps=options.log_every,
        dataloader_num_workers=options.num_workers,
        remove_unused_columns=False,  # what a row is made of is no argument of `forward`
        ddp_find_unused_parameters=has_text_alone,  # a batch without a video does not reach the projector
        label_names=["labels"],
        seed=options.seed,
        use_cpu=resolve_device(options.device).type == "cpu",  # else bfloat16 is refused without a GPU
        report_to="none",
        disable_tqdm=True,
    )


def _settings(model: str | Path, annotations: Path, videos: Path, options: FineTuning) -> dict[str, Any]:
    """What makes a run what it is; a run goes on only with the same."""
    paths = {"model": str(model), "annotations": str(annotations), "videos": str(videos)}
    paths["annotations_sha256"] = hashlib.sha256(annotations.read_bytes()).hexdigest()
    return paths | {name: value for name, value in dataclasses.asdict(options).items() if name not in _MAY_CHANGE}


_MAY_CHANGE = ("isolate_reading", "log_every", "num_workers", "device", "save_every", "num_kept")


def _write_result(trainer: Trainer, checkpoint: LoadedCheckpoint, folder: Path, looking: Looking) -> Path:
    config = checkpoint.model.config
    config.training_num_frames = looking.sampling.num_frames
    config.training_sampling, config.training_crop = looking.sampling.strategy, looking.crop
    config.dtype = torch.float32
    trainer.save_model(str(folder))
    return folder
