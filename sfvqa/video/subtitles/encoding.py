"""Which encoding subtitles are in, and what they say in it: most files do not tell. Pure; opens no file."""

import codecs
from collections.abc import Sequence

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
    decoded = [text.decode(_marked_encoding(text) or encoding, errors="replace") for text in texts]
    warnings = []
    if encoding == "cp1252":
        warnings.append(f"{source} is not UTF-8: it was read as Latin-1. If letters are wrong, convert it to UTF-8.")
    elif num_broken := sum(text.count(_BROKEN) for text in decoded):
        places = "1 place" if num_broken == 1 else f"{num_broken:,} places"
        warnings.append(f"{source} is damaged in {places}: letters there are read as “{_BROKEN}”.")
    return decoded, warnings


def _marked_encoding(text: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if text.startswith(mark)), None)


def _encoding_without_mark(data: bytes) -> str:
    if _marked_encoding(data):
        return "utf-8"  # no text is left for it to decide about
    if b"\0" in data:
        for encoding in _WIDE:
            text = data.decode(encoding, errors="replace")
            if any(sign in text for sign in _IN_ALL_SUBTITLES):
                return encoding
    return "utf-8" if _is_mostly_utf8(data) else "cp1252"


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether more characters beyond ASCII are whole than broken: Latin-1 hardly ever looks like a whole one."""
    text = data.decode("utf-8", errors="replace")
    num_broken = text.count(_BROKEN)
    num_whole = len(text) - len(text.encode("ascii", errors="ignore")) - num_broken
    return num_broken == 0 or num_whole >= num_broken
