"""Which pictures of an MPEG transport stream lost data, by the counters in its packets (ISO/IEC 13818-1, 2.4.3).

FFmpeg marks a picture when a counter jumps, but as a rule the one before the one that lost something; and where whole
segments are joined, counters jump although nothing is lost.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PACKET_BYTES, SYNC_BYTE = 188, 0x47
_STRIDES = (188, 192, 204)  # alone, after a time stamp (M2TS), before a checksum
_TIME_STAMP_BYTES = 4  # FFmpeg's positions in M2TS are those of the time stamps
_PROGRAM_TABLE = 0  # the stream that a multiplexer writes first
_LATEST_MARK = 2  # the picture that lost something is the marked one or one of so many after it


@dataclass(frozen=True)
class _Packet:
    """What the header of one packet says.

    `is_filled_up`: padding shows that what it is part of ends with it. `begins_anew`: it is the first of its stream
    from a multiplexer that has just begun to count, the one of the next segment.
    """

    position: int
    starts_unit: bool
    counter: int
    is_filled_up: bool
    is_broken: bool
    may_jump: bool
    begins_anew: bool

    def follows(self, before: "_Packet") -> bool:
        """Whether nothing is lost between the two."""
        return self.may_jump or self.counter == (before.counter + 1) % 16


@dataclass(frozen=True)
class Picture:
    """A picture's coded data: where it begins in the file, whether it needs no other's, whether FFmpeg marked it."""

    position: int
    is_key: bool
    is_marked: bool


def damaged_pictures(file: Path, pictures: Sequence[Picture]) -> frozenset[int]:
    """The positions of those that lost data, or that follow a loss and may need what was lost.

    pictures: all of one stream that have a position, in file order.
    """
    marked = [place for place, picture in enumerate(pictures) if picture.is_marked]
    if not marked:
        return frozenset()
    suspects = {place + later for place in marked for later in range(_LATEST_MARK + 1) if place + later < len(pictures)}
    with file.open("rb") as stream, closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        return frozenset(pictures[place].position for place in suspects if not _is_whole(content, pictures, place))


def _is_whole(content: mmap.mmap, pictures: Sequence[Picture], place: int) -> bool:
    """Whether the picture's packets are all there, and those before it unless it is a key frame."""
    start = pictures[place].position
    earlier = next((other.position for other in reversed(pictures[:place]) if other.position < start), start)
    end = next((other.position for other in pictures[place + 1 :] if other.position > start), len(content))
    for before, packet in pairwise(_packets(content, earlier)):
        if start <= before.position < end and before.is_broken:
            return False
        if packet.position >= end:
            # What ends a segment may fill its last packet: then it is for the decoder to say whether it is whole.
            return packet.follows(before) or (packet.starts_unit and (before.is_filled_up or packet.begins_anew))
        if packet.position < start or packet.follows(before):
            continue
        if packet.position > start or not pictures[place].is_key:
            return False
    return True


def _packets(content: mmap.mmap, position: int) -> Iterator[_Packet]:
    """The packets that carry data of one stream, from its one at `position` on."""
    ahead = 0 if _is_sync(content, position) else _TIME_STAMP_BYTES
    position += ahead
    stride = next((stride for stride in _STRIDES if _is_sync(content, position + stride)), PACKET_BYTES)
    stream = int.from_bytes(content[position + 1 : position + 3]) & 0x1FFF
    restarts = False
    while 0 <= position <= len(content) - PACKET_BYTES:  # -1: nothing follows
        flags, control = int.from_bytes(content[position + 1 : position + 3]), content[position + 3]
        following = position + stride
        if not _is_sync(content, following):
            following = _next_sync(content, position + 1, stride)
        restarts |= flags & 0x1FFF == _PROGRAM_TABLE and control & 0x0F == 0
        if flags & 0x1FFF == stream and control & 0x10:
            length, field = content[position + 4 : position + 6] if control & 0x20 else (0, 0)
            yield _Packet(
                position - ahead,
                starts_unit=bool(flags & 0x4000),
                counter=control & 0x0F,
                is_filled_up=bool(control & 0x20) and _is_padded(length, field),
                is_broken=bool(flags & 0x8000) or position < following < position + PACKET_BYTES,
                may_jump=length > 0 and bool(field & 0x80),
                begins_anew=restarts and control & 0x0F == 0,
            )
            restarts = False
        position = following


def _is_padded(length: int, field: int) -> bool:
    """Whether an adaptation field of this length is longer than what its flags say that it holds.

    Clocks of 6 bytes and a countdown of 1; of what it holds besides the length would have to be read: then False.
    """
    held = 1 + 6 * (field >> 4 & 1) + 6 * (field >> 3 & 1) + (field >> 2 & 1)
    return length == 0 or (length > held and not field & 0b11)


def first_packets(content: mmap.mmap | bytes) -> tuple[int, int] | None:
    """Where the packets of a transport stream begin, and from one to the next; None where three do not follow so."""
    for at in range(min(len(content), max(_STRIDES))):
        for stride in _STRIDES:
            if content[at : at + 2 * stride + 1 : stride] == bytes([SYNC_BYTE] * 3):
                return at, stride
    return None


def _is_sync(content: mmap.mmap, position: int) -> bool:
    return position >= len(content) or content[position] == SYNC_BYTE


def _next_sync(content: mmap.mmap, position: int, stride: int) -> int:
    """Where packets begin again after bytes that are none; -1 if nowhere."""
    position = content.find(bytes([SYNC_BYTE]), position)
    while position >= 0 and not _is_sync(content, position + stride):
        position = content.find(bytes([SYNC_BYTE]), position + 1)
    return position
