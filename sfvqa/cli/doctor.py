"""What this machine and installation offer, fact by fact; what cannot be found out is said, never raised."""

import importlib
import importlib.util
import json as jsonlib
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import Json
from sfvqa.cli.terminal import printable_line
from sfvqa.errors import ExitCode, SfvqaError, UsageError
from sfvqa.wording import plural, readable_size

REQUIRED = ("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "numpy")
OPTIONAL = ("bitsandbytes", "flash_attn", "ray")


def attempt(find_out: Callable[[], Any]) -> Any:
    """What `find_out` returns, or {"error": …}: a broken library must not hide what the others say."""
    try:
        return find_out()
    except SfvqaError as error:
        return {"error": error.with_flags}
    except Exception as error:  # noqa: BLE001  whatever a broken installation raises
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def error_in(fact: object) -> str | None:
    """What went wrong while finding out a fact."""
    return str(fact["error"]) if isinstance(fact, dict) and "error" in fact else None


def packages() -> dict[str, Any]:
    """Versions of what sfvqa is built on, each imported; None for an optional one that is not installed."""
    found: dict[str, Any] = {name: attempt(partial(_version, name)) for name in REQUIRED}
    for name in OPTIONAL:
        installed = attempt(partial(_is_installed, name))
        found[name] = attempt(partial(_version, name)) if installed is True else None
    return found


def machine() -> dict[str, Any]:
    """The system, its cores and memory."""
    from sfvqa.checkpoints.host_memory import free_host_bytes, total_host_bytes

    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu_cores": _usable_cores(),
        "memory_bytes": attempt(total_host_bytes),
        "free_memory_bytes": attempt(free_host_bytes),
    }


def devices() -> dict[str, Any]:
    """What torch can compute on."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        gpus.append({"device": f"cuda:{index}", "name": name, "memory_bytes": total, "free_memory_bytes": free})
    return {
        "cuda_build": torch.version.cuda,
        "cuda": gpus,
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
    }


def readers() -> dict[str, Any]:
    """What reads videos, and the FFmpeg in each."""
    from sfvqa.video import readers as libraries

    return {
        "pyav": attempt(libraries.pyav_version),
        "opencv": attempt(libraries.opencv_version),
        "pillow": attempt(libraries.pillow_version),
    }


def folders() -> dict[str, Any]:
    """Where models and encoded videos are kept, and what they take on the disk."""
    return {
        "hugging_face_cache": attempt(_hub_cache),
        "video_cache": attempt(_video_cache),
    }


def models() -> list[dict[str, Any]]:
    """The models that can be used here, with where they are."""
    from sfvqa.checkpoints.find import is_downloaded, locate_registered
    from sfvqa.registry import load_registry

    here = [locate_registered(spec) for spec in load_registry() if is_downloaded(spec)]
    return [{"name": location.name, "folder": str(location.folder)} for location in here]


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> dict[str, str]:
    logging.getLogger(name).setLevel(logging.ERROR)  # bitsandbytes tells at import what it could do faster
    from importlib.metadata import version  # slow, and needed by no other command

    importlib.import_module(name)
    return {"version": version(name.replace("_", "-"))}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hub_cache() -> dict[str, Any]:
    from huggingface_hub import constants

    return _folder(Path(constants.HF_HUB_CACHE))


def _video_cache() -> dict[str, Any]:
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    return {"path": str(store.folder), "exists": store.folder.is_dir(), "size_bytes": store.size_bytes()}


def _folder(path: Path) -> dict[str, Any]:
    """A folder with the size of the files in it; links count as nothing."""
    size = 0
    for parent, _, names in os.walk(path):
        size += sum((Path(parent) / name).lstat().st_size for name in names if not (Path(parent) / name).is_symlink())
    return {"path": str(path), "exists": path.is_dir(), "size_bytes": size}


LABEL_WIDTH = 19


def report_lines(found: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Problems first, then what would be chosen, then everything else; labels take `LABEL_WIDTH` columns."""
    lines = [f"Problem: {problem}" for problem in problems] or ["Everything that `sfvqa ask` needs is here."]
    for title, rows in (
        ("What ask would use", _choice_line(found["choice"])),
        ("This machine", _machine(found)),
        ("Libraries", _libraries(found)),
        ("Files", _files(found)),
    ):
        lines += ["", title, *(f"  {name:<{LABEL_WIDTH - 2}}{value}" for name, value in rows)]
    return [printable_line(line) for line in lines]


