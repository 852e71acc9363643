"""`sfvqa doctor`: what this machine offers, what is wrong with it, and what `ask` would choose and why."""

import json as jsonlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from sfvqa.cli import options
from sfvqa.errors import ExitCode, UsageError

HELP = """\b
[bold]Examples[/bold]
  sfvqa doctor
  sfvqa doctor --json | jq .choice

Say what this machine and installation offer, and which model `sfvqa ask` would
use, how, and why. Exit code 0 when `ask` would work, 1 when something is in
its way; that is said first."""


def doctor(json: options.Json = False) -> None:
    """Find everything out, whatever is broken, and print it."""
    from sfvqa.cli.doctor_lines import LABEL_WIDTH, report_lines
    from sfvqa.cli.screen import echo
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
        for line in report_lines(found, problems):
            echo(line, hanging=LABEL_WIDTH if line.startswith(" ") else 0)
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

    return _file(user_config_path(), attempt(lambda: {"values": load_user_config()}))


def _models_file() -> dict[str, Any]:
    from sfvqa.inference.environment import attempt
    from sfvqa.registry import load_registry, user_models_path

    return _file(user_models_path(), attempt(lambda: {"models": [spec.name for spec in load_registry()]}))


def _file(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found out by reading a file, with where it is and whether: None where that cannot be asked."""
    from sfvqa.inference.environment import attempt

    return {"path": str(path), "exists": None, **attempt(lambda: {"exists": path.is_file()}), **found}


def _settings(configured: Mapping[str, str]) -> dict[str, Any]:
    """What `ask` without flags takes from variables and config file; UsageError for a value that it would refuse."""
    from sfvqa.cli.app import app
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.parse_errors import describe_parse_error

    commands: Any = typer.main.get_command(app)
    try:
        context = commands.commands["ask"].make_context("ask", ["VIDEO", "QUESTION"], default_map=dict(configured))
    except typer.TyperException as error:
        raise UsageError(*describe_parse_error(error)) from error
    FrameRequest.of(context)  # raises where two settings contradict each other
    return dict(context.params)


def _choice(configured: Mapping[str, str]) -> dict[str, Any]:
    """What `ask` without flags would run as, by variables and config file, on a video long enough."""
    from sfvqa.inference.choose import choose_model
    from sfvqa.inference.plan import make_plan, what_would_fit
    from sfvqa.inference.quantized_copies import locate_for
    from sfvqa.inference.sizes import read_sizes

    settings = _settings(configured)
    device, dtype, quantization = (settings[name] for name in ("device", "dtype", "quant"))
    choice = choose_model(configured=settings["model"], device=device, dtype=dtype, quantization=quantization)
    locate_for(choice.model, quantization)  # raises where it is not on this machine
    asked = settings["frames"]
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
