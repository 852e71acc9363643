"""Times as people write them: `1:30.5` to seconds and back."""

import re

from sfvqa.errors import UsageError

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> float:
    """Read a time such as `90`, `1:30` or `0:01:30.5` as seconds; anything else is a UsageError.

    >>> parse_time("0:01:30.5")
    90.5
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"“{text}” is not a time.", "Write times as 90, 1:30 or 0:01:30.5.")
    hours, minutes, seconds = match["hours"], match["minutes"], float(match["seconds"])
    if minutes is not None and (seconds >= 60 or (hours is not None and int(minutes) >= 60)):
        raise UsageError(f"“{text}” is not a time: what follows a colon is below 60.", "Write 1:30 or 0:01:30.5.")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def format_time(seconds: float) -> str:
    """Print seconds as `m:ss` or `h:mm:ss`, with as many of three decimals as are needed; parse_time reads it back.

    >>> format_time(90.5)
    '1:30.5'
    """
    milliseconds = round(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return clock + f".{fraction:03d}".rstrip("0") if fraction else clock