def _choice_line(choice: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in choice:
        yield "nothing", choice["error"]
        return
    yield "model", f"{choice['model']}, {plural(choice['num_frames'], 'frame')} a video"
    yield "device", f"{choice['device']} in {choice['dtype']}, quantization {choice['quantization']}"
    free = "unknown" if choice["free_bytes"] is None else readable_size(choice["free_bytes"])
    yield "memory", f"needs {readable_size(choice['needed_bytes'])}; free: {free}"
    for reason in choice["why"]:
        yield "why", reason


def _machine(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    machine, devices = found["machine"], found["devices"]
    if "error" in machine:
        yield "machine", machine["error"]
    else:
        yield "platform", machine["platform"]
        yield "CPU", f"{plural(machine['cpu_cores'], 'core')}, {_memory(machine)}"
    if "error" in devices:
        yield "GPU", devices["error"]
        return
    for gpu in devices["cuda"]:
        yield gpu["device"], f"{gpu['name']}, {_memory(gpu)}"
    if not devices["cuda"]:
        build = f"built for CUDA {devices['cuda_build']}" if devices["cuda_build"] else "built without CUDA"
        yield "CUDA", f"no device (torch is {build})"
    yield "Apple MPS", "yes" if devices["mps"] else "no"


def _libraries(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "sfvqa", str(found["sfvqa"])
    yield "Python", str(found["machine"].get("python", "unknown"))
    for name, fact in found["packages"].items():
        yield name.replace("_", "-"), _version_line(fact)
    readers = found["readers"]
    if "error" in readers:
        yield "readers", readers["error"]
        return
    for name, words in (("pyav", "PyAV"), ("opencv", "OpenCV"), ("pillow", "Pillow")):
        fact = readers[name]
        yield words, _version_line(fact) + (f" with {fact['ffmpeg']}" if "ffmpeg" in fact else "")


def _files(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kept = (("hugging_face_cache", "model cache"), ("video_cache", "encoded videos"))
    for name, words in kept:
        fact = found["folders"][name]
        yield words, fact.get("error") or f"{fact['path']} ({_size(fact)})"
    for name, fact in found["configuration"].items():
        state = fact.get("error") or ("read" if fact["exists"] else "none, which is fine")
        yield name, f"{fact['path']} ({state})"
    models = found["models"]
    yield "models here", models["error"] if isinstance(models, dict) else ", ".join(model["name"] for model in models)


def _version_line(fact: Mapping[str, Any] | None) -> str:
    if fact is None:
        return "not installed (optional)"
    return str(fact["version"]) if "version" in fact else f"cannot be used: {fact['error']}"


def _memory(fact: Mapping[str, Any]) -> str:
    total, free = fact["memory_bytes"], fact["free_memory_bytes"]
    if not isinstance(total, int) or not isinstance(free, int):
        return "memory unknown"
    return f"{readable_size(total)} of memory, {readable_size(free)} free"


def _size(fact: Mapping[str, Any]) -> str:
    return readable_size(fact["size_bytes"]) if fact["exists"] else "not there yet"


HELP = """\b
[bold]Examples[/bold]
  sfvqa doctor
  sfvqa doctor --json | jq .choice

Say what this machine and installation offer, and which model `sfvqa ask` would
use, how, and why. Exit code 0 when `ask` would work, 1 when something is in
its way; that is said first."""


def doctor(json: Json = False) -> None:
    """Find everything out, whatever is broken, and print it."""
    from sfvqa.cli.terminal import echo

    configuration = {"config.toml": _config_file(), "models.toml": _models_file()}
    found: dict[str, Any] = {
        "sfvqa": attempt(_own_version),
        "machine": attempt(machine),
        "packages": packages(),
        "devices": attempt(devices),
        "readers": attempt(readers),
        "folders": folders(),
        "configuration": configuration,
        "models": attempt(models),
    }
    found["choice"] = attempt(lambda: _choice(configuration["config.toml"].get("values", {})))
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
    from sfvqa.cli.app import app
    from sfvqa.cli.user_config import configurable, load_user_config, user_config_path

    known = configurable(typer.main.get_command(app))
    return _file(user_config_path(), attempt(lambda: {"values": load_user_config(known)}))


def _models_file() -> dict[str, Any]:
    from sfvqa.registry import load_registry, user_models_path

    return _file(user_models_path(), attempt(lambda: {"models": [spec.name for spec in load_registry()]}))


def _file(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found out by reading a file, with where it is and whether: None where that cannot be asked."""
    return {"path": str(path), "exists": None, **attempt(lambda: {"exists": path.is_file()}), **found}


def _ask_options(configured: Mapping[str, str]) -> tuple[ModelOptions, FrameOptions]:
    """What `ask` without flags takes from variables and config file; UsageError for a value that it would refuse."""
    from sfvqa.cli.app import app
    from sfvqa.cli.exits import describe_parse_error

    commands: Any = typer.main.get_command(app)
    try:
        context = commands.commands["ask"].make_context("ask", ["VIDEO", "QUESTION"], default_map=dict(configured))
    except typer.TyperException as error:
        raise UsageError(*describe_parse_error(error)) from error
    return ModelOptions.of(context), FrameOptions.of(context)


def _choice(configured: Mapping[str, str]) -> dict[str, Any]:
    """What `ask` without flags would run as, by variables and config file, on a video long enough."""
    from sfvqa.checkpoints.find import locate
    from sfvqa.checkpoints.known import read_sizes
    from sfvqa.checkpoints.plan import choose_model, make_plan

    model, frames = _ask_options(configured)
    name, why = model.model, [f"Using {model.model}, as configured."]
    if name is None:
        choice = choose_model(device=model.device, dtype=model.dtype)
        name, why = choice.model, [*choice.too_large, choice.reason]
    locate(name)  # raises where it is not on this machine
    plan = make_plan(
        model.settings(name), read_sizes(name), num_frames=frames.num_frames, fewer_frames=frames.fewer_if_short
    )
    return {
        "model": name,
        "why": [*why, *plan.notices],
        "device": str(plan.device),
        "dtype": plan.run.dtype,
        "quantization": plan.run.quantization.value,
        "num_frames": plan.run.num_frames,
        "needed_bytes": plan.fit.estimate.needed_bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fit.fits,
        "remedy": None if plan.fit.fits else plan.remedy,
    }
