"""`python -m sfvqa.training.finetune`: fine-tune a slow-fast checkpoint on conversations about videos and pictures.

It uses transformers' Trainer, in the paper's two stages. A run's settings are kept in its folder beside the states that
Trainer saves, and only a run with the same settings can continue from them.
For several GPUs start it with `accelerate launch -m` in place of `python -m`, by a recipe of `sfvqa.training.recipes`.
"""

import argparse
import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from sfvqa.checkpoints.adapter import is_adapter
from sfvqa.checkpoints.device import memory_errors, resolve_device
from sfvqa.checkpoints.find import ModelSettings, find
from sfvqa.checkpoints.host import return_large_blocks
from sfvqa.checkpoints.known import DEFAULT_NUM_FRAMES, TrainedWith, read_trained_with
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.checkpoints.memory import gigabytes
from sfvqa.checkpoints.plan import warnings_about
from sfvqa.errors import ExitCode, SfvqaError, UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model import num_frames_outside_fast_path
from sfvqa.model.quantization import Quantization
from sfvqa.training.annotations import Example, Source, read_annotations, read_sources
from sfvqa.training.check import report_faults
from sfvqa.training.chosen import check_quantization, choose, reading_of, resolve
from sfvqa.training.command import run
from sfvqa.training.dry_run import dry_run
from sfvqa.training.engines import Engine, check_engine, prepare_sharing
from sfvqa.training.frozen_tower import FrozenTower, Looking
from sfvqa.training.grouping import GroupedByLength
from sfvqa.training.learning import prepare, restore_frozen
from sfvqa.training.lora import complete_adapter
from sfvqa.training.memory import (
    training_bytes,
)
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.progress import ProgressLine, StderrHandler
from sfvqa.training.rows import DialogueWriter, VideoDataset, collate
from sfvqa.training.run_folder import (
    KEPT_VIDEOS,
    STREAMED_VIDEOS,
    check_new_run,
    check_settings,
    clear_kept_videos,
    is_first_process,
    last_state,
    leave_group,
    read_settings,
    write_settings,
)
from sfvqa.training.shards import Streamed
from sfvqa.training.stream import RowsOnDisk, Stream, StreamedRows, process_of_run, read_state, streamed_sources
from sfvqa.training.trainer import VideoTrainer
from sfvqa.training.validation import (
    Figures,
    Validation,
    figures_table,
    read_figures,
    refuse_held_out,
    write_figures,
)
from sfvqa.wording import command_line, plural

logger = logging.getLogger(__name__)

_TAKES_LESS = "Use a smaller --batch-size, --gradient-checkpointing, or fewer frames, and continue with --resume."


def fine_tune(
    model: str | Path,
    annotations: Path | Sequence[Source],
    videos: Path,
    run: Path,
    options: FineTuning,
    *,
    resume: bool = False,
) -> Path:
    """Train, and write the checkpoint folder `run`/checkpoint, with LoRA `run`/adapter.

    `resume` continues from the last state in `run`.
    Raises UsageError for bad annotations, videos that cannot be read, a run folder that is in use or, with `resume`,
    holds nothing or the state of other settings; ModelError for the checkpoint; OutOfMemoryError.
    """
    sources = [Source(annotations)] if isinstance(annotations, Path) else annotations
    streamed = streamed_sources(sources, options)
    examples = [] if streamed else read_sources(sources, videos, options.seed)
    if options.validation_file:
        examples += [replace(one, held_out=True) for one in read_annotations(options.validation_file, videos)]
    options, looking = resolve(options, read_trained_with(find(model)))
    check_engine(Engine.launched(), options, examples)
    check_quantization(model, options.quantization)
    settings, state = _settings(model, sources, videos, options, streamed), None
    before: dict[str, Any] = {}
    if resume:
        before = read_settings(run)
        check_settings(run, before, settings)
        state = str(last_state(run))
    else:
        check_new_run(run)
    cache = VideoCache(
        options.cache or run / KEPT_VIDEOS, int(options.cache_gigabytes * 1e9), whole_files=bool(streamed)
    )
    examples, noted = choose(examples, looking, options, cache, before=before, streams=bool(streamed))
    settings |= noted
    for warning in warnings_about(options.device, resolve_device(options.device), torch.float32):
        logger.warning("%s", warning)
    checkpoint = _load(model, looking, options.quantization)
    stream = _stream(streamed, examples, videos, run, options, cache, state) if streamed else None
    trainer = make_trainer(checkpoint, examples, looking, run, options, cache, stream)
    if not resume:  # only now: a start that failed must not keep the folder from the next
        write_settings(run, settings)
    with _ending(trainer):
        figures = _first_figures(trainer, run, options, examples, resume=resume) if options.validation else {}
        return_large_blocks()  # gaps in the host's memory would else take as much again as a step's activations
        trainer.train(resume_from_checkpoint=state)
    if options.validation:
        ended = trainer.state
        step = ended.best_global_step if ended.best_model_checkpoint else ended.global_step  # its folder may be gone
        figures["trained"] = Figures.at_step(step or 0, ended.log_history, figures["untrained"].answers)
        write_figures(run, figures)
    whole = trainer.whole_weights()
    if options.precision != "float32" and options.lora_rank is None:
        restore_frozen(checkpoint.model, checkpoint.location.folder, whole)
    config, folder = checkpoint.model.config, run / ("adapter" if options.lora_rank else "checkpoint")
    config.training_num_frames = looking.sampling.num_frames
    config.training_sampling, config.training_crop = looking.sampling.strategy, looking.crop
    config.dtype = torch.float32
    if is_first_process():
        learner: Any = trainer.model
        learner.save_pretrained(folder, state_dict=whole)
        checkpoint.tokenizer.save_pretrained(folder)
        if options.lora_rank:
            complete_adapter(folder, checkpoint, model)
    clear_kept_videos(run)
    return folder


