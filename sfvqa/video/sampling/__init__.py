"""Which frames of a video to look at: arithmetic over what is known of it without decoding; no file is opened here."""

from sfvqa.video.sampling.choosing import FrameChoice, choose_frames
from sfvqa.video.sampling.options import SamplingOptions, SamplingStrategy, format_time, parse_time
from sfvqa.video.sampling.timeline import Timeline

__all__ = [
    "FrameChoice",
    "SamplingOptions",
    "SamplingStrategy",
    "Timeline",
    "choose_frames",
    "format_time",
    "parse_time",
]
