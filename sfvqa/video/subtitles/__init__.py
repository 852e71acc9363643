"""Subtitles of a video, from a file or a track inside it: lines of text with times. Knows nothing of prompts."""

from sfvqa.video.subtitles.files import read_subtitle_file
from sfvqa.video.subtitles.lines import SubtitleLine, Subtitles, lines_between, spread_evenly
from sfvqa.video.subtitles.parsing import parse_subtitles

__all__ = [
    "SubtitleLine",
    "Subtitles",
    "lines_between",
    "parse_subtitles",
    "read_subtitle_file",
    "spread_evenly",
]
