"""What this machine and installation offer, fact by fact; what cannot be found out is said, never raised."""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sfvqa.errors import SfvqaError

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
    from sfvqa.inference.host_memory import free_host_bytes, total_host_bytes

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
    from sfvqa.video.readers import versions

    return {
        "pyav": attempt(versions.pyav_version),
        "opencv": attempt(versions.opencv_version),
        "pillow": attempt(versions.pillow_version),
    }


def folders() -> dict[str, Any]:
    """Where models and encoded videos are kept, and what they take on the disk."""
    return {
        "hugging_face_cache": attempt(_hub_cache),
        "sfvqa_data": attempt(_own_data),
        "video_cache": attempt(_video_cache),
    }


def models() -> list[dict[str, Any]]:
    """The models that can be used here, with where they are."""
    from sfvqa.inference.quantized_copies import is_here, locate_for
    from sfvqa.registry import load_registry

    here = [locate_for(spec.name, "auto")[0] for spec in load_registry() if is_here(spec)]
    return [{"name": location.name, "folder": str(location.folder)} for location in here]


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> dict[str, str]:
    logging.getLogger(name).setLevel(logging.ERROR)  # bitsandbytes tells at import what it could do faster
    importlib.import_module(name)
    return {"version": importlib.metadata.version(name.replace("_", "-"))}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hub_cache() -> dict[str, Any]:
    from huggingface_hub import constants

    return _folder(Path(constants.HF_HUB_CACHE))


def _own_data() -> dict[str, Any]:
    from sfvqa.inference.copy_folders import copies_folder

    return _folder(copies_folder().parent)


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