def _load(model: str | Path, looking: Looking, quantization: str) -> LoadedCheckpoint:
    asked_for = "auto" if quantization == Quantization.NONE else quantization  # auto is as its weights are stored
    checkpoint = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32", quantization=asked_for))
    return_large_blocks()  # frozen weights that are rounded would else stay, freed, where exact ones take their place
    if outside := num_frames_outside_fast_path(looking.sampling.num_frames, checkpoint.model.config):
        frames = plural(outside, "frame")
        logger.warning("No window of the fast tokens holds the last %s of a video: only slow tokens show it.", frames)
    return checkpoint


def _stream(
    sources: Sequence[Streamed],
    examples: Sequence[Example],
    videos: Path,
    run: Path,
    options: FineTuning,
    cache: VideoCache,
    state: str | None,
) -> Stream:
    """What draws the rows of this process, from where it was in a saved `state`; `examples` must not come in it."""
    process, engine, refuse_known = process_of_run(), Engine.launched(), refuse_held_out(examples, cache)

    def refuse(example: Example) -> None:
        check_engine(engine, options, [example])
        refuse_known(example)

    rows = RowsOnDisk(run / STREAMED_VIDEOS / str(process[0]), videos)
    rows.close()  # of a run that was killed
    return Stream(
        sources,
        rows,
        options,
        process=process,
        state=None if state is None else read_state(Path(state), process[0]),
        refuse=refuse,
    )


def _first_figures(
    trainer: VideoTrainer, run: Path, options: FineTuning, examples: list[Example], *, resume: bool
) -> dict[str, Figures]:
    """What the run is compared with: measured before its first step, and kept in its folder."""
    figures = read_figures(run) if resume else {}
    trainer.accelerator.wait_for_everyone()  # until all have read it
    if options.against_base and (name := f"base {options.against_base}") not in figures:
        figures[name] = trainer.measure(_validation_of_base(trainer, options, examples))
    if "untrained" not in figures:
        figures["untrained"] = trainer.measure()
    write_figures(run, figures)
    return figures


def _validation_of_base(trainer: VideoTrainer, options: FineTuning, examples: list[Example]) -> Validation:
    """The same questions for another model, which looks at videos as it was trained to."""
    base = load_checkpoint(ModelSettings(str(options.against_base), device=str(trainer.args.device)))
    known = base.trained_with
    looking = Looking(known.sampling, known.crop, reading_of(options))
    held_out = [replace(one, timestamps_seconds=None) for one in examples if one.held_out]  # they are of other frames
    writer = DialogueWriter(base.tokenizer, base.end_token_ids, base.model.config.family)
    rows = VideoDataset(held_out, writer, base.model.config, looking)
    return Validation(base, rows, held_out, batch_size=options.batch_size, num_workers=options.num_workers)


@contextmanager
def _ending(trainer: VideoTrainer) -> Iterator[None]:
    """Errors of training as they were meant; and in any case neither a bar nor streamed videos stay."""
    try:
        with memory_errors("training", lambda: _TAKES_LESS):
            yield
    except SfvqaError as error:
        raise _as_raised(error) from error
    finally:
        for line in trainer.callback_handler.callbacks:
            if isinstance(line, ProgressLine):
                line.close()
        if trainer.stream is not None:
            trainer.stream.close()


def _as_raised(error: SfvqaError) -> SfvqaError:
    """The same as a process that reads ahead raised it: torch passes on its class and, as its message, a traceback."""
    if not error.message.startswith("Caught "):
        return error
    return type(error)(error.message.rstrip().splitlines()[-1].partition(": ")[2])


