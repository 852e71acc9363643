"""The door that every path goes through: a regular, local, non-empty file that pulls in no other file or host."""

import re
import stat
from os import PathLike
from pathlib import Path

from sfvqa.errors import UnreadableVideoError, VideoNotFoundError

# FFmpeg's names of the containers that are opened. A list of what is let in, because the formats that name other
# files or hosts (hls, concat, sdp, dash, imf, image2 patterns, …) are too many to keep a list of what is kept out.
VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,av1,flv,live_flv,asf,ogg,"
    "mxf,nut,rm,wtv,dv,gif,apng,mjpeg,yuv4mpegpipe,nsv,gxf,avs,smk,bink,swf,vc1,dirac,cavsvideo"
)
AUDIO_FORMATS = "mp3,wav,w64,flac,aac,ac3,eac3,aiff,au,caf,dts,amr,ape,wv,tta,mpc,mpc8,opus"  # opened to say so
FORMAT_WHITELIST = f"{VIDEO_FORMATS},{AUDIO_FORMATS}"
PROTOCOL_WHITELIST = "file"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters and more, so that C:/ is a path
_HEAD_BYTES = 4096
_TS_PACKET_BYTES, _TS_SYNC_BYTE = 188, 0x47
_POINTERS = {
    "an HLS playlist (m3u8)": re.compile(rb"^\s*#EXTM3U"),
    "a concat script": re.compile(rb"^\s*ffconcat version|^\s*file\s+['\"]?[^\s\0][^\n\0]*(\n|$)"),
    "a session description (sdp)": re.compile(rb"^\s*v=0\r?\n[a-z]="),
    "a DASH manifest (mpd)": re.compile(rb"^\s*(<.{0,3000})?<MPD[\s>]", re.DOTALL | re.IGNORECASE),
    "a playlist": re.compile(rb"^\s*(\[playlist\]|<\?xml[^>]*>\s*<(playlist|CompositionPlaylist)|<asx)", re.IGNORECASE),
}


def check_local_file(path: str | PathLike[str]) -> Path:
    """Return the path if it is a regular local file worth opening.

    Raises VideoNotFoundError or UnreadableVideoError; opens nothing but the file itself, and no pipe or device,
    which could keep the reader waiting for ever.
    """
    file = Path(path)
    if _URL.match(str(path)) and not _exists(file):
        raise UnreadableVideoError(
            f"“{path}” is an address, and only local files are read.", "Download the video first."
        )
    try:
        status = file.stat()
    except PermissionError as error:
        raise _no_permission(file) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise VideoNotFoundError(f"There is no file “{path}”.", "Check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableVideoError(f"“{path}” is a folder, not a video.", "Give the path of one video file.")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideoError(
            f"“{path}” is a pipe or device, not a video file.", "Save the video to a file first."
        )
    if status.st_size == 0:
        raise UnreadableVideoError(f"“{path}” is empty: it has zero bytes.", "Copy or download the video again.")
    _refuse_pointers(file)
    return file


def is_cut_transport_stream(file: Path) -> bool:
    """Whether the file is an MPEG transport stream that ends in the middle of a packet: its only sign of a lost end."""
    with file.open("rb") as stream:
        head = stream.read(_TS_PACKET_BYTES + 1)
    is_transport_stream = len(head) > _TS_PACKET_BYTES and head[0] == head[_TS_PACKET_BYTES] == _TS_SYNC_BYTE
    return is_transport_stream and file.stat().st_size % _TS_PACKET_BYTES != 0


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _no_permission(file: Path) -> UnreadableVideoError:
    return UnreadableVideoError(f"“{file}” may not be read by this user.", "Change its permissions.")


def _refuse_pointers(file: Path) -> None:
    """Refuse text formats that name other files or hosts, whatever their suffix."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    except PermissionError as error:
        raise _no_permission(file) from error
    except OSError as error:
        raise UnreadableVideoError(
            f"“{file}” cannot be read: {error.strerror}.", "Check the disk or copy the file."
        ) from error
    for kind, pattern in _POINTERS.items():
        if pattern.search(head):
            raise UnreadableVideoError(
                f"“{file}” is {kind}: it names other files or hosts, and only the file itself is read.",
                "Give the path of the video it points to.",
            )
