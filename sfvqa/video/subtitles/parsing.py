"""The text of a subtitle file → its lines, however it was put together. Pure; opens no file.

One parser for SubRip (.srt) and WebVTT (.vtt), because what is out there mixes them: what counts is a row with `-->`
between two times. Where there is none, the file may be YouTube's (.sbv) or SubStation Alpha's (.ass, .ssa).
"""

import html
import re

from sfvqa.errors import SubtitlesError
from sfvqa.video.subtitles.lines import SubtitleLine, in_order

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
_WEBVTT = "WEBVTT"
_SBV_TIME = r"(\d{1,6}):(\d\d):(\d\d)\.(\d{3})"
_SBV_TIMING = re.compile(rf"{_SBV_TIME},{_SBV_TIME}\s*", re.ASCII)
_ASS_HEAD, _ASS_FORMAT, _ASS_EVENT = "[script info]", "format", "dialogue"
_ASS_TIME = re.compile(rf"\s*{_TIME}\s*", re.ASCII)
_ASS_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")

FILES_THAT_ARE_READ = "a SubRip (.srt), WebVTT (.vtt), SubStation Alpha (.ass, .ssa) or YouTube (.sbv) file"


def parse_subtitles(text: str) -> tuple[SubtitleLine, ...]:
    r"""Lines in the order they are shown, without tags, positions, styles and notes; speakers stay as "Name: ".

    Survives: any line ends, missing counters and blank rows, empty rows within a text (SubRip), cues out of order or
    over each other, times with a point or a comma or without fractions or hours. Raises SubtitlesError when there is
    nothing in it that has times.

    >>> parse_subtitles("1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere")
    (SubtitleLine(start_seconds=1.0, end_seconds=2.5, text='Hello there'),)
    """
    rows = _ROW_ENDS.split(text.replace("\ufeff", "").lstrip())  # a mark is wherever files were joined
    timings = [(place, match) for place, row in enumerate(rows) if "->" in row and (match := _TIMING.match(row))]
    is_webvtt = rows[0].startswith(_WEBVTT)
    is_sbv = not timings and not is_webvtt
    if is_sbv:
        timings = [(place, match) for place, row in enumerate(rows) if (match := _SBV_TIMING.fullmatch(row))]
    if is_sbv and not timings:
        return in_order(_ass_cues(rows, text))
    cues = []
    for number, (place, match) in enumerate(timings):
        is_last = number + 1 == len(timings)
        end = len(rows) if is_last else timings[number + 1][0]
        own = rows[place + 1 : end]
        if not is_last and not is_sbv and own and _COUNTER.fullmatch(own[-1]):
            own = own[:-1]  # the next cue's
        if is_webvtt:
            own = _until_empty(own)
        cues.append((_seconds(match, 1), _seconds(match, 5), rows_of("\n".join(own))))
    return in_order(cues)


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
        raise SubtitlesError(_what_else(text), f"Give {FILES_THAT_ARE_READ}.")
    return cues


def _until_empty(rows: list[str]) -> list[str]:
    """The rows before the first empty one: notes, styles and the next cue's name come behind it.

    A row that holds a blank is none: automatic captions of YouTube begin with one where nothing is left from before.
    """
    return rows[: rows.index("")] if "" in rows else rows


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
    r"""Text and commands take turns; from `\p1` to `\p0` it is no text but the outline of a drawing."""
    shown, is_drawing = [], False
    for number, piece in enumerate(commands.split(text)):
        if number % 2:
            for scale in _DRAWING_SCALE.findall(piece):
                is_drawing = bool(scale.strip("0"))
        elif not is_drawing:
            shown.append(piece)
    return "".join(shown)


def _what_else(text: str) -> str:
    if not text.strip():
        return "There is nothing in it."
    return "No subtitles are in it: no row has two times with “-->” between them."
