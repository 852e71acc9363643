"""Text that is safe on a terminal: what a model or a file name says never moves the cursor or changes colours."""

import re

from sfvqa.wording import plural as plural
from sfvqa.wording import readable_size as readable_size

# C0 and C1 controls, DEL, line and paragraph separators, marks and overrides of direction, and lone surrogates (how
# Python spells the bytes of a file name that are not UTF-8). The zero-width joiner stays: emoji need it.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(f"[{_UNSAFE}\t\n]")


def printable(text: str) -> str:
    r"""Spell out control characters as `\x1b`; newlines and tabs stay."""
    return _UNSAFE_IN_TEXT.sub(_spell_out, text)


def printable_line(text: str) -> str:
    r"""Spell out control characters as `\x1b`, newlines and tabs too: for names and questions inside a line."""
    return _UNSAFE_IN_LINE.sub(_spell_out, text)


def _spell_out(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]
