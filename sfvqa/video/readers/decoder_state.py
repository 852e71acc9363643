"""What a file says once and a decoder must be told again after a seek or damage: a palette, new headers, how to turn.

And which key frames start afresh: of H.264 not every one does (an IDR picture does), and a strict decoder that began
with another would take what refers to earlier pictures for damage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet, PacketSideData
from av.video.codeccontext import VideoCodecContext

if TYPE_CHECKING:
    from av.video.stream import VideoStream


_NEW_HEADERS = "new_extradata"
_SAID_ONCE = frozenset({"palette", _NEW_HEADERS, "display_matrix", "mastering_display_metadata", "content_light_level"})
_LENGTH_PREFIXED = b"\x01"  # H.264 and HEVC in mp4 and the like begin their headers so; other streams have start codes


@dataclass(frozen=True)
class DecoderState:
    """What a decoder must have been told before a packet: the demuxer's side data, headers from within the stream."""

    side_data: tuple[PacketSideData, ...] = ()
    headers: bytes = b""  # where the packet has none of its own

    @property
    def has_new_headers(self) -> bool:
        """Whether the headers are others than those that a decoder begins with."""
        return bool(self.headers) or any(data.data_type == _NEW_HEADERS for data in self.side_data)

    def hand_over(self, decoder: VideoCodecContext, packet: "Packet[VideoStream]") -> None:
        """Tell it to a decoder that goes on with this packet, whatever else the demuxer hands over with it."""
        if self.headers:
            try:
                decoder.decode(Packet(self.headers))
            except av.FFmpegError:  # there is no picture in it
                decoder.flush_buffers()
        for data in self.side_data:
            data.to_packet(packet)  # type: ignore[arg-type]  # a packet of any stream


NOTHING_SAID = DecoderState()


class DecoderStates:
    """Follows the packets of a stream from its start, and knows the state that each needs.

    With a `stream` it also looks into key frames, whose data are then used up.
    """

    def __init__(self, stream: "VideoStream | None" = None) -> None:
        self._side_data: tuple[PacketSideData, ...] = ()
        self._header_filter = None if stream is None else _header_filter(stream)
        self._headers: list[bytes] = []

    def before(self, packet: "Packet[VideoStream]") -> DecoderState:
        """The state that the next packet of the file needs."""
        said = [data for data in packet.iter_sidedata() if data.data_type in _SAID_ONCE]
        if said:
            kinds = {data.data_type for data in said}
            self._side_data = (*(data for data in self._side_data if data.data_type not in kinds), *said)
        headers = self._headers_before(packet) if packet.is_keyframe else b""
        return DecoderState(self._side_data, headers)

    def _headers_before(self, packet: "Packet[VideoStream]") -> bytes:
        """The headers in force, where the packet has none itself; nothing as long as the first ones are."""
        if self._header_filter is None:
            return b""
        side_data = (data for filtered in self._header_filter.filter(packet) for data in filtered.iter_sidedata())
        own = b"".join(bytes(data) for data in side_data if data.data_type == _NEW_HEADERS)
        if own and own not in self._headers[-1:]:
            self._headers.append(own)
        return self._headers[-1] if len(self._headers) > 1 and not own else b""


def _header_filter(stream: "VideoStream") -> BitStreamFilterContext | None:
    """What finds headers within the stream; None for a codec, or a way to store it, that has none there."""
    if (stream.codec_context.extradata or b"").startswith(_LENGTH_PREFIXED):
        return None
    try:
        return BitStreamFilterContext("extract_extradata", stream)
    except (av.FFmpegError, ValueError):
        return None


# --- Key frames that start afresh ---

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
