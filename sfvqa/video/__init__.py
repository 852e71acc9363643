"""A file becomes a Clip: readers, sampling, fitting; knows nothing of models and never imports torch."""

from sfvqa.video.clip import Clip, VideoInfo
from sfvqa.video.fitting import CropMode, Fit, FitSquare, FitWithin
from sfvqa.video.readers import Frame, ReaderName, ReadOptions, VideoReader, open_video
from sfvqa.video.reading import ReadProgress, ReadStage, read_clip, read_clip_progressively
from sfvqa.video.sampling import (
    FrameChoice,
    SamplingOptions,
    SamplingStrategy,
    Timeline,
    choose_frames,
    format_time,
    parse_time,
)
from sfvqa.video.windows import Window, WindowOptions

__all__ = [
    "Clip",
    "CropMode",
    "Fit",
    "FitSquare",
    "FitWithin",
    "Frame",
    "FrameChoice",
    "ReadOptions",
    "ReadProgress",
    "ReadStage",
    "ReaderName",
    "SamplingOptions",
    "SamplingStrategy",
    "Timeline",
    "VideoInfo",
    "VideoReader",
    "Window",
    "WindowOptions",
    "choose_frames",
    "format_time",
    "open_video",
    "parse_time",
    "read_clip",
    "read_clip_progressively",
]
