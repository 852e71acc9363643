"""Subtitles as lines of text with times: parses files of them, and the text of tracks inside videos.

One parser serves SubRip (.srt) and WebVTT (.vtt), because what is out there mixes them: what counts is a row with
`-->` between two times. Without one, the file may be YouTube's (.sbv) or SubStation Alpha's (.ass, .ssa).
"""

import codecs
import html
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TypeVar

from sfvqa.errors import SubtitlesError
from sfvqa.video.sampling import spread_within

T = TypeVar("T")
MAX_BYTES = 16 * 1024**2  # of text: days of speech
_FILES_THAT_ARE_READ = "a SubRip (.srt), WebVTT (.vtt), SubStation Alpha (.ass, .ssa) or YouTube (.sbv) file"
_LONGEST_GAP_SECONDS = 0.1  # between cues of rolling captions


@dataclass(frozen=True)
class SubtitleLine:
    """What is shown at one time, on one line; seconds from the first frame of the video."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """The lines of one video in the order they are shown; `source` says where they are from, for the user."""

    lines: tuple[SubtitleLine, ...]
    source: str
    warnings: tuple[str, ...] = ()


def read_subtitle_file(path: str | PathLike[str]) -> Subtitles:
    """Read a local file of subtitles; SubtitlesError when it is none, or cannot be read.

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
            raise SubtitlesError(f"“{file}” is not a regular file.", f"Give {_FILES_THAT_ARE_READ}.")
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
            f"Give {_FILES_THAT_ARE_READ}.",
        )
    return data


