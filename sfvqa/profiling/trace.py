"""One run under torch's profiler, as a file that chrome://tracing and Perfetto show."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from sfvqa.inference.checkpoint import LoadedCheckpoint
from sfvqa.profiling.measuring import Work, measure_run


def write_trace(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work, path: Path) -> None:
    """Measure one run once more and write every operation of it; the profiler itself takes time, so that its figures
    are not those of a profile.
    """
    activities = [ProfilerActivity.CPU]
    if checkpoint.model.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.inference_mode(), profile(activities=activities) as trace, record_function(f"{num_frames} frames"):
        measure_run(checkpoint, video, num_frames, work)
    trace.export_chrome_trace(str(path))
