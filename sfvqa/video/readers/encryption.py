"""Signs that a video is encrypted, so that it is not called damaged; nothing is decrypted."""

import struct
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from sfvqa.errors import EncryptedVideoError
from sfvqa.video.readers.transport_stream import PACKET_BYTES, SYNC_BYTE, first_packets
from sfvqa.video.readers.video_track import VideoTrack, open_container, packets_of

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet

_INFO = struct.Struct(">4s5I")  # scheme, two of patterns, sizes of key and IV, number of subsamples (encryption_info.c)
_SUBSAMPLE = struct.Struct(">2I")  # bytes in the clear, bytes encrypted
_FAIRPLAY = "drmi"  # of mp4 from iTunes
_WEBM_KEY = "enc_key_id"  # FFmpeg's name for the key that a Matroska track asks for
_ASF_ENCRYPTION = tuple(
    bytes.fromhex(name) for name in ("fbb3112223bdd211b4b700a0c955fc6e", "14e68a292226174cb935dae07ee9289c")
)  # (extended) content encryption objects
_CHECKED_PACKETS = 1000  # beyond a beginning that is often left clear
_HEAD_BYTES = 1 << 20
_TS_SCRAMBLED = 0x80


def check_not_encrypted(path: Path, track: VideoTrack) -> None:
    """Raise EncryptedVideoError if the file says that the track is encrypted, or that one of its first packets is."""
    with open_container(path) as container:
        stream = container.streams[track.index]
        assert isinstance(stream, VideoStream)
        if _is_encrypted(path, stream) or _has_encrypted_packets(container, stream):
            raise EncryptedVideoError(
                f"“{path}” is encrypted (DRM), and its key is not to be had here.", "Give a video without encryption."
            )


def is_locked(packet: "Packet[VideoStream]") -> bool:
    """Whether something of the packet is encrypted.

    One in the clear among encrypted ones carries an entry too: with nothing in it, or without an IV to decrypt with.
    """
    if not packet.has_sidedata("encryption_info"):
        return False
    info = bytes(packet.get_sidedata("encryption_info"))
    *_, key_bytes, iv_bytes, num_subsamples = _INFO.unpack_from(info)
    start = _INFO.size + key_bytes
    subsamples = _SUBSAMPLE.iter_unpack(info[start + iv_bytes :][: num_subsamples * _SUBSAMPLE.size])
    return any(encrypted for _, encrypted in subsamples) if num_subsamples else any(info[start : start + iv_bytes])


def _has_encrypted_packets(container: InputContainer, stream: VideoStream) -> bool:
    try:
        packets = islice(packets_of(container, stream), _CHECKED_PACKETS)
        return any(is_locked(packet) for packet in packets)
    except av.FFmpegError:
        return False


def _is_encrypted(path: Path, stream: VideoStream) -> bool:
    if stream.codec_context.codec_tag == _FAIRPLAY or _WEBM_KEY in stream.metadata:
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    name = stream.container.format.name
    if name == "asf":
        return any(guid in head for guid in _ASF_ENCRYPTION)
    return name == "mpegts" and _is_scrambled(head, stream.id)


def _is_scrambled(head: bytes, stream_id: int) -> bool:
    """Whether packets of a transport stream that belong to the track are marked as scrambled (ISO/IEC 13818-1)."""
    begin, stride = first_packets(head) or (len(head), PACKET_BYTES)
    for at in range(begin, len(head) - 4, stride):
        stream = int.from_bytes(head[at + 1 : at + 3]) & 0x1FFF
        if head[at] == SYNC_BYTE and stream == stream_id and head[at + 3] & _TS_SCRAMBLED:
            return True
    return False
