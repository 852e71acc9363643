"""Puts into a written file what PyAV cannot write: boxes of an mp4, elements of a Matroska file."""

from collections.abc import Sequence
from pathlib import Path

ENTRY_OF_THE_TRACK = ("moov", "trak", "mdia", "minf", "stbl", "stsd")
_VIDEO_PATH = (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0")  # Segment, Tracks, TrackEntry, Video
_VOID = b"\xec"


def add_box(path: Path, entry: str, name: str, content: bytes) -> None:
    """Add a box to the sample entry (`avc1`, …) of an mp4 whose index stands at the end."""
    data = path.read_bytes()
    at, parents = 0, []
    for parent in (*ENTRY_OF_THE_TRACK, entry):
        at = data.index(parent.encode(), at) - 4
        parents.append(at)
        at += 8
    box = (8 + len(content)).to_bytes(4) + name.encode() + content
    end = parents[-1] + int.from_bytes(data[parents[-1] :][:4])
    patched = bytearray(data)
    for parent_at in parents:
        size = int.from_bytes(data[parent_at:][:4]) + len(box)
        patched[parent_at : parent_at + 4] = size.to_bytes(4)
    patched[end:end] = box
    path.write_bytes(patched)


def add_to_video(path: Path, elements: Sequence[tuple[bytes, int]]) -> None:
    """Add numbers (id, below 256) to the description of a Matroska file's picture, in place of what is void before."""
    data = bytearray(path.read_bytes())
    added = b"".join(name + b"\x81" + bytes([value]) for name, value in elements)
    at, parents = 0, []
    for name in _VIDEO_PATH:
        at = data.index(name, at) + len(name)
        parents.append(at)
        at += _length(data[at])
    end = at + _number(data, parents[-1])
    for parent_at in parents[1:]:
        _grow(data, parent_at, len(added))
    data[end:end] = added
    void_at = data.index(_VOID, parents[0] + 8)
    _grow(data, void_at + 1, -len(added))
    body = void_at + 1 + _length(data[void_at + 1])
    del data[body : body + len(added)]
    path.write_bytes(data)


def _length(first: int) -> int:
    return 9 - first.bit_length()


def _number(data: bytearray, at: int) -> int:
    length = _length(data[at])
    return int.from_bytes(data[at : at + length]) & (1 << 7 * length) - 1


def _grow(data: bytearray, at: int, num_bytes: int) -> None:
    length = _length(data[at])
    number = _number(data, at) + num_bytes
    assert 0 <= number < (1 << 7 * length) - 1
    data[at : at + length] = (number | 1 << 7 * length).to_bytes(length)
