"""What the bytes of a container tell that FFmpeg does not: encrypted, cut off, packets lost, an AVI's index."""

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.video.stream import VideoStream

from sfvqa.errors import EncryptedVideoError
from sfvqa.video.readers.tracks import VideoTrack, open_container, packets_of

if TYPE_CHECKING:
    from av.packet import Packet

    from sfvqa.video.readers.frame_table import PacketTimes


# --- Encryption: encrypted video must not be called damaged ---

_INFO = struct.Struct(">4s5I")  # scheme, two of patterns, sizes of key and IV, number of subsamples (encryption_info.c)
_SUBSAMPLE = struct.Struct(">2I")  # bytes in the clear, bytes encrypted
_FAIRPLAY = "drmi"  # of mp4 from iTunes
_WEBM_KEY = "enc_key_id"  # FFmpeg's name for the key that a Matroska track asks for
_ASF_ENCRYPTION = tuple(
    bytes.fromhex(name) for name in ("fbb3112223bdd211b4b700a0c955fc6e", "14e68a292226174cb935dae07ee9289c")
)  # (extended) content encryption objects
_CHECKED_PACKETS = 1000  # beyond a beginning that is often left clear
_ENCRYPTION_HEAD_BYTES = 1 << 20
_TS_SCRAMBLED = 0x80


def check_not_encrypted(path: Path, track: VideoTrack) -> None:
    """Raise EncryptedVideoError if the file says that the track is encrypted, or that one of its first packets is."""
    with open_container(path) as container, suppress(av.FFmpegError):
        stream = container.streams[track.index]
        assert isinstance(stream, VideoStream)
        first_packets = islice(packets_of(container, stream), _CHECKED_PACKETS)
        if _says_encrypted(path, stream) or any(map(is_locked, first_packets)):
            raise EncryptedVideoError(
                f"“{path}” is encrypted (DRM), and its key is not available.", "Give a video without encryption."
            )


def _says_encrypted(path: Path, stream: VideoStream) -> bool:
    if stream.codec_context.codec_tag == _FAIRPLAY or _WEBM_KEY in stream.metadata:
        return True
    with path.open("rb") as file:
        head = file.read(_ENCRYPTION_HEAD_BYTES)
    name = stream.container.format.name
    if name == "asf":
        return any(guid in head for guid in _ASF_ENCRYPTION)
    return name == "mpegts" and _is_scrambled(head, stream.id)


def _is_scrambled(head: bytes, stream_id: int) -> bool:
    """Whether packets of a transport stream that belong to the track are marked as scrambled (ISO/IEC 13818-1)."""
    begin, stride = _first_packets(head) or (len(head), _PACKET_BYTES)
    for at in range(begin, len(head) - 4, stride):
        stream = int.from_bytes(head[at + 1 : at + 3]) & 0x1FFF
        if head[at] == _SYNC_BYTE and stream == stream_id and head[at + 3] & _TS_SCRAMBLED:
            return True
    return False


def is_locked(packet: "Packet[VideoStream]") -> bool:
    """Whether something of the packet is encrypted: one in the clear may carry an entry too, empty or without an IV."""
    if not packet.has_sidedata("encryption_info"):
        return False
    info = bytes(packet.get_sidedata("encryption_info"))
    *_, key_bytes, iv_bytes, num_subsamples = _INFO.unpack_from(info)
    start = _INFO.size + key_bytes
    subsamples = _SUBSAMPLE.iter_unpack(info[start + iv_bytes :][: num_subsamples * _SUBSAMPLE.size])
    return any(encrypted for _, encrypted in subsamples) if num_subsamples else any(info[start : start + iv_bytes])


# --- The end: cut off is what the container says in bytes; durations and tags are not asked ---

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_OGG_PAGE, _OGG_FLAGS_AT, _OGG_LAST_PAGE, _OGG_LONGEST_PAGE_BYTES = b"OggS", 5, 4, 65_307
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_FLV, _FLV_TAG_BYTES, _FLV_TYPE_BITS, _FLV_TYPES = b"FLV", 11, 0x1F, (8, 9, 18)  # sound, picture, data
_REAL_MEDIA, _REAL_MEDIA_CHUNKS = b".RMF", (b".RMF", b"PROP", b"MDPR", b"CONT", b"DATA", b"INDX")
_MXF_PARTITION = bytes.fromhex("060e2b34020501010d01020101")
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot")
_RIFF = b"RIFF"
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # of an AVI file whose recorder did not come to write it, or could not go back
_SLACK_BYTES = 16  # some writers of AVI and RealMedia count a header, too
_HEAD_BYTES = 4096


