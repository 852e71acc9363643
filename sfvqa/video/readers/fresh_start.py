"""Whether a key frame of H.264 starts afresh (an IDR picture); after another, data may speak of pictures before it.

A decoder that began with such a one and is to be strict (see Handle.refuse_patched_pictures) takes that for damage.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet
    from av.video.stream import VideoStream

_SLICE, _SLICE_OF_IDR = 1, 5  # ITU-T H.264, table 7-1
_FIRST_SLICES = tuple(f"1{kind}" for kind in ("1", "00110", "011", "0001000"))  # P and I, each in two ways
_START_CODE = b"\0\0\1"
_HEAD_BYTES = 1 << 16  # headers and messages come before the first slice


class FreshStarts:
    """Looks into the key frames of one stream."""

    def __init__(self, stream: "VideoStream") -> None:
        headers = stream.codec_context.extradata or b""
        self._is_h264 = stream.codec_context.name == "h264"
        self._length_bytes = (headers[4] & 3) + 1 if headers[:1] == b"\x01" and len(headers) > 4 else 0

    def is_one(self, packet: "Packet[VideoStream]") -> bool:
        """Whether nothing after this key frame speaks of what comes before it; true of all but H.264.

        Of H.264 it is false only if the first slice is plainly that of another picture (of a part of which without
        prediction, where pictures are refreshed part by part): what damage made of it says nothing.
        """
        if not self._is_h264:
            return True
        head = bytes(memoryview(packet)[:_HEAD_BYTES])
        places = _units_by_length(head, self._length_bytes) if self._length_bytes else _units_by_start_code(head)
        slices = (head[at : at + 2] for at in places if head[at] & 0x1F in (_SLICE, _SLICE_OF_IDR))
        return not _begins_other_picture(next(slices, b""))


def _begins_other_picture(unit: bytes) -> bool:
    """Whether it is the first slice, I or P, of a picture that is no IDR picture and that others refer to.

    By 7.3.1 and 7.3.3: a bit that is 0, two of importance, the kind; then `1` for macroblock 0, and the type.
    """
    if len(unit) < 2 or unit[0] & 0x9F != _SLICE or not unit[0] & 0x60:
        return False
    return f"{unit[1]:08b}".startswith(_FIRST_SLICES)


def _units_by_length(data: bytes, length_bytes: int) -> Iterator[int]:
    at = 0
    while at + length_bytes < len(data):
        yield at + length_bytes
        at += length_bytes + int.from_bytes(data[at : at + length_bytes])


def _units_by_start_code(data: bytes) -> Iterator[int]:
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - len(_START_CODE):
        yield at + len(_START_CODE)
        at = data.find(_START_CODE, at + 1)
