"""Timed texts as files: subtitles for players, and tables and plain text for programs. `subtitles.py` reads them."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

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


def write_captions(lines: Iterable[SubtitleLine], format: CaptionFormat) -> str:
    r"""The lines as the text of a file, with `\n` at the end of each row (`\r\n` in CSV).

    - `vtt` and `srt`: cues to the millisecond, at least one millisecond long and from 0 on. A text keeps its rows but
      for empty ones, and a cue without text is left out. What a player would take for markup is shown as it is; in
      `srt`, which has no escapes, by a word joiner (U+2060), which is invisible.
    - `txt`: a row a text, without times.
    - `csv` and `jsonl`: start_seconds, end_seconds and text; in `csv` as `defuse` gives it.

    >>> write_captions([SubtitleLine(0, 2.5, "A boat <1 m> leaves.")], CaptionFormat.VTT)
    'WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nA boat &lt;1 m&gt; leaves.\n'
    """
    return _WRITERS[CaptionFormat(format)](list(lines))


def _vtt(lines: Sequence[SubtitleLine]) -> str:
    cues = [(_timing(line, "."), [_joined(html.escape(row, quote=False)) for row in _rows(line)]) for line in lines]
    return "\n".join(["WEBVTT\n", *("\n".join([timing, *rows, ""]) for timing, rows in cues if rows)])


def _srt(lines: Sequence[SubtitleLine]) -> str:
    cues = [(_timing(line, ","), [_without_references(_joined(row)) for row in _rows(line)]) for line in lines]
    shown = [(timing, rows) for timing, rows in cues if rows]
    return "\n".join("\n".join([f"{number}", timing, *rows, ""]) for number, (timing, rows) in enumerate(shown, 1))


def _txt(lines: Sequence[SubtitleLine]) -> str:
    return "".join(f"{' '.join(rows)}\n" for line in lines if (rows := _rows(line)))


def _csv(lines: Sequence[SubtitleLine]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(["start_seconds", "end_seconds", "text"])
    writer.writerows([round(line.start_seconds, 3), round(line.end_seconds, 3), defuse(line.text)] for line in lines)
    return table.getvalue()


def _jsonl(lines: Sequence[SubtitleLine]) -> str:
    return "".join(
        json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "start_seconds": round(line.start_seconds, 3),
                "end_seconds": round(line.end_seconds, 3),
                "text": line.text,
            }
        )
        + "\n"
        for line in lines
    )


_WRITERS: dict[CaptionFormat, Callable[[Sequence[SubtitleLine]], str]] = {
    CaptionFormat.VTT: _vtt,
    CaptionFormat.SRT: _srt,
    CaptionFormat.TXT: _txt,
    CaptionFormat.CSV: _csv,
    CaptionFormat.JSONL: _jsonl,
}


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
