"""What `sfvqa doctor` found out, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sfvqa.cli.text import plural, printable_line, readable_size

LABEL_WIDTH = 19


def report_lines(found: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Problems first, then what would be chosen, then everything else; labels take `LABEL_WIDTH` columns."""
    lines = [f"Problem: {problem}" for problem in problems] or ["Everything that `sfvqa ask` needs is here."]
    for title, rows in (
        ("What ask would use", _choice(found["choice"])),
        ("This machine", _machine(found)),
        ("Libraries", _libraries(found)),
        ("Files", _files(found)),
    ):
        lines += ["", title, *(f"  {name:<{LABEL_WIDTH - 2}}{value}" for name, value in rows)]
    return [printable_line(line) for line in lines]


def _choice(choice: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
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
        yield name.replace("_", "-"), _version(fact)
    readers = found["readers"]
    if "error" in readers:
        yield "readers", readers["error"]
        return
    for name, words in (("pyav", "PyAV"), ("opencv", "OpenCV"), ("pillow", "Pillow")):
        fact = readers[name]
        yield words, _version(fact) + (f" with {fact['ffmpeg']}" if "ffmpeg" in fact else "")


def _files(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kept = (("hugging_face_cache", "model cache"), ("sfvqa_data", "own data"), ("video_cache", "encoded videos"))
    for name, words in kept:
        fact = found["folders"][name]
        yield words, fact.get("error") or f"{fact['path']} ({_size(fact)})"
    for name, fact in found["configuration"].items():
        state = fact.get("error") or ("read" if fact["exists"] else "none, which is fine")
        yield name, f"{fact['path']} ({state})"
    models = found["models"]
    yield "models here", models["error"] if isinstance(models, dict) else ", ".join(model["name"] for model in models)


def _version(fact: Mapping[str, Any] | None) -> str:
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
