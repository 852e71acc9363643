"""Whether a file is a video, told from its suffix or from how it begins; nothing of it is decoded."""

import stat
from pathlib import Path

VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".mkv", ".webm", ".avi", ".divx", ".ts", ".mts",
    ".m2t", ".m2ts", ".mpg", ".mpeg", ".mpe", ".mpv", ".m1v", ".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf",
    ".ogv", ".ogm", ".mxf", ".nut", ".rm", ".rmvb", ".wtv", ".dv", ".mjpg", ".mjpeg", ".y4m", ".ivf", ".obu",
    ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".gif", ".apng",
))  # fmt: skip
"""A file that is named so is meant to be a video, and if it is none, that is an error and no gap."""

SOUND_SUFFIXES = frozenset((
    ".m4a", ".m4b", ".mka", ".oga", ".opus", ".weba", ".wma", ".ra", ".aac", ".mp3", ".wav", ".flac",
))  # fmt: skip
"""Some of these begin as videos do."""

_ALSO_SOURCE_CODE = frozenset((".ts", ".mts"))  # of TypeScript
_HEAD_BYTES = 4096
_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"GIF87a",
    b"GIF89a",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and -2 video
    b"\x00\x00\x00\x01\x67",  # H.264: a parameter set, or the mark of a new picture before it
    b"\x00\x00\x01\x67",
    b"\x00\x00\x00\x01\x09",
    b"\x00\x00\x00\x01\x40\x01",  # H.265
    b"\x00\x00\x01\x40\x01",
    b".RMF",  # RealMedia
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01",  # MXF
    b"nut/multimedia container\x00",
    b"YUV4MPEG2 ",
    b"DKIF",  # IVF
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # WTV
)
_MOV_ATOMS = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
_NO_VIDEO_BRANDS = (b"M4A", b"M4B", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl ")
_OGG_VIDEO = (b"\x80theora", b"BBCD\x00", b"OVP80", b"\x01video\x00")
_PACKET_BYTES = (188, 192, 204)  # of an MPEG transport stream: plain, with a time before each, with a sum after each


def is_video(path: Path) -> bool:
    """Whether a file is meant to be a video by its suffix, or begins as one. Raises OSError if it cannot be read.

    GIF counts, still or not, and so do animated WebP and PNG. Pipes and devices count by their suffix, and are not
    opened.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES - _ALSO_SOURCE_CODE:
        return True
    if suffix in SOUND_SUFFIXES:
        return False
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return suffix in VIDEO_SUFFIXES
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if suffix in _ALSO_SOURCE_CODE:
        return not head or not _is_text(head)
    return begins_as_video(head, status.st_size)


def begins_as_video(head: bytes, size_bytes: int) -> bool:
    """Whether a file of this size begins as a video does; `head` has its first 4096 bytes.

    >>> begins_as_video(b"RIFF\\0\\0\\0\\0AVI LIST", 5000), begins_as_video(b"RIFF\\0\\0\\0\\0WAVEfmt ", 5000)
    (True, False)
    """
    return (
        head.startswith(_STARTS)
        or (head.startswith(b"FLV\x01") and len(head) > 4 and bool(head[4] & 1))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2))
        or (head.startswith(b"\x89PNG") and b"acTL" in head.split(b"IDAT", 1)[0])
        or (head.startswith(b"OggS") and any(mark in head for mark in _OGG_VIDEO))
        or _begins_as_mov(head, size_bytes)
        or _begins_as_transport_stream(head)
    )


def _begins_as_mov(head: bytes, size_bytes: int) -> bool:
    """An atom that fits into the file: “Be free” is none."""
    if head[4:8] not in _MOV_ATOMS:
        return False
    if head[4:8] == b"ftyp":
        return not head[8:12].startswith(_NO_VIDEO_BRANDS)
    atom_bytes = int.from_bytes(head[:4], "big")
    return atom_bytes in (0, 1) or 8 <= atom_bytes <= size_bytes


def _begins_as_transport_stream(head: bytes) -> bool:
    starts = [(packet_bytes, 4 if packet_bytes == 192 else 0) for packet_bytes in _PACKET_BYTES]
    return not _is_text(head) and any(
        len(head) > start + 4 * packet_bytes and set(head[start : start + 5 * packet_bytes : packet_bytes]) == {0x47}
        for packet_bytes, start in starts
    )


def _is_text(head: bytes) -> bool:
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
