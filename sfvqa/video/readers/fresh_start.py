"""Whether a key frame of H.264 starts afresh (an IDR picture); after another, data may speak of pictures before it.

A decoder that began with such a one and is to be strict (see Handle.refuse_patched_pictures) takes that for damage.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet
    from av.video.stream import VideoStream

_SLICES, _OF_IDR = (1, 2, 5), 5  # ITU-T H.264, table 7-1
_START_CODE = b"\0\0\1"
_HEAD_BYTES = 1 << 16  # headers and messages come before the first slice


class FreshStarts:
    """Looks into the key frames of one stream."""

    def __init__(self, stream: "VideoStream") -> None:
        headers = stream.codec_context.extradata or b""
        self._is_h264 = stream.codec_context.name == "h264"
        self._length_bytes = (headers[4] & 3) + 1 if headers[:1] == b"\x01" and len(headers) > 4 else 0

    def is_one(self, packet: "Packet[VideoStream]") -> bool:
        """Whether nothing after this key frame speaks of what comes before it; true of all but H.264."""
        if not self._is_h264:
            return True
        head = bytes(memoryview(packet)[:_HEAD_BYTES])
        kinds = _kinds_by_length(head, self._length_bytes) if self._length_bytes else _kinds_by_start_code(head)
        return next((kind == _OF_IDR for kind in kinds if kind in _SLICES), True)


def _kinds_by_length(data: bytes, length_bytes: int) -> Iterator[int]:
    at = 0
    while at + length_bytes < len(data):
        yield data[at + length_bytes] & 0x1F
        at += length_bytes + int.from_bytes(data[at : at + length_bytes])


def _kinds_by_start_code(data: bytes) -> Iterator[int]:
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - len(_START_CODE):
        yield data[at + len(_START_CODE)] & 0x1F
        at = data.find(_START_CODE, at + 1)
