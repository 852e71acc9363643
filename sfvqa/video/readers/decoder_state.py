"""What a file says once and a decoder must know from then on: a palette, new headers of the codec, how to turn it.

A decoder that starts elsewhere, after a seek or after damage, is told it again.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet, PacketSideData
from av.video.codeccontext import VideoCodecContext

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.video.stream import VideoStream

_NEW_HEADERS = "new_extradata"
_SAID_ONCE = frozenset({"palette", _NEW_HEADERS, "display_matrix", "mastering_display_metadata", "content_light_level"})
_LENGTH_PREFIXED = b"\x01"  # H.264 and HEVC in mp4 and the like begin their headers so; other streams have start codes


@dataclass(frozen=True)
class DecoderState:
    """What a decoder must have been told before a packet: what demuxers hand over, headers from within the stream.

    `headers` is empty where the packet has its own.
    """

    side_data: tuple[PacketSideData, ...] = ()
    headers: bytes = b""

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
        own = b"".join(
            bytes(data)
            for filtered in self._header_filter.filter(packet)
            for data in filtered.iter_sidedata()
            if data.data_type == _NEW_HEADERS
        )
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
