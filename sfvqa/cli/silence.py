"""Keeps third parties from reporting home, and from printing on the user's terminal; SFVQA_DEBUG=1 lets them print."""

import os
import warnings

# Read by the libraries when they are imported, which is why this runs before they are. What the user set stays.
_QUIET_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "critical",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "TORCH_CPP_LOG_LEVEL": "FATAL",
    "KINETO_LOG_LEVEL": "99",  # of torch's profiler
}


def silence_third_parties() -> None:
    """Turn off telemetry, progress bars, warnings and logs of the libraries underneath, for this process."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if os.environ.get("SFVQA_DEBUG", "") not in ("", "0"):
        return
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
