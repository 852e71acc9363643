"""`sfvqa ask --dry-run`: what would run and how much memory it takes, in lines or as JSON."""

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sfvqa.cli.describe import describe_frames
from sfvqa.cli.planning import PlannedRun, describe_duration, tell_duration
from sfvqa.cli.screen import echo
from sfvqa.cli.text import plural, printable_line, readable_size
from sfvqa.errors import ExitCode

if TYPE_CHECKING:
    from sfvqa.cli.render import Notices
    from sfvqa.video.readers import VideoReader

_LABEL_WIDTH = 8


def show_plan(planned: PlannedRun, video: Path, opened: "VideoReader", notices: "Notices", *, json: bool) -> ExitCode:
    """Print it on stdout; the exit code says whether it fits."""
    from sfvqa.inference.plan import what_would_fit
    from sfvqa.video.fitting import CropMode

    times = [opened.timestamps_seconds[index] for index in planned.indices]
    fits = planned.plan.fit.fits
    remedy = None if fits else what_would_fit(planned.sizes, planned.plan)
    trained_with = planned.sizes.trained_with
    crop = planned.frames.crop_mode() or trained_with.crop
    assert isinstance(crop, CropMode)
    is_missing = _what_is_not_here(planned)
    warnings = [*trained_with.warnings(planned.sampling, len(planned.indices), crop), *is_missing]
    if json:
        document = _document(planned, video, times, remedy, warnings)
        typer.echo(jsonlib.dumps(document, allow_nan=False))
    else:
        for line in _lines(planned, video, times, remedy, can_run=not is_missing):
            echo(line, hanging=_LABEL_WIDTH)
    for warning in warnings:
        notices.warn(warning)
    tell_duration(planned, notices)
    return ExitCode.OK if fits else ExitCode.OUT_OF_MEMORY


def _what_is_not_here(planned: PlannedRun) -> list[str]:
    """That there is no such device, and neither the model nor a copy of it to run so, and how to get it."""
    from sfvqa.errors import ModelNotDownloadedError
    from sfvqa.inference.device import is_here
    from sfvqa.inference.quantized_copies import locate_for

    missing, spec, device = [], planned.sizes.spec, planned.plan.device
    if not is_here(device):
        missing.append(f"There is no {device.type.upper()} device here, so what fits on one is unknown.")
    if spec is not None and not planned.model.random_weights:
        try:
            locate_for(spec.name, planned.plan.run.quantization)
        except ModelNotDownloadedError as error:
            missing.append(error.with_flags)
    return missing


def _lines(planned: PlannedRun, video: Path, times: list[float], remedy: str | None, *, can_run: bool) -> list[str]:
    plan, estimate = planned.plan, planned.plan.fit.estimate
    run = plan.run
    peaks = ", ".join(f"{phase} {readable_size(size)}" for phase, size in estimate.phases.items())
    free = "unknown" if plan.free_bytes is None else readable_size(plan.free_bytes)
    rows = {
        "video": printable_line(str(video)),
        "model": f"{plan.model} on {plan.device} in {run.dtype}, quantization {run.quantization}",
        "frames": describe_frames(times, planned.sampling),
        "tokens": f"{plural(estimate.num_slow_tokens, 'slow token')}, {plural(estimate.num_fast_tokens, 'fast token')} "
        f"in a prompt of about {estimate.num_fast_tokens + run.num_text_tokens:,}",
        "memory": f"{readable_size(estimate.weights_bytes)} of weights; at most: {peaks}",
        "needed": f"{readable_size(estimate.needed_bytes)}; free: {free}",
    }
    if planned.seconds:
        rows["time"] = f"{describe_duration(planned.seconds)} on this CPU"
    fits = "unknown" if plan.free_bytes is None else "yes" if remedy is None else f"no. {remedy}"
    rows["fits"] = fits if can_run else f"{fits}; it cannot run yet: see the warning"
    return [f"{name:<{_LABEL_WIDTH}}{value}" for name, value in rows.items()]


def _document(
    planned: PlannedRun, video: Path, times: list[float], remedy: str | None, warnings: list[str]
) -> dict[str, object]:
    plan, estimate = planned.plan, planned.plan.fit.estimate
    run = plan.run
    return {
        "schema_version": 1,
        "dry_run": True,
        "video": str(video),
        "model": plan.model,
        "device": str(plan.device),
        "dtype": run.dtype,
        "quantization": run.quantization.value,
        "attention": run.attention,
        "frames": {
            "count": len(times),
            "indices": list(planned.indices),
            "timestamps_seconds": times,
            "strategy": planned.sampling.strategy.value,
        },
        "tokens": {
            "slow": estimate.num_slow_tokens,
            "fast": estimate.num_fast_tokens,
            "prompt_about": estimate.num_fast_tokens + run.num_text_tokens,
        },
        "memory": {
            "fits": None if plan.free_bytes is None else remedy is None,
            "needed_bytes": estimate.needed_bytes,
            "free_bytes": plan.free_bytes,
            "peak_bytes": estimate.peak_bytes,
            "phases": estimate.phases,
            "parts": estimate.parts,
        },
        "seconds_on_cpu": planned.seconds,
        "remedy": remedy,
        "notices": list(plan.notices),
        "warnings": warnings,
    }