def check(
    sources: Sequence[Source], videos: Path, model: str | None, options: FineTuning, *, as_json: bool = False
) -> int:
    """Print what is wrong with annotations and videos, with the lengths of rows if there is a model; the exit code."""
    known = TrainedWith(DEFAULT_NUM_FRAMES) if model is None else read_trained_with(find(model))
    sampling = resolve(options, known)[1].sampling
    found = report_faults(
        sources,
        videos,
        sampling,
        model,
        num_readers=options.num_workers,
        validation=options.validation_file,
        as_json=as_json,
    )
    return int(found)


def make_trainer(
    checkpoint: LoadedCheckpoint,
    examples: list[Example],
    looking: Looking,
    run: Path,
    options: FineTuning,
    cache: VideoCache,
    stream: Stream | None = None,
) -> VideoTrainer:
    """Return transformers' Trainer for the model of `checkpoint`; `cache` keeps what a frozen tower makes.

    With a stream, `examples` are validated on alone.
    """
    model = checkpoint.model
    model.train()
    learner = prepare(model, checkpoint.location.folder, options)
    num_learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    writer = DialogueWriter(checkpoint.tokenizer, checkpoint.end_token_ids, model.config.family)
    learned, held_out = ([one for one in examples if one.held_out is held] for held in (False, True))
    dataset, validation = (VideoDataset(part, writer, model.config, looking) for part in (learned, held_out))
    if stream is not None:
        dataset = StreamedRows([], writer, model.config, looking)
        dataset.skip_unreadable = options.skip_unreadable
    has_text_alone = stream is not None or any(one.video is None for one in learned)
    arguments = _arguments(run, options, has_text_alone=has_text_alone)
    if arguments.n_gpu > 1:
        raise UsageError(
            f"One process sees {arguments.n_gpu} GPUs.",
            "Use `torchrun --nproc-per-node N -m sfvqa.training.finetune …`, or set CUDA_VISIBLE_DEVICES.",
        )
    engine = Engine.launched()
    logger.info(
        "Stage %d: %s, %s learn; %s before activations%s",
        options.stage,
        f"{plural(len(dataset), 'row')} of {plural(len(learned), 'example')}" if stream is None else stream.said,
        plural(num_learned, "parameter"),
        gigabytes(training_bytes(model, options.optimizer, engine, arguments.world_size)),
        "" if engine is Engine.DDP else " in each process, and what it gathers",
    )
    trainer = VideoTrainer(
        model=learner,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=validation if held_out else None,
        data_collator=collate,
        processing_class=checkpoint.tokenizer,
        callbacks=[ProgressLine(), *([EarlyStoppingCallback(options.patience)] if options.patience else [])],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.rates = options.rates
    prepare_sharing(trainer, model)
    trainer.stream, trainer.args.ignore_data_skip = stream, stream is not None  # it goes on by itself
    if options.group_by_length:
        together = arguments.train_batch_size * arguments.world_size
        if together == 1:
            raise UsageError("group_by_length has no effect: a batch is one row.", "Give a larger --batch-size.")
        trainer.order = GroupedByLength(dataset.lengths, together, options.seed)
        trainer.add_callback(trainer.order)
    if held_out:
        trainer.validation = Validation(
            checkpoint, validation, held_out, batch_size=options.batch_size, num_workers=options.num_workers
        )
    with trainer.autocast():
        streams = stream is not None
        frozen = FrozenTower.of(checkpoint, examples, looking, cache, options.precision, streams=streams)
    dataset.frozen = validation.frozen = trainer.frozen = frozen
    return trainer


def _arguments(run: Path, options: FineTuning, *, has_text_alone: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run.absolute()),
        num_train_epochs=options.num_epochs,
        max_steps=options.num_steps or -1,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup_share,  # below 1 it is a share
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_gradient_norm,
        optim=options.optimizer,
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        activation_checkpointing=options.gradient_checkpointing,
        save_steps=options.save_every,
        save_total_limit=options.num_kept,
        eval_strategy="steps" if options.validation else "no",
        eval_steps=options.save_every,
        load_best_model_at_end=options.validation is not None,
        metric_for_best_model=options.best_by if options.validation else None,
        greater_is_better=options.best_by != "loss",
        restore_callback_states_from_checkpoint=options.patience is not None,
        logging_steps=options.log_every,
        dataloader_num_workers=options.num_workers,
        remove_unused_columns=False,  # what a row is made of is no argument of `forward`
        ddp_find_unused_parameters=has_text_alone,  # a batch without a video does not reach the projector
        label_names=["labels"],
        seed=options.seed,
        use_cpu=resolve_device(options.device).type == "cpu",  # else bfloat16 is refused without a GPU
        report_to=options.log,
        disable_tqdm=True,
    )


