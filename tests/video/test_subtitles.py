"""Subtitles as they are found: what a person would read is read, in any encoding; the rest is refused."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfvqa.errors import ExitCode, SubtitlesError
from sfvqa.video.subtitles import (
    MAX_BYTES,
    SubtitleLine,
    lines_between,
    parse_subtitles,
    read_subtitle_file,
    spread_evenly,
)

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
        ("", "is empty"),
        ("Dear diary,\n\ntoday --> tomorrow.", "no subtitles"),
        ("{10}{20}MicroDVD", "no subtitles"),
        ("Dialogue: he says, 0:00:01.00, that\nFormat: is all", "no subtitles"),
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


@settings(suppress_health_check=[HealthCheck.too_slow])
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


# --- Files and encodings ---


TEXT = "1\n00:00:01,000 --> 00:00:02,000\nÜber Größe: déjà vu\n"


UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", [*UNICODE, "latin-1", "cp1252"])
def test_every_encoding_gives_the_same_text(encoding: str, tmp_path: Path) -> None:
    """A file without a mark that is no UTF-8 is taken for Latin-1, and that is said."""
    path = tmp_path / "a.srt"
    path.write_bytes(TEXT.encode(encoding))
    subtitles = read_subtitle_file(path)
    assert [line.text for line in subtitles.lines] == ["Über Größe: déjà vu"]
    assert subtitles.source == str(path)
    assert any("Latin-1" in warning for warning in subtitles.warnings) == (encoding in ("latin-1", "cp1252"))


@pytest.mark.parametrize("encoding", UNICODE)
def test_any_character_is_read_in_every_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    """U+3000, U+4E00 and U+0100 have a null byte where ASCII has none: counting null bytes took this for Latin-1."""
    path = tmp_path / "a.srt"
    path.write_bytes("1\r\n00:00:00,500 --> 00:00:01,500\r\n一個人　世界 Ā\r\n".encode(encoding))
    subtitles = read_subtitle_file(path)
    assert [line.text for line in subtitles.lines] == ["一個人 世界 Ā"]
    assert subtitles.warnings == ()


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize(
    "text",
    [
        "[Script Info]\n[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,一　世",
        "0:00:01.000,0:00:02.000\n一　世\n",
    ],
)
def test_other_kinds_of_subtitles_in_every_unicode_encoding(encoding: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ass"
    path.write_bytes(text.encode(encoding))
    assert [line.text for line in read_subtitle_file(path).lines] == ["一 世"]


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be"])
def test_big_endian_with_a_mark(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(f"\ufeff{TEXT}".encode(encoding))
    assert read_subtitle_file(path).lines[0].text == "Über Größe: déjà vu"


@pytest.mark.parametrize(
    ("broken", "text", "places"),
    [
        (b"\xff \xc3\x9cber Gr\xc3\xb6\xc3\x9fe", "\ufffd Über Größe", "1 place"),
        (b"\xe4\xb8\x80\xe5\x80 \xe4\xba\xba \x92", "一\ufffd 人 \ufffd", "2 places"),
        (b"\xef\xbb\xbf1\n00:01,0 --> 00:02,0\ncaf\xe9", "caf\ufffd", "1 place"),
    ],
)
def test_a_broken_byte_does_not_turn_utf8_into_latin1(broken: bytes, text: str, places: str, tmp_path: Path) -> None:
    """One byte that a transfer or an editor broke made "Ãœber GrÃ¶ÃŸe" of every other line."""
    path = tmp_path / "a.srt"
    path.write_bytes(broken if b"-->" in broken else b"00:01,0 --> 00:02,0\n" + broken)
    subtitles = read_subtitle_file(path)
    assert [line.text for line in subtitles.lines] == [text]
    assert subtitles.warnings == (f"“{path}” is damaged in {places}: letters there are read as “\ufffd”.",)


def test_windows_quotes_are_quotes(tmp_path: Path) -> None:
    """Latin-1 proper would make them control characters."""
    path = tmp_path / "a.srt"
    path.write_bytes("00:01,0 --> 00:02,0\n“Yes” – no".encode("cp1252"))
    assert read_subtitle_file(path).lines[0].text == "“Yes” – no"


@pytest.mark.parametrize("content", [b"", b"no times", bytes(range(256)) * 20, b"\x00" * 5000, b"\xff\xfe\x00"])
def test_what_is_no_subtitles_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(content)
    with pytest.raises(SubtitlesError, match=r"a\.srt") as caught:
        read_subtitle_file(path)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_file_that_is_not_there_and_one_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(SubtitlesError, match="There is no subtitle file"):
        read_subtitle_file(tmp_path / "absent.srt")
    with pytest.raises(SubtitlesError, match="cannot be read"):
        read_subtitle_file("a\0b.srt")
    path = tmp_path / "long.srt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(SubtitlesError, match="too much"):
        read_subtitle_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.srt")
    for path in (tmp_path / "pipe.srt", tmp_path):
        with pytest.raises(SubtitlesError, match="not a regular file"):
            read_subtitle_file(path)


def test_a_file_without_a_line_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n", encoding="utf-8")
    assert read_subtitle_file(path).warnings == (f"“{path}” holds no line of text.",)


# --- Which lines are wanted ---


@pytest.mark.parametrize(
    ("start", "end", "texts"),
    [(0, 10, "ABC"), (2, 3, "AB"), (2.5, 2.5, "B"), (4.5, 5, ""), (6, 6, "C"), (7, 9, "C"), (7.1, 9, "")],
)
def test_lines_shown_at_some_time_of_the_range(start: float, end: float, texts: str) -> None:
    lines = [SubtitleLine(1, 2, "A"), SubtitleLine(2, 4, "B"), SubtitleLine(6, 7, "C")]
    assert "".join(line.text for line in lines_between(lines, start, end)) == texts


@given(st.integers(0, 200), st.integers(0, 200))
def test_evenly_means_no_gap_is_much_longer_than_another(num_items: int, count: int) -> None:
    kept = spread_evenly(range(num_items), count)
    assert len(kept) == min(count, num_items)
    assert kept == sorted(set(kept))
    if 0 < count < num_items:
        gaps = [later - earlier for earlier, later in zip([-1, *kept], [*kept, num_items], strict=True)]
        inner = gaps[1:-1]
        assert not inner or max(inner) - min(inner) <= 1
        assert max(gaps[0], gaps[-1]) <= num_items // (2 * count) + 2
