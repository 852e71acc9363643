"""Where the frames of an AVI file lie by its own index, for files that FFmpeg finds too damaged to use that index of.

An AVI file's packets carry no times but those that a demuxer counts: without the index one that is lost or there twice
would give all that follow the place of another. (idx1: Microsoft's AVI RIFF File Reference.)
"""

import struct
from pathlib import Path

CHUNK_HEADER_BYTES = 8
_ENTRY = struct.Struct("<4sIII")  # chunk id, flags, offset, size
_HEAD_BYTES = 1 << 20  # the list of frames begins within
_MOST_TAIL_BYTES = 1 << 26


def places_by_position(path: Path, stream_index: int) -> dict[int, int]:
    """Where the data of each frame of a stream begins in the file → its place; empty if no index is found.

    Entries without data, which repeat the frame before, are no frames. Offsets count from the list's name or from the
    start of the file: the first entry tells. Where that name is lost they fit nothing, as it should be.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        movi = file.read(_HEAD_BYTES).find(b"movi")
        file.seek(max(num_bytes - _MOST_TAIL_BYTES, 0))
        tail = file.read()
    start = tail.rfind(b"idx1")
    if start < 0:
        return {}
    length = int.from_bytes(tail[start + 4 : start + 8], "little")
    body = tail[start + CHUNK_HEADER_BYTES :][:length]
    entries = list(_ENTRY.iter_unpack(body[: len(body) // _ENTRY.size * _ENTRY.size]))
    stream_name = b"%02dd" % stream_index  # dc or db follows
    offsets = [offset for chunk, _, offset, size in entries if size and chunk.startswith(stream_name)]
    base = movi if entries and entries[0][2] < movi else 0
    return {base + offset + CHUNK_HEADER_BYTES: place for place, offset in enumerate(offsets)}
