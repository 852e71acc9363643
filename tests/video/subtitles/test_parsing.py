"""Subtitles as they are found: the parser reads what a person would read, and fails only where there is nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import SubtitlesError
from sfvqa.video.subtitles import SubtitleLine, parse_subtitles

PLAIN = [SubtitleLine(1.0, 2.5, "Hello there"), SubtitleLine(3.0, 4.0, "Bye")]
SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello\nthere\n\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
FULL_WEBVTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

REGION
id:fred

NOTE
a note --> without times

intro
00:01.000 --> 00:02.500 align:start position:10%
<c.loud>Hello</c> <00:00:02.000>there

NOTE between

2
00:03.000 --> 00:04.000
Bye
"""


@pytest.mark.parametrize(
    "text",
    [
        SRT,
        "\ufeff" + SRT,
        SRT.replace("\n", "\r\n"),
        SRT.replace("\n", "\r"),
        SRT.replace("\n", "\r\r\n"),
        SRT.replace("\n\n", "\n"),
        SRT.replace("\n\n", "\n\n\n\n"),
        SRT.replace("1\n00", "00").replace("2\n00", "00"),
        SRT.replace(",", "."),
        SRT.replace(",500", ",5").replace(",000", ""),
        SRT.replace(" --> ", "-->"),
        SRT.replace("00:00:", "0:0:"),
        SRT.replace("Hello\nthere", "Hello\n\nthere"),
        SRT.replace("02,500", "02,500  X1:100 X2:200 Y1:1 Y2:9"),
        SRT.replace("Hello", "<i>Hello</i>").replace("Bye", '{\\an8}<font color="#fff">Bye</font>'),
        "2\n00:00:03,000 --> 00:00:04,000\nBye\n\n1\n00:00:01,000 --> 00:00:02,500\nHello\nthere",
        FULL_WEBVTT,
        FULL_WEBVTT.replace("\n", "\r\n"),
        FULL_WEBVTT.replace("\n", "\r\r\n"),
        "\ufeff\n" + FULL_WEBVTT,
        SRT.replace("\n\n2", "\n\n\ufeff2"),
        SRT.replace("Hello", r"{\p1}m 0 0 l 9 9\N{\p0}Hello").replace("Bye", r"Bye{\an8\p2}m 1 1"),
        "WEBVTT\n\n" + SRT.replace(",", ".").replace("\n\n", "\n"),
    ],
)
def test_the_same_lines_however_they_are_written(text: str) -> None:
    assert list(parse_subtitles(text)) == PLAIN


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("<v Roger Bingham>Hello", "Roger Bingham: Hello"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("Tom &amp; Jerry&nbsp;&lt;3", "Tom & Jerry <3"),
        ("42", "42"),
        ("one\\Ntwo", "one two"),
        (r"{\i1}one{\i0}\htwo {three}", "one two {three}"),
        (r"{\pos(9,9)\pbo2}on{\p0}e", "one"),
        ("hello<00:00:00.200><c> there</c><00:00:00.400><c.colorE5E5E5> you</c>", "hello there you"),
        (r"C:\new", r"C:\new"),
        ("  - Who?\t- Me. ", "- Who? - Me."),
        ("I <3 you -> him", "I <3 you -> him"),
    ],
)
def test_markup_goes_and_text_stays(row: str, text: str) -> None:
    lines = parse_subtitles(f"1\n00:00:01,000 --> 00:00:02,000\n{row}\n\n2\n00:00:03,000 --> 00:00:04,000\nNext")
    assert [line.text for line in lines] == [text, "Next"]


def test_automatic_captions_of_youtube() -> None:
    """As yt-dlp saves them: a blank in a row keeps the place of one. Taken for the end of a cue it lost its text."""
    head = "WEBVTT\nKind: captions\nLanguage: en\n\n"
    cues = [
        ("00:00:00.080 --> 00:00:02.389", " \nhello<00:00:00.400><c> there</c>"),
        ("00:00:02.389 --> 00:00:02.399", "hello there\n "),
        ("00:00:02.399 --> 00:00:04.000", "hello there\nhow<00:00:03.000><c> are</c><00:00:03.500><c> you</c>"),
        ("00:00:04.000 --> 00:00:04.010", "how are you\n "),
    ]
    lines = parse_subtitles(head + "\n\n".join(f"{time} align:start position:0%\n{text}" for time, text in cues))
    assert lines == (SubtitleLine(0.08, 2.399, "hello there"), SubtitleLine(2.399, 4.01, "how are you"))


def test_an_empty_row_ends_a_cue_of_webvtt() -> None:
    assert parse_subtitles("WEBVTT\n\n00:01.000 --> 00:02.000\nA\n\nNOTE b")[0].text == "A"


def test_captions_that_roll_are_said_once() -> None:
    """Automatic captions show every row twice: in the second row, then above the next."""
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nso today\n\n00:02.000 --> 00:03.000\nso today\nwe look at\n\n"
    text += "00:03.000 --> 00:04.000\nwe look at\nbirds\n\n00:04.000 --> 00:05.000\nwe look at\nbirds\n\n"
    lines = parse_subtitles(text + "00:09.000 --> 00:10.000\nbirds\n")
    assert [(line.start_seconds, line.end_seconds, line.text) for line in lines] == [
        (1, 2, "so today"),
        (2, 3, "we look at"),
        (3, 5, "birds"),
        (9, 10, "birds"),
    ]


def test_cues_that_overlap_both_stay() -> None:
    lines = parse_subtitles("00:01,0 --> 00:05,0\nA\n\n00:02,0 --> 00:03,0\nB\n")
    assert [(line.start_seconds, line.end_seconds, line.text) for line in lines] == [(1, 5, "A"), (2, 3, "B")]


