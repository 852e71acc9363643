"""A subtitle file → Subtitles: what may be opened. Imports nothing heavy."""

import stat
from os import PathLike
from pathlib import Path

from sfvqa.errors import SubtitlesError
from sfvqa.video.subtitles.encoding import decode_texts
from sfvqa.video.subtitles.lines import Subtitles
from sfvqa.video.subtitles.parsing import FILES_THAT_ARE_READ, parse_subtitles

MAX_BYTES = 16 * 1024**2  # of text: days of speech


def read_subtitle_file(path: str | PathLike[str]) -> Subtitles:
    """Read a local file of subtitles (see parsing); SubtitlesError when it is none, or cannot be read.

    A warning says where the text is damaged, and when it was taken for Latin-1 because it is no Unicode.
    """
    file = Path(path)
    (text,), warnings = decode_texts([_read(file)], f"“{file}”")
    try:
        lines = parse_subtitles(text)
    except SubtitlesError as error:
        raise SubtitlesError(f"“{file}” cannot be used as subtitles. {error.message}", error.remedy) from error
    if not lines:
        warnings.append(f"“{file}” holds no line of text.")
    return Subtitles(lines, str(path), tuple(warnings))


def _read(file: Path) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could keep us waiting for ever
            raise SubtitlesError(f"“{file}” is no regular file.", f"Give {FILES_THAT_ARE_READ}.")
        with file.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SubtitlesError(f"There is no subtitle file “{file}”.", "Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise SubtitlesError(f"The subtitle file “{file}” cannot be read: {reason}.", "Check the path.") from error
    if len(data) > MAX_BYTES:
        raise SubtitlesError(
            f"“{file}” has more than {MAX_BYTES // 1024**2} MiB, too much for subtitles.",
            f"Give {FILES_THAT_ARE_READ}.",
        )
    return data
