"""Subtitle files: their encodings, and what may not be opened."""

import os
from pathlib import Path

import pytest

from sfvqa.errors import ExitCode, SubtitlesError
from sfvqa.video.subtitles import read_subtitle_file
from sfvqa.video.subtitles.files import MAX_BYTES

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
    assert caught.value.exit_code is ExitCode.VIDEO


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
        with pytest.raises(SubtitlesError, match="no regular file"):
            read_subtitle_file(path)


def test_a_file_without_a_line_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n", encoding="utf-8")
    assert read_subtitle_file(path).warnings == (f"“{path}” holds no line of text.",)