def test_a_cue_that_ends_before_it_starts_is_an_instant() -> None:
    assert parse_subtitles("00:05,0 --> 00:01,0\nA") == (SubtitleLine(5.0, 5.0, "A"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing in it"),
        ("Dear diary,\n\ntoday --> tomorrow.", "No subtitles"),
        ("{10}{20}MicroDVD", "No subtitles"),
        ("Dialogue: he says, 0:00:01.00, that\nFormat: is all", "No subtitles"),
    ],
)
def test_what_is_no_subtitles_is_an_error(text: str, says: str) -> None:
    with pytest.raises(SubtitlesError, match=says):
        parse_subtitles(text)


ASS = """[Script Info]
; Dialogue: 0,0:00:09.00,0:00:10.00,Default,,0,0,0,,a remark
[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown
Dialogue: 1,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\pos(1,1)\\p1}m 0 0 l 9 9{\\p0}
Dialogue: 0,1:02:03.45,1:02:05.00,Default,Ann,0,0,0,,Well, {\\i1}yes{\\i0},\\Nof course: 5 > 4
Dialogue: 0,0:00:01.50,0:00:02.00,Default,,0,0,0,,First
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_substation_alpha(line_end: str) -> None:
    """A file of it was refused, though a track of it within a video is read."""
    assert parse_subtitles(ASS.replace("\n", line_end)) == (
        SubtitleLine(1.5, 2.0, "First"),
        SubtitleLine(3723.45, 3725.0, "Well, yes, of course: 5 > 4"),
    )
    older = "[Script Info]\n[Events]\nFormat: Marked, End, Start, Text\nDialogue: Marked=0,0:00:02.0,0:00:01.0,a, b\n"
    assert parse_subtitles(older) == (SubtitleLine(1.0, 2.0, "a, b"),)
    assert parse_subtitles("[Script Info]\n[Events]\n") == ()


def test_youtubes_own_subtitles() -> None:
    text = "0:00:01.000,0:00:03.500\nHello\nthere\n\n0:00:04.000,0:00:05.000\n42\n\n10:00:06.000,10:00:07.000\n>> Bye\n"
    assert parse_subtitles(text) == (
        SubtitleLine(1.0, 3.5, "Hello there"),
        SubtitleLine(4.0, 5.0, "42"),
        SubtitleLine(36006.0, 36007.0, ">> Bye"),
    )


def test_webvtt_without_a_cue_is_empty() -> None:
    assert parse_subtitles("WEBVTT\n\nNOTE nothing is said") == ()


words = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>&{}\\"))
spoken = st.lists(words.filter(lambda word: bool(word) and not word.isdigit()), min_size=1, max_size=4).map(" ".join)
milliseconds = st.integers(min_value=0, max_value=35_999_999)


def _stamp(time: int, separator: str) -> str:
    return f"{time // 3_600_000:02d}:{time // 60_000 % 60:02d}:{time // 1000 % 60:02d}{separator}{time % 1000:03d}"


@given(
    cues=st.lists(st.tuples(milliseconds, milliseconds, spoken), min_size=1, unique_by=lambda cue: (cue[0], cue[2])),
    is_webvtt=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    counters=st.booleans(),
)
def test_what_is_written_is_read(
    cues: list[tuple[int, int, str]], is_webvtt: bool, line_end: str, counters: bool
) -> None:
    """Every cue comes back with its times, whatever the order and the ends of rows, unless one repeats another."""
    rows = ["WEBVTT", ""] if is_webvtt else []
    for number, (start, end, text) in enumerate(cues):
        rows += [str(number)] if counters else []
        separator = "." if is_webvtt else ","
        rows += [f"{_stamp(start, separator)} --> {_stamp(end, separator)}", text, ""]
    lines = parse_subtitles(line_end.join(rows))
    assert [line.start_seconds for line in lines] == sorted(line.start_seconds for line in lines)
    texts = [text for _, _, text in cues]
    if len(set(texts)) == len(texts):
        wanted = [(start / 1000, max(start, end) / 1000, text) for start, end, text in cues]
        found = [(line.start_seconds, line.end_seconds, line.text) for line in lines]
        assert _close(sorted(found), sorted(wanted))


def _close(found: list[tuple[float, float, str]], wanted: list[tuple[float, float, str]]) -> bool:
    return [text for _, _, text in found] == [text for _, _, text in wanted] and all(
        abs(one[0] - other[0]) < 1e-6 and abs(one[1] - other[1]) < 1e-6
        for one, other in zip(found, wanted, strict=True)
    )


@given(st.text() | st.text(alphabet="0123456789:,.->\n<i/v {\\&}WEBVT\r"))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but SubtitlesError, and never an empty, backward or unclean line."""
    try:
        lines = parse_subtitles(text)
    except SubtitlesError:
        return
    for line in lines:
        assert 0 <= line.start_seconds <= line.end_seconds
        assert line.text == " ".join(line.text.split()) != ""


@pytest.mark.parametrize("piece", ["<", "{\\", "{\\p1}", "\\p", "\r", "&", "0:", "<v ", "<a ", " ", "1:1-->"])
def test_a_hostile_row_takes_no_time(piece: str) -> None:
    """A search that starts over at every character would take hours for this."""
    start = time.process_time()
    parse_subtitles(f"00:01,0 --> 00:02,0\n{piece * 200_000}\n")
    parse_subtitles(f"00:01,0 --> 00:02,0\nA\n{piece * 200_000}-->\n")
    assert time.process_time() - start < 10
