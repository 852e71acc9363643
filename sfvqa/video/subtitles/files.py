"""A subtitle file → Subtitles: what may be opened, and which encoding it is in. Imports nothing heavy."""

import codecs
import stat
from os import PathLike
from pathlib import Path

from sfvqa.errors import SubtitlesError
from sfvqa.video.subtitles.lines import Subtitles
from sfvqa.video.subtitles.parsing import parse_subtitles

MAX_BYTES = 16 * 1024**2  # of text: days of speech
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 4096


def read_subtitle_file(path: str | PathLike[str]) -> Subtitles:
    """Read a local SubRip or WebVTT file; SubtitlesError when it is none, or cannot be read.

    Text that is neither UTF-8 nor UTF-16 is taken for Latin-1, and a warning says so.
    """
    file = Path(path)
    text, warnings = decode_text(_read(file), file)
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
            raise SubtitlesError(f"“{file}” is no regular file.", "Give a SubRip (.srt) or WebVTT (.vtt) file.")
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
            "Give a SubRip (.srt) or WebVTT (.vtt) file.",
        )
    return data


def decode_text(data: bytes, file: Path) -> tuple[str, list[str]]:
    """The text of a file and the warnings about it: by its byte order mark, else UTF-8, UTF-16 or Latin-1.

    Latin-1 means Windows-1252, as in every browser.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace"), []
    if unmarked := _unmarked_utf16(data):
        return data.decode(unmarked, errors="replace"), []
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        warning = f"“{file}” is not UTF-8: it was read as Latin-1. If letters are wrong, convert it to UTF-8."
        return data.decode("cp1252", errors="replace"), [warning]


def _unmarked_utf16(data: bytes) -> str | None:
    """Which UTF-16 it is without a mark: digits and line ends, which all subtitles have, are half null bytes."""
    sample = data[:_SAMPLE_BYTES]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 4 <= len(sample) // 2 or min(even, odd) > 0:
        return None
    return "utf-16-be" if even else "utf-16-le"
