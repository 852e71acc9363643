"""A file that a user names, or standard input, as bytes: no more of them than can be meant."""

import sys
from pathlib import Path
from typing import BinaryIO

from sfvqa.errors import UsageError
from sfvqa.wording import readable_size

STANDARD_INPUT = "-"
_PIECE_BYTES = 1 << 20


def read_given(source: Path | str, most_bytes: int) -> bytes:
    """All of it, `-` being standard input.

    UsageError for more than `most_bytes`, as comes of a device, or of a program that never ends. OSError.
    """
    if str(source) == STANDARD_INPUT:
        return _read_at_most(sys.stdin.buffer, most_bytes, "standard input")
    with Path(source).open("rb") as file:
        return _read_at_most(file, most_bytes, f"“{source}”")


def _read_at_most(stream: BinaryIO, most_bytes: int, name: str) -> bytes:
    content = bytearray()
    while piece := stream.read(_PIECE_BYTES):
        content += piece
        if len(content) > most_bytes:
            raise UsageError(
                f"There is more than {readable_size(most_bytes)} in {name}, too much to read.",
                "Check that it is the right file, or split it.",
            )
    return bytes(content)