def is_cut(file: Path) -> bool:
    """Whether the file is shorter than its container says; False where that does not say.

    Matroska, AVI, mp4, ASF, RealMedia and FLV files name the sizes of their parts, an MXF file the place of its last
    one; a transport stream ends with a whole packet, an Ogg file with a page marked as the last.
    """
    if not file.stat().st_size:
        return False
    with file.open("rb") as stream, closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        for beginning, judge in _JUDGES.items():
            if content[: len(beginning)] == beginning:
                return judge(content)
        if content[4:8] in _FIRST_BOXES:
            return _is_mp4_cut(content)
        return _first_packets(content) is not None and _is_transport_stream_cut(content)


def _is_matroska_cut(content: mmap.mmap) -> bool:
    """Whether the segment ends later. (EBML numbers: as many leading zero bits as further bytes.)"""
    head = content[:_HEAD_BYTES]
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return False
    length = 9 - head[at].bit_length()
    number = int.from_bytes(head[at : at + length]) & (1 << 7 * length) - 1
    return number < (1 << 7 * length) - 1 and at + length + number > len(content)


def _is_riff_cut(content: mmap.mmap) -> bool:
    """Whether one of the pieces that an AVI file consists of (one, or more if it is long) ends later."""
    at = 0
    while content[at : at + 4] == _RIFF:
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if size in _UNKNOWN_SIZES:
            return False
        at += 8 + size + size % 2
    return at - _SLACK_BYTES > len(content)


def _is_mp4_cut(content: mmap.mmap) -> bool:
    """Whether the last of the boxes that follow one another ends later."""
    at = 0
    while at + 8 <= len(content) and content[at + 4 : at + 8].isalnum():
        size = int.from_bytes(content[at : at + 4])
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16])
        if size < 8:  # 0: to the end of the file
            return False
        at += size
    return at > len(content)


def _is_asf_cut(content: mmap.mmap) -> bool:
    """Whether the data, which follows the header, ends later."""
    at = int.from_bytes(content[16:24], "little")
    size = int.from_bytes(content[at + 16 : at + 24], "little")
    return content[at : at + 16] == _ASF_DATA and at + size > len(content)


def _is_real_media_cut(content: mmap.mmap) -> bool:
    """Whether one of the chunks that follow one another ends later."""
    at = 0
    while content[at : at + 4] in _REAL_MEDIA_CHUNKS and (size := int.from_bytes(content[at + 4 : at + 8])) >= 8:
        at += size  # a smaller one is unknown: live
    return at - _SLACK_BYTES > len(content)


def _is_mxf_cut(content: mmap.mmap) -> bool:
    """Whether the footer would begin later, by the first partition's word. (SMPTE ST 377-1, 7.1.)"""
    length = content[16]
    value = 17 + (length & 0x7F if length & 0x80 else 0)
    return int.from_bytes(content[value + 24 : value + 32]) >= len(content)


def _is_flv_cut(content: mmap.mmap) -> bool:
    """Whether the last tag ends later: where the file does not end with a tag's size, all are gone through."""
    size = int.from_bytes(content[-4:])
    begin = len(content) - 4 - size
    if begin > 0 and size == int.from_bytes(content[begin + 1 : begin + 4]) + _FLV_TAG_BYTES:
        return False
    at = int.from_bytes(content[5:9]) + 4
    while at < len(content) and content[at] & _FLV_TYPE_BITS in _FLV_TYPES:
        at += _FLV_TAG_BYTES + int.from_bytes(content[at + 1 : at + 4]) + 4
    return at - 4 > len(content)


def _is_transport_stream_cut(content: mmap.mmap) -> bool:
    """Whether it ends within a packet; what follows a whole packet, and is none, is passed over."""
    _, stride = _first_packets(content) or (0, _PACKET_BYTES)
    for begin in range(len(content) - 1, max(len(content) - 2 * stride, 3 * stride), -1):
        if all(content[begin - before * stride] == _SYNC_BYTE for before in range(4)):
            return begin + _PACKET_BYTES > len(content)
    return False


def _is_ogg_cut(content: mmap.mmap) -> bool:
    tail = content[max(len(content) - _OGG_LONGEST_PAGE_BYTES, 0) :]
    last_page = tail.rfind(_OGG_PAGE)
    flags = (tail[last_page:] + bytes(_OGG_FLAGS_AT + 1))[_OGG_FLAGS_AT]
    return last_page >= 0 and not flags & _OGG_LAST_PAGE


