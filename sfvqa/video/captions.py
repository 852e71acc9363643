"""Timed texts as files: subtitles for players, and tables and plain text for programs. `subtitles.py` reads them."""

import csv
import html
import io
import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import IO

from sfvqa.spreadsheet import defuse
from sfvqa.video.subtitles import SubtitleLine

SCHEMA_VERSION = 1  # of a JSON line
_SHORTEST_CUE_MS = 1  # WebVTT wants cues to end after they start
_WORD_JOINER = "\u2060"  # invisible; FFmpeg too puts one where a text would look like markup
# Within an arrow between times, behind a bracket that may open a tag, and within a command of SubStation Alpha, which
# players take from other formats too.
_BEFORE_MARKUP = re.compile(r"(?<=-)(?=>)|(?<=<)(?=[A-Za-z/\d:.])|(?<=\{)(?=\\)|(?<=\\)(?=[Nh])", re.ASCII)


class CaptionFormat(StrEnum):
    """What a file of captions is."""

    VTT = "vtt"
    SRT = "srt"
    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"


class CaptionWriter:
    r"""Writes lines to a stream of text as they come, with `\n` at the end of each row (`\r\n` in CSV).

    - `vtt` and `srt`: cues to the millisecond, at least one millisecond long and from 0 on. A text keeps its rows but
      for empty ones, and a cue without text is left out. What a player would take for markup is shown as it is; in
      `srt`, which has no escapes, by a word joiner (U+2060), which is invisible.
    - `txt`: a row a text, without times.
    - `csv` and `jsonl`: start_seconds, end_seconds and text; in `csv` as `defuse` gives it.

    >>> file = io.StringIO()
    >>> CaptionWriter(file, CaptionFormat.VTT).write(SubtitleLine(0, 2.5, "A boat <1 m> leaves."))
    >>> file.getvalue()
    'WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nA boat &lt;1 m&gt; leaves.\n'
    """

    def __init__(self, stream: IO[str], format: CaptionFormat) -> None:
        self._stream = stream
        self._number = 1  # of the next cue
        head, self._text_of = _FORMATS[format]
        stream.write(head)

    def write(self, line: SubtitleLine) -> None:
        """Write what there is of a line, through to whoever reads the stream."""
        text = self._text_of(line, self._number)
        self._number += bool(text)
        self._stream.write(text)
        self._stream.flush()


def _vtt(line: SubtitleLine, _number: int) -> str:
    rows = [_joined(html.escape(row, quote=False)) for row in _rows(line)]
    return "\n".join(["", _timing(line, "."), *rows, ""]) if rows else ""


def _srt(line: SubtitleLine, number: int) -> str:
    rows = [_without_references(_joined(row)) for row in _rows(line)]
    before = [""] if number > 1 else []
    return "\n".join([*before, f"{number}", _timing(line, ","), *rows, ""]) if rows else ""


def _txt(line: SubtitleLine, _number: int) -> str:
    rows = _rows(line)
    return f"{' '.join(rows)}\n" if rows else ""


def _csv(line: SubtitleLine, _number: int) -> str:
    row = io.StringIO()
    cells = (round(line.start_seconds, 3), round(line.end_seconds, 3), defuse(line.text))
    csv.writer(row, lineterminator="\r\n").writerow(cells)
    return row.getvalue()


def _jsonl(line: SubtitleLine, _number: int) -> str:
    document = {
        "schema_version": SCHEMA_VERSION,
        "start_seconds": round(line.start_seconds, 3),
        "end_seconds": round(line.end_seconds, 3),
        "text": line.text,
    }
    return json.dumps(document) + "\n"


_FORMATS: dict[CaptionFormat, tuple[str, Callable[[SubtitleLine, int], str]]] = {
    CaptionFormat.VTT: ("WEBVTT\n", _vtt),
    CaptionFormat.SRT: ("", _srt),
    CaptionFormat.TXT: ("", _txt),
    CaptionFormat.CSV: ("start_seconds,end_seconds,text\r\n", _csv),
    CaptionFormat.JSONL: ("", _jsonl),
}
"""What a file begins with, and a line with the number of its cue as text."""


def _rows(line: SubtitleLine) -> list[str]:
    """The rows of a text that show anything; `splitlines` ends them wherever a parser might."""
    return [shown for row in line.text.splitlines() if (shown := " ".join(row.split()))]


def _timing(line: SubtitleLine, point: str) -> str:
    start = max(round(line.start_seconds * 1000), 0)
    end = max(round(line.end_seconds * 1000), start + _SHORTEST_CUE_MS)
    return f"{_clock(start, point)} --> {_clock(end, point)}"


def _clock(milliseconds: int, point: str) -> str:
    """
    >>> _clock(360_000_250, ",")
    '100:00:00,250'
    """
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _joined(row: str) -> str:
    return _BEFORE_MARKUP.sub(_WORD_JOINER, row)


def _without_references(row: str) -> str:
    """Only some players take `&amp;` for `&`, so it is taken apart instead of written."""
    return row if html.unescape(row) == row else row.replace("&", f"&{_WORD_JOINER}")
