"""Captions as files: other people's parsers and ours read back what was written."""

import csv
import io
import json
from collections.abc import Callable, Sequence

import pysrt
import pytest
import srt
import webvtt
from hypothesis import example, given
from hypothesis import strategies as st

from sfvqa.video.captions import CaptionFormat, CaptionWriter
from sfvqa.video.subtitles import SubtitleLine, join_cues, parse_subtitles

Cue = tuple[int, int, str]  # milliseconds

# No word joiners, which are written to escape, and no byte order marks, which subtitles.py removes.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\u2060\ufeff"), max_size=30)
MARKUP = st.lists(
    st.sampled_from([
        "-->", "->", "<", "<i>", "</b>", "<00:01.000>", "<v Ann>", "&", "&amp;", "&lt", "&#65;", "{\\an8}", "{", "}",
        "\\N", "\\h", "\n", "\n\n", "\r", "\r\n", "\u2028", "\x0b", "\x85", "NOTE", "STYLE", "WEBVTT", "7", " ", "a",
        "00:00:01,000 --> 00:00:02,000", "0:30 -> 0:40", "ñ", "漢字", "🎬", "=1+1", ",", '"', "'",
    ]),
    max_size=8,
).map("".join)  # fmt: skip
MILLISECONDS = st.integers(0, 1_000 * 3_600_000)


@st.composite
def lines_to_write(draw: st.DrawFn) -> list[SubtitleLine]:
    """Lines at whole milliseconds, over each other and of no length too."""
    return [
        SubtitleLine(start / 1000, (start + draw(st.integers(0, 100_000))) / 1000, draw(TEXTS | MARKUP))
        for start in draw(st.lists(MILLISECONDS, max_size=5))
    ]


def written(lines: Sequence[SubtitleLine], format: CaptionFormat) -> str:
    stream = io.StringIO(newline="")
    captions = CaptionWriter(stream, format)
    for line in lines:
        captions.write(line)
    return stream.getvalue()


def shown(text: str) -> str:
    return "\n".join(kept for row in text.splitlines() if (kept := " ".join(row.split())))


def as_cues(lines: Sequence[SubtitleLine]) -> list[Cue]:
    """What a player is to show."""
    times = [(round(line.start_seconds * 1000), round(line.end_seconds * 1000)) for line in lines]
    cues = [(start, max(end, start + 1), shown(line.text)) for (start, end), line in zip(times, lines, strict=True)]
    return [cue for cue in cues if cue[2]]


def with_webvtt(text: str) -> list[Cue]:
    def milliseconds(at: "webvtt.models.Timestamp") -> int:
        return ((at.hours * 60 + at.minutes) * 60 + at.seconds) * 1000 + at.milliseconds

    cues = webvtt.from_string(text).captions
    return [(milliseconds(cue.start_time), milliseconds(cue.end_time), unescape(cue.raw_text)) for cue in cues]


def unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def with_srt(text: str) -> list[Cue]:
    return [
        (round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000), cue.content)
        for cue in srt.parse(text)
    ]


def with_pysrt(text: str) -> list[Cue]:
    cues = pysrt.from_string(text, error_handling=pysrt.ERROR_RAISE)
    return [(cue.start.ordinal, cue.end.ordinal, cue.text) for cue in cues]


PARSERS: list[tuple[CaptionFormat, Callable[[str], list[Cue]]]] = [
    (CaptionFormat.VTT, with_webvtt),
    (CaptionFormat.SRT, with_srt),
    (CaptionFormat.SRT, with_pysrt),
]


@pytest.mark.parametrize(("format", "parse"), PARSERS)
@given(lines=lines_to_write())
@example(lines=[SubtitleLine(360_000.25, 360_000.25, "a\n\n-->\r\n<b>&amp;</b>"), SubtitleLine(0, 1, " ")])
def test_other_parsers_read_what_was_written(
    format: CaptionFormat, parse: Callable[[str], list[Cue]], lines: list[SubtitleLine]
) -> None:
    file = written(lines, format)
    assert [(start, end, text.replace("\u2060", "")) for start, end, text in parse(file)] == as_cues(lines)


@pytest.mark.parametrize("format", [CaptionFormat.VTT, CaptionFormat.SRT])
@given(lines=lines_to_write())
def test_subtitles_are_read_as_they_were_written(format: CaptionFormat, lines: list[SubtitleLine]) -> None:
    text = written(lines, format)
    expected = join_cues((start / 1000, end / 1000, text.split("\n")) for start, end, text in as_cues(lines))
    found = parse_subtitles(text) if as_cues(lines) else ()
    assert [line.text.replace("\u2060", "") for line in found] == [line.text for line in expected]
    for line, meant in zip(found, expected, strict=True):
        assert (line.start_seconds, line.end_seconds) == pytest.approx((meant.start_seconds, meant.end_seconds))


@given(lines=lines_to_write())
def test_a_table_gives_back_every_text_and_calculates_none(lines: list[SubtitleLine]) -> None:
    head, *rows = csv.reader(io.StringIO(written(lines, CaptionFormat.CSV), newline=""))
    assert head == ["start_seconds", "end_seconds", "text"]
    assert [(float(start), float(end), text.removeprefix("'")) for start, end, text in rows] == [
        (line.start_seconds, line.end_seconds, line.text) for line in lines
    ]
    assert not any(text.lstrip().startswith(("=", "+", "-", "@")) for *_, text in rows)


@given(lines=lines_to_write())
def test_json_lines_give_back_every_line(lines: list[SubtitleLine]) -> None:
    objects = [json.loads(row) for row in written(lines, CaptionFormat.JSONL).splitlines()]
    assert objects == [
        {"schema_version": 1, "start_seconds": line.start_seconds, "end_seconds": line.end_seconds, "text": line.text}
        for line in lines
    ]


@given(lines=lines_to_write())
def test_plain_text_is_a_row_a_text(lines: list[SubtitleLine]) -> None:
    assert written(lines, CaptionFormat.TXT).splitlines() == [text.replace("\n", " ") for *_, text in as_cues(lines)]


def test_times_before_the_first_frame_are_cut_off() -> None:
    assert "00:00:00,000 --> 00:00:01,000" in written([SubtitleLine(-0.5, 1, "a")], CaptionFormat.SRT)