def _settings(
    model: str | Path, sources: Sequence[Source], videos: Path, options: FineTuning, streamed: Sequence[Streamed]
) -> dict[str, Any]:
    """The settings that a resumed run must share."""
    paths = {"model": str(model), "annotations": "\n".join(map(str, sources)), "videos": str(videos)}
    digests = [one.fingerprint for one in streamed] or [
        hashlib.sha256(Path(source.path).read_bytes()).hexdigest() for source in sources
    ]
    paths["annotations_sha256"] = " ".join(digests)
    paths |= {"engine": Engine.launched(), "num_processes": str(process_of_run()[1])}
    if options.validation_file:
        paths["validation_sha256"] = hashlib.sha256(options.validation_file.read_bytes()).hexdigest()
    told = asdict(options)
    if not options.validation:  # nothing is measured, and when states are saved makes no difference
        told = {name: value for name, value in told.items() if name not in ("save_every", "best_by")}
    return paths | {name: value for name, value in told.items() if name not in _MAY_CHANGE}


_MAY_CHANGE = (
    "cache",
    "cache_gigabytes",
    "isolate_reading",
    "log",
    "log_every",
    "num_workers",
    "device",
    "save_every",
    "num_kept",
)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.finetune", description=__doc__)
    flags = sys.argv[1:] if arguments is None else arguments
    trains = not {"--check", "--dry-run"} & set(flags)
    add = parser.add_argument
    add(
        "annotations",
        nargs="+",
        metavar="SOURCE[:WEIGHT]",
        help="a file of conversations in JSON or JSON lines, or what is streamed: tar, parquet and Arrow files, a "
        "dataset's folder, hf://OWNER/NAME; each row is learned from WEIGHT times an epoch (default: 1)",
    )
    add("--videos", type=Path, required=True, help="the folder that the annotations' paths are relative to")
    add(
        "--model",
        required="--check" not in flags,
        help="a registered model, or a checkpoint folder, as sfvqa.training.convert writes",
    )
    add("--output", type=Path, required=trains, help="where the run keeps its state, and checkpoint/ or adapter/ comes")
    add("--json", action="store_true", help="with --check: a line of JSON for each row that is wrong")
    add_one = parser.add_mutually_exclusive_group().add_argument
    add_one("--check", action="store_true", help="read every row and video, say what is wrong, and train nothing")
    add_one("--dry-run", action="store_true", help="say how much memory the run would take, and whether it fits")
    add_one("--resume", action="store_true", help="continue from the last saved state in the output folder")
    for each in fields(FineTuning):
        name, said = f"--{each.name.replace('_', '-')}", each.metadata["help"]
        if each.default is False:
            add(name, action="store_true", help=said)
        else:
            kind = each.metadata["kind"] or type(each.default)
            default = "" if each.default is None else f" (default: {each.default})"
            add(name, type=kind, choices=each.metadata["choices"], default=each.default, help=said + default)
    asked = parser.parse_args(arguments)
    if asked.json and not asked.check:
        parser.error("--json has no effect without --check")
    return asked


def options_of(asked: dict[str, Any]) -> FineTuning:
    """The options in a parsed command line."""
    return FineTuning(**{each.name: asked[each.name] for each in fields(FineTuning)} | {"stage": Stage(asked["stage"])})


def main(arguments: list[str] | None = None) -> int:
    """Train, and print where the checkpoint is."""
    asked = vars(parse_arguments(arguments))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[StderrHandler()]
    )
    disable_progress_bar()
    set_verbosity_error()  # Trainer warns of a missing weight where two are one
    warnings.simplefilter("ignore", FutureWarning)  # PEFT calls transformers by old names
    stopped = "Stopped. --resume goes on from the last saved state, if there is one."
    return run(lambda: _train_and_tell(asked), stopped=stopped)


def _train_and_tell(asked: dict[str, Any]) -> int:
    """Train, or check, or say what training would need; the exit code."""
    sources, options = [Source.parse(text) for text in asked["annotations"]], options_of(asked)
    if asked["check"]:
        return check(sources, asked["videos"], asked["model"], options, as_json=asked["json"])
    if asked["dry_run"]:
        return int(dry_run(asked["model"], sources, asked["videos"], options).tell())
    folder = fine_tune(asked["model"], sources, asked["videos"], asked["output"], options, resume=asked["resume"])
    leave_group()
    if is_first_process():
        if options.validation and (figures := read_figures(asked["output"])):
            print(figures_table(figures))
        flags = ["--model", asked["model"], "--adapter", folder] if is_adapter(folder) else ["--model", folder]
        print(f"{folder}: ask it with `sfvqa ask VIDEO QUESTION {command_line(flags)}`")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
