"""The NVIDIA GPUs that are here: which torch can use, why not the others, what they compute in, a part of one.

Where there is none, nothing is asked of torch.cuda but whether it is there.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import torch

from sfvqa.checkpoints.memory import CUDA_CONTEXT_BYTES
from sfvqa.errors import UsageError

DEVICE_FILES = Path("/dev")
DRIVER_FILES = Path("/proc/driver/nvidia/gpus")

_OTHER_BUILD = "install another build of torch, as pytorch.org describes"


def usable_gpus() -> list[int]:
    """The numbers of the GPUs that torch can compute on."""
    if not torch.cuda.is_available():
        return []
    return [index for index in range(torch.cuda.device_count()) if _without_kernels(index) is None]


def why_unusable(index: int = 0) -> UsageError | None:
    """Why torch cannot compute on a GPU that is here, with the remedy.

    None where it can, where no GPU is here, and where CUDA_VISIBLE_DEVICES hides all of them.
    """
    if torch.cuda.is_available():
        return _without_kernels(index) if index < torch.cuda.device_count() else None
    if not _is_one_here() or os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return None
    if torch.version.cuda is None:
        return _unusable(f"torch {torch.__version__} is built without CUDA", _OTHER_BUILD)
    try:
        torch.cuda.init()
    except RuntimeError as error:
        said = str(error)
    else:
        said = "it finds no device"
    if found := re.search(r"found version (\d+)", said):
        newest = divmod(int(found[1]) // 10, 100)
        return _unusable(
            f"its driver is for CUDA {newest[0]}.{newest[1]} at most, and torch is built for {torch.version.cuda}",
            f"update the driver, or {_OTHER_BUILD}",
        )
    reason = said.split(". ")[0].split("\n")[0].rstrip(".")
    return _unusable(reason, "see whether `nvidia-smi` works; a container must be given the GPU (docker: --gpus all)")


def _is_one_here() -> bool:
    if sys.platform == "win32" or (DEVICE_FILES / "dxg").exists():  # in WSL, Windows' driver shows no files of its own
        return shutil.which("nvidia-smi") is not None
    # Containers that were given no GPU see the driver's files too, but not its program.
    has_driver = any(DRIVER_FILES.glob("*")) and shutil.which("nvidia-smi") is not None
    return has_driver or any(re.fullmatch(r"nvidia\d+", file.name) for file in DEVICE_FILES.glob("n*"))


def _unusable(reason: str, remedy: str) -> UsageError:
    remedy = f"{remedy[0].upper()}{remedy[1:]}. Without the GPU: --device cpu."
    return UsageError(f"PyTorch cannot use the NVIDIA GPU of this machine: {reason}.", remedy)


def _without_kernels(index: int) -> UsageError | None:
    """What is wrong with a GPU for which torch was not compiled: too old for it, or too new."""
    compiled_for = [] if torch.version.hip else torch.cuda.get_arch_list()
    major, minor = torch.cuda.get_device_capability(index) if compiled_for else (0, 0)
    if not compiled_for or any(_runs_on(code, major, minor) for code in compiled_for):
        return None
    return _unusable(
        f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, and torch {torch.__version__} "
        f"is built for {', '.join(compiled_for)}",
        _OTHER_BUILD,
    )


def _runs_on(code: str, major: int, minor: int) -> bool:
    """Whether code such as sm_86 (of a GPU, good for later ones of its generation) or compute_90 (for all later ones).

    >>> _runs_on("sm_80", 8, 6), _runs_on("sm_80", 9, 0), _runs_on("compute_80", 9, 0), _runs_on("sm_90a", 8, 9)
    (True, False, True, False)
    """
    kind, _, version = code.partition("_")
    of = divmod(int("".join(filter(str.isdigit, version))), 10)
    return of <= (major, minor) if kind == "compute" else of[0] == major and of[1] <= minor


def computes_in_bfloat16(index: int | None = None) -> bool:
    """Whether a GPU, or each that can be used, has bfloat16 and need not emulate it: compute capability 8 and later."""
    if torch.version.hip:
        return True
    return all(torch.cuda.get_device_capability(each)[0] >= 8 for each in (usable_gpus() if index is None else [index]))


def take_part(share: float) -> None:
    """Let this process have no more than a share of the first GPU's memory, what CUDA itself holds included."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(max(share - CUDA_CONTEXT_BYTES / total, 0.0), 0)
