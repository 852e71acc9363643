"""Whether the end of a file is missing, by what its container says of bytes; durations and tags are not asked."""

import mmap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sfvqa.video.readers.transport_stream import PACKET_BYTES, SYNC_BYTE, first_packets

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


def is_cut(file: Path) -> bool | None:
    """Whether the file is shorter than its container says; None where that does not say.

    Matroska, AVI, mp4, ASF, RealMedia and FLV files name the sizes of their parts, an MXF file the place of its last
    one; a transport stream ends with a whole packet, and an Ogg file with a page that is marked as the last.
    """
    if not file.stat().st_size:
        return None
    with file.open("rb") as stream, closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        for fits, judge in _JUDGES:
            if fits(content):
                return judge(content)
    return None


def _is_matroska_cut(content: mmap.mmap) -> bool | None:
    """Whether the segment ends later. (EBML numbers: as many leading zero bits as further bytes.)"""
    head = content[:_HEAD_BYTES]
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return None
    length = 9 - head[at].bit_length()
    number = int.from_bytes(head[at : at + length]) & (1 << 7 * length) - 1
    return None if number == (1 << 7 * length) - 1 else at + length + number > len(content)


def _is_riff_cut(content: mmap.mmap) -> bool | None:
    """Whether one of the pieces that an AVI file consists of (one, or more if it is long) ends later."""
    at = 0
    while content[at : at + 4] == _RIFF:
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if size in _UNKNOWN_SIZES:
            return None
        at += 8 + size + size % 2
    return at - _SLACK_BYTES > len(content)


def _is_mp4_cut(content: mmap.mmap) -> bool | None:
    """Whether the last of the boxes that follow one another ends later."""
    at = 0
    while at + 8 <= len(content) and content[at + 4 : at + 8].isalnum():
        size = int.from_bytes(content[at : at + 4])
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16])
        if size < 8:  # 0: to the end of the file
            return None
        at += size
    return at > len(content)


def _is_asf_cut(content: mmap.mmap) -> bool | None:
    """Whether the data, which follows the header, ends later."""
    at = int.from_bytes(content[16:24], "little")
    size = int.from_bytes(content[at + 16 : at + 24], "little")
    return at + size > len(content) if content[at : at + 16] == _ASF_DATA and size else None


def _is_real_media_cut(content: mmap.mmap) -> bool | None:
    """Whether one of the chunks that follow one another ends later."""
    at = 0
    while content[at : at + 4] in _REAL_MEDIA_CHUNKS:
        size = int.from_bytes(content[at + 4 : at + 8])
        if size < 8:  # live: unknown
            return None
        at += size
    return at - _SLACK_BYTES > len(content)


def _is_mxf_cut(content: mmap.mmap) -> bool | None:
    """Whether the footer would begin later, by the first partition's word. (SMPTE ST 377-1, 7.1.)"""
    length = content[16]
    value = 17 + (length & 0x7F if length & 0x80 else 0)
    footer = int.from_bytes(content[value + 24 : value + 32])
    return footer >= len(content) if footer else None


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


def _is_transport_stream_cut(content: mmap.mmap) -> bool | None:
    """Whether it ends within a packet; what follows a whole packet, and is none, is passed over."""
    _, stride = first_packets(content) or (0, PACKET_BYTES)
    for begin in range(len(content) - 1, max(len(content) - 2 * stride, 3 * stride), -1):
        if all(content[begin - before * stride] == SYNC_BYTE for before in range(4)):
            return True if begin + PACKET_BYTES > len(content) else None
    return None


def _is_ogg_cut(content: mmap.mmap) -> bool | None:
    tail = content[max(len(content) - _OGG_LONGEST_PAGE_BYTES, 0) :]
    last_page = tail.rfind(_OGG_PAGE)
    if last_page < 0:
        return None
    return not (tail[last_page:] + bytes(_OGG_FLAGS_AT + 1))[_OGG_FLAGS_AT] & _OGG_LAST_PAGE


def _begins_with(name: bytes) -> Callable[[mmap.mmap], bool]:
    return lambda content: content[: len(name)] == name


_JUDGES: tuple[tuple[Callable[[mmap.mmap], bool], Callable[[mmap.mmap], bool | None]], ...] = (
    (_begins_with(_EBML), _is_matroska_cut),
    (_begins_with(_RIFF), _is_riff_cut),
    (_begins_with(_ASF_HEADER), _is_asf_cut),
    (_begins_with(_FLV), _is_flv_cut),
    (_begins_with(_OGG_PAGE), _is_ogg_cut),
    (_begins_with(_REAL_MEDIA), _is_real_media_cut),
    (_begins_with(_MXF_PARTITION), _is_mxf_cut),
    (lambda content: content[4:8] in _FIRST_BOXES, _is_mp4_cut),
    (lambda content: first_packets(content) is not None, _is_transport_stream_cut),
)
