"""`sfvqa doctor`: what this machine and installation offer; what cannot be found out is said, never raised."""

import importlib
import importlib.util
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from sfvqa.checkpoints.find import is_downloaded, locate, locate_registered
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import Json, load_user_config, user_config_path
from sfvqa.cli.screen import echo, print_json, printable_line
from sfvqa.errors import ExitCode, SfvqaError, UsageError
from sfvqa.registry import load_registry, user_models_path
from sfvqa.wording import plural, readable_size

HELP = """\b
[bold]Examples[/bold]
  sfvqa doctor
  sfvqa doctor --json | jq .choice

Report what this machine and installation offer, and which model `sfvqa ask`
would use, how, and why. The exit code is 0 if `ask` would work, and 1 if
something prevents it, which is then printed first."""


def doctor(as_json: Json = False) -> None:
    """Find everything out, whatever is broken, and print it."""
    import sfvqa
    from sfvqa.cli.app import settings_of_commands

    configuration = {
        "config.toml": _file(user_config_path(), lambda: {"values": load_user_config(settings_of_commands)}),
        "models.toml": _file(user_models_path(), lambda: {"models": [spec.name for spec in load_registry()]}),
    }
    found: dict[str, Any] = {
        "sfvqa": sfvqa.__version__,
        "machine": attempt(machine),
        "packages": {name: attempt(partial(_version, name)) for name in (*REQUIRED, *OPTIONAL)},
        "devices": attempt(devices),
        "readers": attempt(readers),
        "folders": {"hugging_face_cache": attempt(_hub_cache), "video_cache": attempt(_video_cache)},
        "configuration": configuration,
        "models": attempt(models),
    }
    found["choice"] = attempt(lambda: _choice(configuration["config.toml"].get("values", {})))
    problems = find_problems(found)
    if as_json:
        print_json({"ok": not problems, "problems": problems, **found})
    else:
        for line in report_lines(found, problems):
            echo(line, hanging=_LABEL_WIDTH if line.startswith(" ") else 0)
    raise typer.Exit(ExitCode.FAILED if problems else ExitCode.OK)


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


REQUIRED = ("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "numpy")
OPTIONAL = ("bitsandbytes", "flash_attn", "ray")


def _version(name: str) -> dict[str, str] | None:
    """The version of a library that can be imported; None for an optional one that is not installed."""
    if name in OPTIONAL and importlib.util.find_spec(name) is None:
        return None
    logging.getLogger(name).setLevel(logging.ERROR)  # bitsandbytes tells at import what it could do faster
    from importlib.metadata import version  # slow, and needed by no other command

    importlib.import_module(name)
    return {"version": version(name.replace("_", "-"))}


def machine() -> dict[str, Any]:
    """The system, its cores and memory."""
    from sfvqa.checkpoints.host import computes_in_bfloat16, free_host_bytes, total_host_bytes

    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "computes_in_bfloat16": computes_in_bfloat16(),
        "memory_bytes": attempt(total_host_bytes),
        "free_memory_bytes": attempt(free_host_bytes),
    }


