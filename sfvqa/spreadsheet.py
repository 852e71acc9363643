"""Text that a spreadsheet shows as it is, and does not calculate."""

import unicodedata

_STARTS_A_FORMULA = ("=", "+", "-", "@")
_MAY_BE_DROPPED = ("\t", "\r", "\n")
_INVISIBLE_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers, and a pattern without dots


def defuse(text: str) -> str:
    """Put a `'` before text that a spreadsheet would calculate, and before text that begins with one already.

    A spreadsheet calculates text whose first visible character is = + - @ (full-width ones too); some drop a tab or
    a newline before it. Removing one `'` from each cell that begins with one gives back exactly what was recorded.

    >>> defuse("=1+1"), defuse("'tis"), defuse("left")
    ("'=1+1", "''tis", 'left')
    """
    first = next((char for char in text if not _is_invisible(char)), "")
    is_formula = unicodedata.normalize("NFKC", first).startswith(_STARTS_A_FORMULA)
    return f"'{text}" if is_formula or text.startswith(("'", *_MAY_BE_DROPPED)) else text


def _is_invisible(char: str) -> bool:
    """Blanks, controls, formatting characters and marks without a base: spreadsheets drop some of them."""
    return unicodedata.category(char)[0] in "CZM" or char in _INVISIBLE_LETTERS
