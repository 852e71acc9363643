"""The door that every path goes through: a local file, or folder of images, that pulls in no other file or host."""

import codecs
import errno
import re
import stat
from os import PathLike
from pathlib import Path

from sfvqa.errors import UnreadableVideoError, VideoNotFoundError
from sfvqa.video.readers.image_folder import IMAGE_SUFFIXES, names_of, other_pictures_in, pictures_in

# FFmpeg's names of the containers that are opened. A list of what is let in, because the formats that name other
# files or hosts (hls, concat, sdp, dash, imf, image2 patterns, …) are too many to keep a list of what is kept out.
# Of these only mov can name another file (a data reference), which FFmpeg does not follow unless told to.
# Left out, though they do no harm: containers of old games (avs, smk, bink), streams that only studios or archives
# have; and gif and apng, which have a reader of their own.
VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,av1,flv,swf,asf,ogg,"
    "mxf,nut,rm,wtv,dv,mjpeg,yuv4mpegpipe"
)
AUDIO_FORMATS = "mp3,wav,w64,flac,aac,ac3,eac3,aiff,au,caf,dts,amr,ape,wv,tta,mpc,mpc8,opus"  # opened to say so
FORMAT_WHITELIST = f"{VIDEO_FORMATS},{AUDIO_FORMATS}"
PROTOCOL_WHITELIST = "file"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters and more, so that C:/ is a path
_HEAD_BYTES = 4096
# No container is free of control characters for as long as a head, except one that begins with words.
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0e-\x1f]")
_RAW_VIDEO = "YUV4MPEG2 "
_LISTS = {
    "an HLS playlist (m3u8)": re.compile(r"^\s*#EXTM3U"),
    "a concat script": re.compile(r"^\s*ffconcat version|^\s*file\s+['\"]?\S", re.MULTILINE),
    "a session description (sdp)": re.compile(r"^\s*v=0\r?\n[a-z]="),
    "a DASH manifest (mpd)": re.compile(r"<MPD[\s>]", re.IGNORECASE),
    "a playlist": re.compile(
        r"^\s*\[(playlist|reference)\]|<(playlist|CompositionPlaylist|AssetMap|asx|smil)\b", re.IGNORECASE
    ),
}


def check_local_file(path: str | PathLike[str]) -> Path:
    """Return the path if it is a regular local file worth opening, or a folder with pictures in it.

    Raises VideoNotFoundError or UnreadableVideoError; opens nothing but the file itself, and no pipe or device,
    which could keep the reader waiting for ever.
    """
    refuse_address(path)
    file = Path(path)
    try:
        status = file.stat()
    except PermissionError as error:
        raise _no_permission(file) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise UnreadableVideoError(f"“{path}” is a link that leads back to itself.", "Repair the link.") from error
        raise VideoNotFoundError(f"There is no file “{path}”.", "Check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        _refuse_without_pictures(file)
        return file
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideoError(
            f"“{path}” is a pipe or device, not a video file.", "Save the video to a file first."
        )
    if status.st_size == 0:
        raise UnreadableVideoError(f"“{path}” is empty: it has zero bytes.", "Copy or download the video again.")
    _refuse_text(file)
    return file


def refuse_address(path: str | PathLike[str]) -> None:
    """Raise UnreadableVideoError for a URL; as text it is shown as it was given, which a Path of it is not any more."""
    if _URL.match(str(path)) and not _exists(Path(path)):
        raise UnreadableVideoError(
            f"“{path}” is an address, and only local files are read.", "Download the video first."
        )


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _no_permission(file: Path) -> UnreadableVideoError:
    return UnreadableVideoError(f"“{file}” may not be read by this user.", "Change its permissions.")


def _refuse_without_pictures(folder: Path) -> None:
    try:
        pictures, others = pictures_in(folder), other_pictures_in(folder)
    except PermissionError as error:
        raise _no_permission(folder) from error
    if not pictures:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        what = f" in a format that is read ({names_of(others)})" if others else ""
        raise UnreadableVideoError(
            f"“{folder}” is a folder and holds no images{what}.",
            f"Give the path of one video file, or of a folder with images in it ({kinds}).",
        )


def _refuse_text(file: Path) -> None:
    """Refuse text, whatever the suffix: it holds no picture, but may name other files or hosts."""
    text = _text_in(_head_of(file))
    if text is None:
        return
    for kind, pattern in _LISTS.items():
        if pattern.search(text):
            raise UnreadableVideoError(
                f"“{file}” is {kind}: it names other files or hosts, and only the file itself is read.",
                "Give the path of the video it points to.",
            )
    raise UnreadableVideoError(
        f"“{file}” cannot be read as a video: it is text.",
        "Give the path of a video file; a list of videos is not followed.",
    )


def _text_in(head: bytes) -> str | None:
    """The beginning of a file as text, None if it is binary."""
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
    return None if text.startswith(_RAW_VIDEO) or _CONTROL_CHARACTER.search(text) else text


def _head_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except PermissionError as error:
        raise _no_permission(file) from error
    except OSError as error:
        raise UnreadableVideoError(
            f"“{file}” cannot be read: {error.strerror}.", "Check the disk or copy the file."
        ) from error
