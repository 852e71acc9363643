"""Which frames of a video to look at: arithmetic over what is known of it without decoding; no file is opened here."""

from sfvqa.video.sampling.choosing import choose_frames
from sfvqa.video.sampling.options import SamplingOptions, SamplingStrategy
from sfvqa.video.sampling.timeline import FrameChoice, Timeline
from sfvqa.video.sampling.times import format_time, parse_time

__all__ = [
    "FrameChoice",
    "SamplingOptions",
    "SamplingStrategy",
    "Timeline",
    "choose_frames",
    "format_time",
    "parse_time",
]
