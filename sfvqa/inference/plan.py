"""What a question will run as: model, device, dtype, quantization, frames, and the memory they take; loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sfvqa.errors import OutOfMemoryError
from sfvqa.inference.attention import resolve_attention
from sfvqa.inference.device import free_memory_bytes, resolve_device, resolve_dtype
from sfvqa.inference.fit import Fit, choose_fit, frame_counts, gigabytes, quantizations_on, remedy_for
from sfvqa.inference.memory import MAX_NEW_TOKENS, NUM_TEXT_TOKENS, RunSize
from sfvqa.inference.quantization import resolve_quantization
from sfvqa.inference.question import check_static_decode
from sfvqa.inference.sizes import ModelSizes
from sfvqa.model.quantization import Quantization, refuse_other
from sfvqa.registry import QuantizationName
from sfvqa.wording import plural

AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """How a question will run. `notices` say what was chosen where it was left open; `free_bytes` None is unknown.

    `was_chosen` says whether the quantization was ours to choose.
    """

    model: str
    device: torch.device
    free_bytes: int | None
    fit: Fit
    notices: tuple[str, ...]
    was_chosen: bool

    @property
    def run(self) -> RunSize:
        """Frames, quantization, dtype."""
        return self.fit.run


def make_plan(
    model: ModelSizes,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    quantization: str = AUTO,
    num_frames: int | None = None,
    fewer_frames: bool = False,
    num_text_tokens: int = NUM_TEXT_TOKENS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    attention: str = "sdpa",
    batch_size: int = 1,
    num_videos: int = 1,
    static_decode: bool = False,
    device_must_be_here: bool = True,
) -> Plan:
    """Choose what was left open by the free memory; look at no weights.

    `num_frames` None is as many as in training; `fewer_frames` lets them be fewer where they do not fit. `auto`
    quantization is the model's own, and where that is auto too, the best that fits; where only copies of it are kept,
    the best of them that fits; `static_decode` leaves out what cannot be decoded so. Of a device that need not be here
    the free memory is unknown. Raises UsageError for a device, dtype, attention or quantization that is not there.
    """
    where, computed = resolve_place(model, device, dtype, device_must_be_here=device_must_be_here)
    run = RunSize(
        num_frames=num_frames or model.trained_with.sampling.num_frames,
        dtype=str(computed).removeprefix("torch."),
        device=where.type,
        num_text_tokens=num_text_tokens,
        max_new_tokens=max_new_tokens,
        attention=resolve_attention(attention, where, computed).value,
        batch_size=batch_size,
        num_videos=num_videos,
    )
    kinds = _quantizations(model, QuantizationName(quantization), where)
    if static_decode:
        kinds = _for_static_decode(kinds, attention)
    counts = frame_counts(run.num_frames) if fewer_frames else [run.num_frames]
    free = free_memory_bytes(where)
    fit = choose_fit(model.sizes, model.fast, run, free, quantizations=kinds, frames=counts)
    notices = _of_copies(model, fit) + _notices(fit, free, where, kinds, counts)
    return Plan(model.name, where, free, fit, notices, len(kinds) > 1)


def resolve_place(
    model: ModelSizes, device: str, dtype: str, *, device_must_be_here: bool = True
) -> tuple[torch.device, torch.dtype]:
    """Where a model will run, and in what. UsageError for a device or dtype that is not there."""
    where = resolve_device(device, must_be_here=device_must_be_here)
    stored = getattr(torch, model.stored_dtype) if model.stored_dtype else None
    return where, resolve_dtype(dtype, where, stored)


def what_would_fit(model: ModelSizes, plan: Plan) -> str:
    """The remedy for a plan that does not fit."""
    kinds = model.kept_as or quantizations_on(plan.device.type)
    return remedy_for(model.sizes, model.fast, plan.run, plan.free_bytes, kinds)


def does_not_fit(model: ModelSizes, plan: Plan) -> OutOfMemoryError:
    """The error that a plan needs more memory than there is."""
    assert plan.free_bytes is not None
    return OutOfMemoryError(f"{too_much(plan)}.", what_would_fit(model, plan))


def too_much(plan: Plan) -> str:
    """That a plan needs more memory than there is, as a clause."""
    run = plan.run
    kind = "unquantized" if run.quantization is QuantizationName.NONE else f"in {run.quantization}"
    return (
        f"{plan.model} {kind} with {plural(run.num_frames, 'frame')} needs about "
        f"{gigabytes(plan.fit.estimate.needed_bytes)} on {plan.device}, "
        f"where {gigabytes(plan.free_bytes or 0)} are free"
    )


def _quantizations(model: ModelSizes, asked: QuantizationName, device: torch.device) -> tuple[QuantizationName, ...]:
    """What may be chosen, best first: what is asked for, else the model's own, else all that there are.

    UsageError for what loading would refuse.
    """
    if asked is QuantizationName.AUTO and (not model.kept_as or model.quantization in model.kept_as):
        asked = model.quantization
    if asked is QuantizationName.AUTO:
        return model.kept_as or quantizations_on(device.type)
    kind = resolve_quantization(asked, device, Quantization.NONE)
    refuse_other(model.name, Quantization(model.stored_quantization.value), kind)
    return (asked,)


def _for_static_decode(kinds: Sequence[QuantizationName], attention: str) -> tuple[QuantizationName, ...]:
    """Those that it works with; UsageError where there is none."""
    fitting = tuple(kind for kind in kinds if kind is not QuantizationName.EIGHT_BIT)
    check_static_decode(attention, (fitting or kinds)[0])
    return fitting


def _of_copies(model: ModelSizes, fit: Fit) -> tuple[str, ...]:
    """That a copy stands in for the model."""
    if fit.run.quantization not in model.kept_as:
        return ()
    return (f"Using the {fit.run.quantization} copy that is kept of {model.name}: its own files are not here.",)


def _notices(
    fit: Fit,
    free: int | None,
    device: torch.device,
    kinds: Sequence[QuantizationName],
    counts: Sequence[int],
) -> tuple[str, ...]:
    """What was chosen other than the best, and why."""
    said = []
    beside = "" if free is None else f" of the {gigabytes(free)} that are free on {device}"
    needs = f"{gigabytes(fit.estimate.needed_bytes)}{beside}"
    if fit.run.quantization is not kinds[0] and fit.fits:
        said.append(f"Using {fit.run.quantization}, the best quantization that fits: it needs about {needs}.")
    if fit.run.num_frames != counts[0] and fit.fits:
        said.append(f"Using {fit.run.num_frames} of {counts[0]} frames, the most that fit: they need about {needs}.")
    return tuple(said)