_JUDGES: dict[bytes, Callable[[mmap.mmap], bool]] = {
    _EBML: _is_matroska_cut,
    _RIFF: _is_riff_cut,
    _ASF_HEADER: _is_asf_cut,
    _FLV: _is_flv_cut,
    _OGG_PAGE: _is_ogg_cut,
    _REAL_MEDIA: _is_real_media_cut,
    _MXF_PARTITION: _is_mxf_cut,
}
"""By what a file begins with."""


# --- Packets that an MPEG transport stream lost, by their counters (ISO/IEC 13818-1, 2.4.3) ---
# FFmpeg mostly marks the picture before the one that lost data, and also where whole segments are joined.

_PACKET_BYTES, _SYNC_BYTE = 188, 0x47
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


def damaged_pictures(file: Path, packets: "Sequence[PacketTimes]") -> frozenset[int]:
    """The positions of the pictures of one stream that lost data, or follow a loss and may need what was lost."""
    pictures = [packet for packet in packets if packet.position >= 0]
    marked = [place for place, picture in enumerate(pictures) if picture.is_corrupt]
    if not marked:
        return frozenset()
    suspects = {place + later for place in marked for later in range(_LATEST_MARK + 1) if place + later < len(pictures)}
    with file.open("rb") as stream, closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        return frozenset(pictures[place].position for place in suspects if not _is_whole(content, pictures, place))


def _is_whole(content: mmap.mmap, pictures: "Sequence[PacketTimes]", place: int) -> bool:
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
    stride = next((stride for stride in _STRIDES if _is_sync(content, position + stride)), _PACKET_BYTES)
    stream = int.from_bytes(content[position + 1 : position + 3]) & 0x1FFF
    restarts = False
    while 0 <= position <= len(content) - _PACKET_BYTES:  # -1: nothing follows
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
                is_broken=bool(flags & 0x8000) or position < following < position + _PACKET_BYTES,
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


def _first_packets(content: mmap.mmap | bytes) -> tuple[int, int] | None:
    """Where the packets of a transport stream begin, and from one to the next; None where three do not follow so."""
    for at in range(min(len(content), max(_STRIDES))):
        for stride in _STRIDES:
            if content[at : at + 2 * stride + 1 : stride] == bytes([_SYNC_BYTE] * 3):
                return at, stride
    return None


def _is_sync(content: mmap.mmap, position: int) -> bool:
    return position >= len(content) or content[position] == _SYNC_BYTE


def _next_sync(content: mmap.mmap, position: int, stride: int) -> int:
    """Where packets begin again after bytes that are none; -1 if nowhere."""
    position = content.find(bytes([_SYNC_BYTE]), position)
    while position >= 0 and not _is_sync(content, position + stride):
        position = content.find(bytes([_SYNC_BYTE]), position + 1)
    return position


# --- The index of an AVI file (idx1: Microsoft's AVI RIFF File Reference), for one too damaged for FFmpeg to use it ---

AVI_CHUNK_HEADER_BYTES = 8
_AVI_ENTRY = struct.Struct("<4sIII")  # chunk id, flags, offset, size
_AVI_HEAD_BYTES = 1 << 20  # the list of frames begins within
_AVI_MOST_TAIL_BYTES = 1 << 26


def avi_index(path: Path, stream_index: int) -> dict[int, int]:
    """Where the data of each frame of a stream begins in an AVI file → its place; empty if there is no idx1 index.

    Entries without data, which repeat the frame before, are no frames. Offsets count from the list's name or from the
    start of the file: the first entry tells. Where that name is lost they fit nothing, as it should be.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        movi = file.read(_AVI_HEAD_BYTES).find(b"movi")
        file.seek(max(num_bytes - _AVI_MOST_TAIL_BYTES, 0))
        tail = file.read()
    start = tail.rfind(b"idx1")
    if start < 0:
        return {}
    length = int.from_bytes(tail[start + 4 : start + 8], "little")
    body = tail[start + AVI_CHUNK_HEADER_BYTES :][:length]
    entries = list(_AVI_ENTRY.iter_unpack(body[: len(body) // _AVI_ENTRY.size * _AVI_ENTRY.size]))
    stream_name = b"%02dd" % stream_index  # dc or db follows
    offsets = [offset for chunk, _, offset, size in entries if size and chunk.startswith(stream_name)]
    base = movi if entries and entries[0][2] < movi else 0
    return {base + offset + AVI_CHUNK_HEADER_BYTES: place for place, offset in enumerate(offsets)}
