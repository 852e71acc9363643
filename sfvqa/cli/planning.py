"""From what was asked for to what will run: the model, its quantization and the frames, chosen by the free memory."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import ModelNotDownloadedError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import ModelRequest
    from sfvqa.cli.video_file import VideoFile
    from sfvqa.inference.plan import Plan
    from sfvqa.inference.sizes import ModelSizes
    from sfvqa.inference.video_cache.key import EncodingKey
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.video.sampling import SamplingOptions

_CHARACTERS_A_TOKEN = 3  # of a question, rather too few than too many
_TYPICAL_NEW_TOKENS = 50  # of an answer
_WORTH_MEASURING = 1e12  # operations: what any CPU does in a minute
_TEMPLATE_TOKENS = 32  # of the chat template around it


@dataclass(frozen=True)
class PlannedRun:
    """The requests with every choice made, and the plan they follow; `seconds` is about how long it takes on a CPU."""

    model: "ModelRequest"
    frames: "FrameRequest"
    sizes: "ModelSizes"
    plan: "Plan"
    sampling: "SamplingOptions"
    indices: tuple[int, ...]
    seconds: float | None


def plan_run(
    model: "ModelRequest",
    frames: "FrameRequest",
    video: "VideoFile",
    questions: Sequence[str],
    max_new_tokens: int,
    notices: "Notices",
    num_other_tokens: int,
    batch_size: int,
) -> PlannedRun:
    """Choose what was left open and say so; nothing is loaded. Other tokens: of the prompt, beside the question's."""
    with notices.waiting("Choosing the model"):  # importing torch is part of the wait
        from sfvqa.inference.choose import choose_model
        from sfvqa.inference.plan import make_plan
        from sfvqa.inference.sizes import read_sizes

        choice = choose_model(
            model.name if model.is_named_by_flag else None,
            configured=model.name,
            device=model.device,
            dtype=model.dtype,
            quantization=model.quantization,
            device_must_be_here=not model.is_only_planned,
        )
        sizes = read_sizes(choice.model, random_weights=model.random_weights)
        wanted = frames.sampling(sizes.trained_with.sampling)
        with contextlib.suppress(ModelNotDownloadedError):  # a dry run needs no weights, and has nothing kept for them
            video.look_up(wanted, partial(_key_of, model, choice.model, sizes, frames, wanted, video.path))
        available = len(video.indices(wanted))
        plan = make_plan(
            sizes,
            device=model.device,
            dtype=model.dtype,
            quantization=model.quantization,
            num_frames=available,
            fewer_frames=frames.fewer_if_short,
            num_text_tokens=num_question_tokens(questions) + num_other_tokens,
            max_new_tokens=max_new_tokens,
            attention=model.attention,
            batch_size=min(batch_size, len(questions)),
            static_decode=model.static_decode,
            device_must_be_here=not model.is_only_planned,
        )
        if plan.run.num_frames < available:
            frames = replace(frames, num_frames=plan.run.num_frames)
        sampling = frames.sampling(sizes.trained_with.sampling)
        seconds = _seconds_on_cpu(sizes, plan, len(questions), is_seen=video.is_kept(sampling))
    for notice in ([] if model.is_named_by_flag else [choice.reason]) + list(plan.notices):
        notices.note(notice)
    return PlannedRun(
        model=replace(model, name=choice.model, is_named_by_flag=True, quantization=plan.run.quantization.value),
        frames=frames,
        sizes=sizes,
        plan=plan,
        sampling=sampling,
        indices=video.indices(sampling),
        seconds=seconds,
    )


def num_question_tokens(questions: Iterable[str]) -> int:
    """About how many tokens the longest takes, with the chat template around it."""
    return _TEMPLATE_TOKENS + max(map(len, questions), default=0) // _CHARACTERS_A_TOKEN


def _key_of(
    model: "ModelRequest",
    name: str,
    sizes: "ModelSizes",
    frames: "FrameRequest",
    sampling: "SamplingOptions",
    path: Path,
    cache: "VideoCache",
) -> "EncodingKey":
    """What the encoded video is kept under, should the model be loaded as asked for."""
    from sfvqa.inference.plan import resolve_place
    from sfvqa.inference.video_cache.checkpoint_identity import identify_model
    from sfvqa.inference.video_cache.key import EncodingKey

    device, dtype = resolve_place(sizes, model.device, model.dtype, device_must_be_here=False)
    return EncodingKey(
        content=cache.content_of(path),
        sampling=sampling,
        crop=frames.crop_mode() or sizes.trained_with.crop,
        reader=frames.reading().reader,
        checkpoint=identify_model(name, model.quantization, random_weights=model.random_weights),
        dtype=str(dtype).removeprefix("torch."),
        device_kind=device.type,
    )


def check_fit(planned: PlannedRun, quantization: str, notices: "Notices") -> None:
    """OutOfMemoryError when not even the smallest of the choices fits; a warning when what was asked for does not.

    What a user asks for by name is tried, since an estimate may be wrong; what is left to us is not.
    """
    from sfvqa.inference.plan import does_not_fit

    tell_duration(planned, notices)
    if planned.plan.fit.fits:
        return
    error = does_not_fit(planned.sizes, planned.plan)
    if quantization == "auto" and planned.plan.was_chosen:
        raise error
    notices.warn(error.with_flags)


def tell_duration(planned: PlannedRun, notices: "Notices") -> None:
    """Say how long it takes on a CPU, where that is long."""
    from sfvqa.inference.duration import WORTH_SAYING_SECONDS

    if planned.seconds is not None and planned.seconds > WORTH_SAYING_SECONDS:
        notices.note(f"On this CPU that takes {describe_duration(planned.seconds)}; --frames makes it fewer frames.")


def describe_duration(seconds: float) -> str:
    """`about 12 minutes`."""
    if seconds < 90:
        return f"about {plural(round(seconds), 'second')}"
    return f"about {plural(round(seconds / 60), 'minute') if seconds < 5400 else plural(round(seconds / 3600), 'hour')}"


def _seconds_on_cpu(sizes: "ModelSizes", plan: "Plan", num_questions: int, *, is_seen: bool) -> float | None:
    """None on other devices; `is_seen` leaves out the vision tower."""
    from sfvqa.inference.duration import count_operations, measure_cpu_speed, seconds_on_cpu

    if plan.device.type != "cpu":
        return None
    estimate, run = plan.fit.estimate, plan.run
    needed = count_operations(
        sizes.sizes,
        num_frames=0 if is_seen else run.num_frames,
        num_slow=estimate.num_slow_tokens,
        length=estimate.num_fast_tokens + run.num_text_tokens,
        num_new_tokens=_TYPICAL_NEW_TOKENS,
        num_questions=num_questions,
    )
    return seconds_on_cpu(needed, measure_cpu_speed(run.dtype)) if needed.total > _WORTH_MEASURING else 0.0
