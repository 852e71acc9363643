"""Which examples a run learns from and which it holds out, and how it looks at their videos."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfvqa.checkpoints.find import locate
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.errors import UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model import read_quantization
from sfvqa.model.quantization import Quantization
from sfvqa.training.annotations import Example, check_videos
from sfvqa.training.frozen_tower import Looking
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.validation import check_apart, hold_out, source_of
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import plural

logger = logging.getLogger(__name__)


def resolve(options: FineTuning, known: TrainedWith) -> tuple[FineTuning, Looking]:
    """Complete the options by the checkpoint's own training, and say how to read videos."""
    num_frames = options.num_frames or known.num_frames
    if num_frames is None:
        raise UsageError("The checkpoint does not say how many frames it takes.", "Give --num-frames.")
    sampling = SamplingOptions(num_frames, strategy=options.sampling or known.strategy)
    crop = options.crop or known.crop
    looking = Looking(sampling, crop, reading_of(options))
    return replace(options, num_frames=num_frames, sampling=sampling.strategy, crop=crop), looking


def check_quantization(model: str | Path, quantization: str) -> None:
    """Raise UsageError for a checkpoint whose weights are stored in fewer bits than a run learns beside."""
    if read_quantization(locate(model).folder) not in (Quantization.NONE, quantization):
        raise UsageError(
            f"{model} is a quantized checkpoint.",
            "Fine-tune the checkpoint that it was made from; one in 4 bits learns by LoRA, with --quantization 4bit.",
        )


def reading_of(options: FineTuning) -> ReadOptions:
    """How a run reads videos."""
    return ReadOptions(isolated=options.isolate_reading, num_threads=1)


def choose(
    examples: list[Example],
    looking: Looking,
    options: FineTuning,
    cache: VideoCache,
    *,
    before: Mapping[str, Any],
    streams: bool,
) -> tuple[list[Example], dict[str, list[str]]]:
    """The examples of a run, with those marked that it holds out, and what its settings note of them.

    Of a run that goes on, `before` are its settings, and the choice is the same; of one that `streams`, `examples` are
    only those that it holds out. Raises UsageError, VideoError.
    """
    examples, left_out = _readable(examples, looking, options, before.get("left_out") or [])
    if before and left_out:
        raise UsageError(f"The run learned from {', '.join(left_out)}, now unreadable.", _REPAIR)
    noted = {"left_out": left_out}
    if options.stage is Stage.BRIDGE and examples:
        examples = _about_videos(examples)
    if options.validation:
        examples = _held_out(examples, options, before, cache, streams=streams)
        noted["held_out"] = sorted({source_of(example) for example in examples if example.held_out})
    return examples, noted


_REPAIR = "Repair them, or start another run."


def _readable(
    examples: list[Example], looking: Looking, options: FineTuning, left_out: list[str]
) -> tuple[list[Example], list[str]]:
    """Examples whose videos can be read, and the videos that cannot; `left_out` are those of a run that goes on."""
    examples = [example for example in examples if str(example.video) not in left_out]  # even if they can be read now
    wanted = {str(example.video) for example in examples}
    examples = check_videos(examples, looking.sampling, looking.reading, skip_unreadable=options.skip_unreadable)
    return examples, sorted(wanted - {str(example.video) for example in examples})


def _about_videos(examples: list[Example]) -> list[Example]:
    """What stage 1 learns from."""
    with_video = [example for example in examples if example.video is not None]
    if not with_video:
        raise UsageError("No example has a video, and stage 1 learns from nothing else.", "Use --stage 2.")
    if len(with_video) < len(examples):
        num_alone = plural(len(examples) - len(with_video), "example")
        logger.warning("Stage 1 leaves out %s without a video.", num_alone)
    return with_video


def _held_out(
    examples: list[Example], options: FineTuning, before: Mapping[str, Any], cache: VideoCache, *, streams: bool
) -> list[Example]:
    """The examples, with those marked that are validated on; of a run that goes on, the same as before."""
    if options.validation_share and before:
        held = before.get("held_out") or []
        examples = [replace(example, held_out=source_of(example) in held) for example in examples]
    elif options.validation_share:
        examples = hold_out(examples, options.validation_share, options.seed, cache)
    if not streams:  # of which each row is looked at when it comes
        check_apart(examples, cache)
    held_out = list(dict.fromkeys(example for example in examples if example.held_out))  # once, whatever they weigh
    logger.info(
        "Validation on %s about %s, which are not learned from",
        plural(sum(len(example.turns) for example in held_out), "question"),
        plural(len({source_of(example) for example in held_out}), "video"),
    )
    return [*(example for example in examples if not example.held_out), *held_out]
