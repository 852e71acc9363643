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
    sizes = []  # where each parent's size stands
    start, end = 0, len(data)
    for name in _VIDEO_PATH:
        size_at, start, end = _child(data, name, start, end)
        sizes.append(size_at)
    data[end:end] = added
    for size_at in sizes[1:]:
        _grow(data, size_at, len(added))
    _, start, end = _child(data, _VIDEO_PATH[0], 0, len(data))
    size_at, start, _ = _child(data, _VOID, start, end)
    _grow(data, size_at, -len(added))
    del data[start : start + len(added)]
    path.write_bytes(data)


def _child(data: bytearray, name: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Where the size of the first element of that name stands, and where its content starts and ends."""
    while start < end:
        size_at = start + 9 - data[start].bit_length()
        content = size_at + 9 - data[size_at].bit_length()
        stop = content + _number(data, size_at)
        if data[start:size_at] == name:
            return size_at, content, stop
        start = stop
    raise AssertionError(f"no element {name.hex()}")


def _number(data: bytearray, at: int) -> int:
    length = 9 - data[at].bit_length()
    return int.from_bytes(data[at : at + length]) & (1 << 7 * length) - 1


def _grow(data: bytearray, at: int, num_bytes: int) -> None:
    length = 9 - data[at].bit_length()
    number = _number(data, at) + num_bytes
    assert 0 <= number < (1 << 7 * length) - 1
    data[at : at + length] = (number | 1 << 7 * length).to_bytes(length)