def devices() -> dict[str, Any]:
    """What torch can compute on."""
    import torch

    from sfvqa.checkpoints.gpus import why_unusable

    gpus, trouble = [], why_unusable()
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        gpus.append({"device": f"cuda:{index}", "name": name, "memory_bytes": total, "free_memory_bytes": free})
    return {
        "cuda_build": torch.version.cuda,
        "cuda": gpus,
        "cuda_trouble": trouble and trouble.with_flags,
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


def models() -> list[dict[str, Any]]:
    """The models that can be used here, with where they are."""

    here = [locate_registered(spec) for spec in load_registry() if is_downloaded(spec)]
    return [{"name": location.name, "folder": str(location.folder)} for location in here]


def _hub_cache() -> dict[str, Any]:
    """The Hugging Face cache with the size of its files; links count as nothing."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    files = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    size = sum(file.lstat().st_size for file in files if not file.is_symlink())
    return {"path": str(folder), "exists": folder.is_dir(), "size_bytes": size}


def _video_cache() -> dict[str, Any]:
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    return {"path": str(store.folder), "exists": store.folder.is_dir(), "size_bytes": store.size_bytes()}


def _file(path: Path, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A file that may be there (None where that cannot be asked), and what it says."""
    return {"path": str(path), "exists": None, **attempt(lambda: {"exists": path.is_file()}), **attempt(read)}


def _choice(configured: Mapping[str, str]) -> dict[str, Any]:
    """What `ask` without flags would run as, by variables and config file, on a video long enough."""
    from sfvqa.checkpoints.known import read_sizes
    from sfvqa.checkpoints.plan import choose_model, make_plan
    from sfvqa.cli.app import build_app
    from sfvqa.cli.exits import describe_parse_error

    try:
        app: Any = typer.main.get_command(build_app("ask"))
        context = app.commands["ask"].make_context("ask", ["VIDEO", "QUESTION"], default_map=dict(configured))
    except typer.TyperException as error:
        raise UsageError(*describe_parse_error(error)) from error
    model, frames = ModelOptions.of(context), FrameOptions.of(context)
    name, why = model.model, [f"Using {model.model}, as configured."]
    if name is None:
        choice = choose_model(device=model.device, dtype=model.dtype)
        name, why = choice.model, [*choice.too_large, choice.reason]
    locate(name)  # raises where it is not on this machine
    plan = make_plan(
        model.settings(name),
        read_sizes(name, model.adapter),
        num_frames=frames.num_frames,
        fewer_frames=frames.fewer_if_short,
    )
    return {
        "model": name,
        "why": [*why, *plan.notices, *plan.warnings],
        "device": str(plan.device),
        "dtype": plan.run.dtype,
        "quantization": plan.run.quantization.value,
        "num_frames": plan.run.num_frames,
        "needed_bytes": plan.fit.estimate.needed_bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fit.fits,
        "remedy": None if plan.fit.fits else plan.remedy,
    }


_LABEL_WIDTH = 19


def report_lines(found: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Problems first, then what would be chosen, then everything else; labels take `_LABEL_WIDTH` columns."""
    lines = [f"Problem: {problem}" for problem in problems] or ["Everything that `sfvqa ask` needs is here."]
    for title, rows in (
        ("What ask would use", _choice_rows(found["choice"])),
        ("This machine", _machine_rows(found["machine"], found["devices"])),
        ("Libraries", _library_rows(found)),
        ("Files", _file_rows(found)),
    ):
        lines += ["", title, *(f"  {name:<{_LABEL_WIDTH - 2}}{value}" for name, value in rows)]
    return [printable_line(line) for line in lines]


def _choice_rows(choice: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in choice:
        yield "nothing", choice["error"]
        return
    yield "model", f"{choice['model']}, {plural(choice['num_frames'], 'frame')} a video"
    yield "device", f"{choice['device']} in {choice['dtype']}, quantization {choice['quantization']}"
    free = "unknown" if choice["free_bytes"] is None else readable_size(choice["free_bytes"])
    yield "memory", f"needs {readable_size(choice['needed_bytes'])}; free: {free}"
    for reason in choice["why"]:
        yield "why", reason


def _machine_rows(machine: Mapping[str, Any], devices: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in machine:
        yield "machine", machine["error"]
    else:
        yield "platform", machine["platform"]
        has = "with" if machine["computes_in_bfloat16"] else "without"
        known = f"; {has} bfloat16 instructions" if sys.platform == "linux" else ""
        yield "CPU", f"{plural(machine['cpu_cores'], 'core')}, {_memory(machine)}{known}"
    if "error" in devices:
        yield "GPU", devices["error"]
        return
    for gpu in devices["cuda"]:
        yield gpu["device"], f"{gpu['name']}, {_memory(gpu)}"
    if devices["cuda_trouble"]:
        yield "CUDA", devices["cuda_trouble"]
    elif not devices["cuda"]:
        build = f"built for CUDA {devices['cuda_build']}" if devices["cuda_build"] else "built without CUDA"
        yield "CUDA", f"no device (torch is {build})"
    yield "Apple MPS", "yes" if devices["mps"] else "no"


def _memory(fact: Mapping[str, Any]) -> str:
    total, free = fact["memory_bytes"], fact["free_memory_bytes"]
    if not isinstance(total, int) or not isinstance(free, int):
        return "memory unknown"
    return f"{readable_size(total)} of memory, {readable_size(free)} free"


def _library_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "sfvqa", found["sfvqa"]
    yield "Python", found["machine"].get("python", "unknown")
    readers, names = found["readers"], {"pyav": "PyAV", "opencv": "OpenCV", "pillow": "Pillow"}
    packages = {name.replace("_", "-"): fact for name, fact in found["packages"].items()}
    packages |= {"readers": readers} if "error" in readers else {names[name]: fact for name, fact in readers.items()}
    for name, fact in packages.items():
        if fact is None:
            yield name, "not installed (optional)"
        elif "error" in fact:
            yield name, f"cannot be used: {fact['error']}"
        else:
            yield name, f"{fact['version']} with {fact['ffmpeg']}" if "ffmpeg" in fact else fact["version"]


def _file_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, words in (("hugging_face_cache", "model cache"), ("video_cache", "encoded videos")):
        fact = found["folders"][name]
        if "error" in fact:
            yield words, fact["error"]
        else:
            size = readable_size(fact["size_bytes"]) if fact["exists"] else "does not exist yet"
            yield words, f"{fact['path']} ({size})"
    for name, fact in found["configuration"].items():
        state = fact.get("error") or ("read" if fact["exists"] else "absent; optional")
        yield name, f"{fact['path']} ({state})"
    models = found["models"]
    yield "models here", models["error"] if isinstance(models, dict) else ", ".join(model["name"] for model in models)
