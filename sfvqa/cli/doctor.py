"""`sfvqa doctor`: what this machine offers, what is wrong with it, and what `ask` would choose and why."""

import json as jsonlib
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import typer

from sfvqa.cli import options
from sfvqa.errors import ExitCode

HELP = """\b
[bold]Examples[/bold]
  sfvqa doctor
  sfvqa doctor --json | jq .choice

Say what this machine and installation offer, and which model `sfvqa ask` would
use, how, and why. Exit code 0 when `ask` would work, 1 when something is in
its way; that is said first."""


def doctor(json: options.Json = False) -> None:
    """Find everything out, whatever is broken, and print it."""
    from sfvqa.cli.doctor_lines import report_lines
    from sfvqa.inference import environment

    configuration = {"config.toml": _config_file(), "models.toml": _models_file()}
    found: dict[str, Any] = {
        "sfvqa": environment.attempt(_own_version),
        "machine": environment.attempt(environment.machine),
        "packages": environment.packages(),
        "devices": environment.attempt(environment.devices),
        "readers": environment.attempt(environment.readers),
        "folders": environment.folders(),
        "configuration": configuration,
        "models": environment.attempt(environment.models),
    }
    found["choice"] = environment.attempt(lambda: _choice(configuration["config.toml"].get("values", {})))
    problems = find_problems(found)
    if json:
        document = {"schema_version": 1, "ok": not problems, "problems": problems, **found}
        sys.stdout.write(jsonlib.dumps(document) + "\n")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        sys.stdout.write("\n".join(report_lines(found, problems, width)) + "\n")
    sys.stdout.flush()
    raise typer.Exit(ExitCode.FAILED if problems else ExitCode.OK)


def find_problems(found: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that keeps `ask` from working."""
    from sfvqa.inference.environment import REQUIRED, error_in

    problems = [
        f"{name} cannot be used: {error}" for name in REQUIRED if (error := error_in(found["packages"].get(name)))
    ]
    readers = found["readers"]
    if error_in(readers) or (error_in(readers["pyav"]) and error_in(readers["opencv"])):
        problems.append("Neither PyAV nor OpenCV can be used, so no video can be read.")
    problems += [error for facts in found["configuration"].values() if (error := error_in(facts))]
    if (error := error_in(found["choice"])) and not problems:
        problems.append(error)
    elif not error and not found["choice"]["fits"]:
        problems.append(found["choice"]["remedy"])
    return problems


def _own_version() -> str:
    import sfvqa

    return sfvqa.__version__


def _config_file() -> dict[str, Any]:
    from sfvqa.cli.user_config import load_user_config, user_config_path
    from sfvqa.inference.environment import attempt

    path = user_config_path()
    values = attempt(load_user_config)
    facts = {"path": str(path), "exists": path.is_file()}
    return facts | (values if "error" in values else {"values": values})


def _models_file() -> dict[str, Any]:
    from sfvqa.inference.environment import attempt
    from sfvqa.registry import load_registry, user_models_path

    path = user_models_path()
    known = attempt(lambda: {"models": [spec.name for spec in load_registry()]})
    return {"path": str(path), "exists": path.is_file(), **known}


def _choice(configured: Mapping[str, str]) -> dict[str, Any]:
    """What `ask` without flags would run as, by variables and config file, on a video long enough."""
    from sfvqa.cli.frame_options import parse_frames
    from sfvqa.inference.choose import choose_model
    from sfvqa.inference.plan import make_plan, what_would_fit
    from sfvqa.inference.quantized_copies import locate_for
    from sfvqa.inference.sizes import read_sizes

    def setting(name: str, default: str) -> str:
        return os.environ.get(f"SFVQA_{name.upper()}") or str(configured.get(name, default))

    device, dtype, quantization = (setting(name, "auto") for name in ("device", "dtype", "quant"))
    choice = choose_model(configured=setting("model", "") or None, device=device, dtype=dtype)
    locate_for(choice.model, quantization)  # raises where it is not on this machine
    frames = setting("frames", "")
    asked = parse_frames(frames) if frames else None
    sizes = read_sizes(choice.model)
    plan = make_plan(
        sizes,
        device=device,
        dtype=dtype,
        quantization=quantization,
        num_frames=asked.count if asked else None,
        fewer_frames=asked is not None and asked.count is None,
    )
    return {
        "model": choice.model,
        "why": [choice.reason, *plan.notices],
        "device": str(plan.device),
        "dtype": plan.run.dtype,
        "quantization": plan.run.quantization.value,
        "num_frames": plan.run.num_frames,
        "needed_bytes": plan.fit.estimate.needed_bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fit.fits,
        "remedy": None if plan.fit.fits else what_would_fit(sizes, plan),
    }
