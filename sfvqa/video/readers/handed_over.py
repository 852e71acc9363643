"""What a demuxer says once and a decoder must know from then on: a palette, new headers of the codec, a display matrix.

A decoder that starts elsewhere, after a seek or after damage, is handed it again.
"""

from typing import TYPE_CHECKING

from av.packet import PacketSideData

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet
    from av.video.stream import VideoStream

NEW_HEADERS = "new_extradata"
_SAID_ONCE = frozenset({"palette", NEW_HEADERS, "display_matrix", "mastering_display_metadata", "content_light_level"})


class HandedOver:
    """What was said so far: `latest` holds the last of each kind."""

    def __init__(self) -> None:
        self.latest: tuple[PacketSideData, ...] = ()

    def note(self, packet: "Packet[VideoStream]") -> None:
        """Take in what comes with the next packet in file order."""
        for data in packet.iter_sidedata():
            if data.data_type in _SAID_ONCE:
                others = (other for other in self.latest if other.data_type != data.data_type)
                self.latest = (*others, data)


def hand_over(latest: tuple[PacketSideData, ...], packet: "Packet[VideoStream]") -> None:
    """Let the decoder know it with this packet, whatever else the demuxer hands over with it."""
    for data in latest:
        data.to_packet(packet)
