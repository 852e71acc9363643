"""Signs in the bytes of a file that its end is missing, for containers whose times and counts do not tell."""

from pathlib import Path

_TS_PACKET_BYTES, _TS_SYNC_BYTE = 188, 0x47
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_OGG_PAGE, _OGG_FLAGS_AT, _OGG_LAST_PAGE, _OGG_LONGEST_PAGE_BYTES = b"OggS", 5, 4, 65_307
_HEAD_BYTES = 4096


def is_cut(file: Path) -> bool:
    """Whether the file is an MPEG transport stream, Matroska or Ogg file that is shorter than it says it is.

    A transport stream ends with a whole packet, a Matroska file where its segment does (if it says where), and an Ogg
    file with a page that is marked as the last.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(max(size - _OGG_LONGEST_PAGE_BYTES, 0))
        tail = stream.read() if head.startswith(_OGG_PAGE) else b""
    if len(head) > _TS_PACKET_BYTES and head[0] == head[_TS_PACKET_BYTES] == _TS_SYNC_BYTE:
        return size % _TS_PACKET_BYTES != 0
    if head.startswith(_EBML):
        return size < _end_of_segment(head)
    last_page = tail.rfind(_OGG_PAGE)
    return last_page >= 0 and not (tail[last_page:] + bytes(_OGG_FLAGS_AT + 1))[_OGG_FLAGS_AT] & _OGG_LAST_PAGE


def _end_of_segment(head: bytes) -> int:
    """Where the segment ends, 0 if unknown. (EBML numbers: as many leading zero bits as further bytes.)"""
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return 0
    length = 9 - head[at].bit_length()
    number = int.from_bytes(head[at : at + length]) & (1 << 7 * length) - 1
    return 0 if number == (1 << 7 * length) - 1 else at + length + number