def lines_between(lines: Sequence[SubtitleLine], start_seconds: float, end_seconds: float) -> list[SubtitleLine]:
    """The lines that are shown at some time from start to end, both included."""
    return [line for line in lines if line.start_seconds <= end_seconds and line.end_seconds >= start_seconds]


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even steps, each from the middle of its share; all of them where there are no more.

    >>> spread_evenly("abcdef", 3)
    ['b', 'd', 'f']
    """
    return [items[place] for place in spread_within(len(items), min(count, len(items)))]


# --- Encodings ---

_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_IN_ALL_SUBTITLES = ("->", "WEBVTT", "Dialogue:", "0:0")
_BROKEN = "\ufffd"


def decode_texts(texts: Sequence[bytes], source: str) -> tuple[list[str], list[str]]:
    """Texts of one source as they read, and the warnings about them, in which `source` names it.

    A byte order mark decides for the text that begins with it. Without one all are in the same encoding: UTF-16 or
    UTF-32 where they are subtitles in it, else UTF-8, where a few bytes may be broken, else Latin-1, which means
    Windows-1252, as in every browser.
    """
    encoding = _encoding_without_mark(b"\n".join(texts))
    decoded = [text.decode(_encoding_by_mark(text) or encoding, errors="replace") for text in texts]
    warnings = []
    if encoding == "cp1252":
        warnings.append(f"{source} is not UTF-8: it was read as Latin-1. If letters are wrong, convert it to UTF-8.")
    elif num_broken := sum(text.count(_BROKEN) for text in decoded):
        places = "1 place" if num_broken == 1 else f"{num_broken:,} places"
        warnings.append(f"{source} is damaged in {places}: letters there are read as “{_BROKEN}”.")
    return decoded, warnings


def _encoding_by_mark(text: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if text.startswith(mark)), None)


def _encoding_without_mark(data: bytes) -> str:
    if _encoding_by_mark(data):
        return "utf-8"  # no text is left for it to decide about
    if b"\0" in data:
        for encoding in _WIDE:
            text = data.decode(encoding, errors="replace")
            if any(sign in text for sign in _IN_ALL_SUBTITLES):
                return encoding
    # Latin-1 hardly ever looks like a whole character beyond ASCII.
    text = data.decode("utf-8", errors="replace")
    num_broken = text.count(_BROKEN)
    num_whole = len(text) - len(text.encode("ascii", errors="ignore")) - num_broken
    return "utf-8" if num_broken == 0 or num_whole >= num_broken else "cp1252"


# --- Formats ---

_TIME = r"(?:(\d{1,6})\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,2})(?:\s*[.,:]\s*(\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*--?>\s*{_TIME}(?!\d)", re.ASCII)
_ROW_ENDS = re.compile("\r\r\n|\r\n|\r|\n")  # the first where something wrote CRLF for the LF of CRLF
_COUNTER = re.compile(r"\s*\d+\s*", re.ASCII)
_SPEAKER = re.compile(r"<v(?:\.[^<>\s]*)?\s+([^<>]+)>", re.IGNORECASE)
# Only what looks like a tag: "3 < 5 and 7 > 2" stays. No bracket inside, which keeps the search linear.
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>|<[\d:.]+>")
# Commands as in {\an8}, from SubStation Alpha, where what stands in braces without a backslash is a remark.
_COMMANDS = re.compile(r"(\{\\[^{}]*\})")
_ASS_COMMANDS = re.compile(r"((?<!\\)\{[^{}]*\})")
_DRAWING_SCALE = re.compile(r"\\p\s*(\d+)", re.ASCII)
_ASS_ESCAPE = re.compile("\\\\([n{}\u2060])")
_ASS_ESCAPED = {"n": " ", "{": "{", "}": "}", "\u2060": "\\"}  # the word joiner is how FFmpeg keeps a backslash one
_SBV_TIME = r"(\d{1,6}):(\d\d):(\d\d)\.(\d{3})"
_SBV_TIMING = re.compile(rf"{_SBV_TIME},{_SBV_TIME}\s*", re.ASCII)
_ASS_HEAD, _ASS_FORMAT, _ASS_EVENT = "[script info]", "format", "dialogue"
_ASS_TIME = re.compile(rf"\s*{_TIME}\s*", re.ASCII)
_ASS_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")


def parse_subtitles(text: str) -> tuple[SubtitleLine, ...]:
    r"""Lines in the order they are shown, without tags, positions, styles and notes; speakers stay as "Name: ".

    Accepts any line ends, missing counters and blank rows, empty rows within a text (SubRip), cues out of order or
    over each other, times with a point or a comma or without fractions or hours. Raises SubtitlesError where nothing
    has times.

    >>> parse_subtitles("1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere")
    (SubtitleLine(start_seconds=1.0, end_seconds=2.5, text='Hello there'),)
    """
    rows = _ROW_ENDS.split(text.replace("\ufeff", "").lstrip())  # a mark is wherever files were joined
    timings = [(place, match) for place, row in enumerate(rows) if "->" in row and (match := _TIMING.match(row))]
    is_webvtt = rows[0].startswith("WEBVTT")
    is_sbv = not timings and not is_webvtt
    if is_sbv:
        timings = [(place, match) for place, row in enumerate(rows) if (match := _SBV_TIMING.fullmatch(row))]
    if is_sbv and not timings:
        return join_cues(_ass_cues(rows, text))
    cues = []
    for number, (place, match) in enumerate(timings):
        is_last = number + 1 == len(timings)
        end = len(rows) if is_last else timings[number + 1][0]
        own = rows[place + 1 : end]
        if not is_last and not is_sbv and own and _COUNTER.fullmatch(own[-1]):
            own = own[:-1]  # the next cue's
        if is_webvtt and "" in own:
            # Notes, styles and the next cue's name come behind the first empty row. A row that holds a blank is none:
            # automatic captions of YouTube begin with one where nothing is left from before.
            own = own[: own.index("")]
        cues.append((_seconds(match, 1), _seconds(match, 5), rows_of("\n".join(own))))
    return join_cues(cues)


def _ass_cues(rows: list[str], text: str) -> list[tuple[float, float, list[str]]]:
    """The events of a SubStation Alpha file; SubtitlesError if it is none. (Its rows are `Kind: field,field,…`.)"""
    fields = list(_ASS_FIELDS)
    cues = []
    for row in rows:
        kind, _, content = row.partition(":")
        kind = kind.strip().lower()
        if kind == _ASS_FORMAT:  # that of styles comes before that of events
            fields = [name.strip().lower() for name in content.split(",")]
        if kind != _ASS_EVENT:
            continue
        event = dict(zip(fields, content.split(",", len(fields) - 1), strict=False))
        start, end = (_ASS_TIME.fullmatch(event.get(name, "")) for name in ("start", "end"))
        if start and end:
            cues.append((_seconds(start, 1), _seconds(end, 1), rows_of(event.get("text", ""), is_ass=True)))
    if not cues and _ASS_HEAD not in text[:1000].lower():  # one without an event is one all the same
        what = "It holds no subtitles: no line has two times with “-->” between them."
        raise SubtitlesError(what if text.strip() else "It is empty.", f"Give {_FILES_THAT_ARE_READ}.")
    return cues


def _seconds(match: re.Match[str], first_group: int) -> float:
    hours, minutes, seconds, fraction = match.group(*range(first_group, first_group + 4))
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def rows_of(text: str, *, is_ass: bool = False) -> list[str]:
    r"""The rows of one cue's text without tags, positions, drawings and character codes.

    `is_ass` says that it is the text of a SubStation Alpha event, in which all that stands in braces is hidden.

    >>> rows_of(r"<v Ann>{\an8}Tom &amp; <b>Jerry</b>\N{\p1}m 0 0 l 9 9{\p0}run")
    ['Ann: Tom & Jerry', 'run']
    """
    text = _without_commands(text, _ASS_COMMANDS if is_ass else _COMMANDS)
    text = html.unescape(_TAG.sub("", _SPEAKER.sub(r"\1: ", text)))
    if is_ass:
        text = _ASS_ESCAPE.sub(lambda escape: _ASS_ESCAPED[escape[1]], text)
    return _ROW_ENDS.split(text.replace(r"\N", "\n").replace(r"\h", " "))


def _without_commands(text: str, commands: re.Pattern[str]) -> str:
    shown, is_drawing = [], False  # from `\p1` to `\p0` it is no text but the outline of a drawing
    for number, piece in enumerate(commands.split(text)):
        if number % 2:
            for scale in _DRAWING_SCALE.findall(piece):
                is_drawing = bool(scale.strip("0"))
        elif not is_drawing:
            shown.append(piece)
    return "".join(shown)


def join_cues(cues: Iterable[tuple[float, float, Sequence[str]]]) -> tuple[SubtitleLine, ...]:
    """Cues (start, end, rows of text) as lines in the order they are shown, with nothing said twice.

    Rows that stay on the screen from one cue to the next, as in rolling captions, are kept where they first appear; a
    cue that says what the one before it says only makes it longer. A cue that ends before it starts has no length.

    >>> join_cues([(2, 3, ["and", "then"]), (1, 2, ["first", "and"])])[1]
    SubtitleLine(start_seconds=2, end_seconds=3, text='then')
    """
    lines: list[SubtitleLine] = []
    shown: list[str] = []
    for start, end, cue_rows in sorted(cues, key=lambda cue: (cue[0], cue[1])):
        rows = [cleaned for row in cue_rows if (cleaned := " ".join(row.split()))]
        if not rows:
            continue
        end = max(start, end)
        follows_on = bool(lines) and start <= lines[-1].end_seconds + _LONGEST_GAP_SECONDS
        num_staying = next((n for n in range(min(len(shown), len(rows)), 0, -1) if shown[-n:] == rows[:n]), 0)
        new = rows[num_staying:] if follows_on else rows
        if new:
            lines.append(SubtitleLine(start, end, " ".join(new)))
        else:
            lines[-1] = replace(lines[-1], end_seconds=max(end, lines[-1].end_seconds))
        shown = rows
    return tuple(lines)
