"""Which of a file's video tracks is looked at, as players choose, and what its container says of how it is shown."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet

AnyStream = TypeVar("AnyStream", VideoStream, SubtitleStream)

_NO_PICTURE_OF_ITS_OWN = (
    Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
)  # covers, previews of chapters, tiles and layers of another track
_FOR_SOME_PEOPLE = Disposition.hearing_impaired | Disposition.visual_impaired
_TRACKS_NAMED = 4
_JPEG = b"\xff\xd8\xff"
# Whole lines of what FFmpeg says of a file: titles and the like, which anybody may write, are part of it, too.
_STREAM = re.compile(r" +Stream #0:(\d+)[\[(:]")
_CROPPING = re.compile(r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$", re.MULTILINE)
_DOLBY_VISION = re.compile(
    r"^ +DOVI configuration record: .*\bprofile: (\d+),.*\bcompatibility id: (\d+)", re.MULTILINE
)
_RESHAPED_PROFILES = ("5", "10", "20")  # of HEVC, AV1 and 3D; alone in having, with id 0, no picture in usual colours
_LOG_LOCK = Lock()


@dataclass(frozen=True)
class Crop:
    """Lines and columns of the stored picture that are not shown."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def within(self, width: int, height: int) -> "Crop":
        """This crop of a picture, or none if it would leave nothing, as when the size changed in mid-stream."""
        leaves_something = self.left + self.right < width and self.top + self.bottom < height
        return self if leaves_something else Crop()

    def turned(self, degrees: int) -> "Crop":
        """The same crop of the picture turned counter-clockwise (0, 90, 180, 270)."""
        sides = (self.left, self.bottom, self.right, self.top)  # each goes where the next one is
        turns = degrees // 90
        left, bottom, right, top = (sides[(place - turns) % 4] for place in range(4))
        return Crop(left, right, top, bottom)

    def apply(self, pixels: Pixels) -> Pixels:
        """[H, W, 3] → [H', W', 3]."""
        height, width = pixels.shape[:2]
        crop = self.within(width, height)
        return pixels[crop.top : height - crop.bottom, crop.left : width - crop.right]


@dataclass(frozen=True)
class VideoTrack:
    """The track that is looked at: its place among the file's streams, and what the user should know of it."""

    index: int
    crop: Crop = field(default_factory=Crop)
    warnings: tuple[str, ...] = ()


def open_container(path: Path) -> InputContainer:
    """Open a checked local file, no other file or host; raises UnreadableVideoError."""
    options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    try:
        # Else FFmpeg mostly takes frames of JPEG for a pipe of pictures, in which its seeks land within one.
        form = "mjpeg" if _begins_with_jpeg(path) else None
        # An absolute path cannot be taken for a protocol ("concat:a.mp4").
        return av.open(str(path.absolute()), format=form, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideoError(
            f"“{path}” cannot be read as a video.",
            "Check that it is a video file and complete (mp4, mkv, webm, mov, avi, …).",
        ) from error


def packets_of(container: InputContainer, stream: AnyStream) -> "Iterator[Packet[AnyStream]]":
    """Yield the stream's packets from here to the end, and an empty one; raises av.FFmpegError."""
    try:
        yield from container.demux(stream)
    except (
        IndexError
    ):  # at the end of a file in which another stream turned up on the way, PyAV looks for its own of it
        return


def _begins_with_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_JPEG)) == _JPEG


def choose_track(path: Path, container: InputContainer) -> VideoTrack:
    """Choose as players do among the tracks of the file, open as `container`, from which nothing is read.

    What moves comes before a single picture, then the track marked as default (in mp4: enabled), then the largest, then
    the first. Covers, chapter previews, tiles and layers that are nothing without another track are no choice. Raises
    UnreadableVideoError if there is no moving picture.
    """
    tracks = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURE_OF_ITS_OWN]
    if not tracks and any(stream.disposition & Disposition.dependent for stream in container.streams.video):
        raise UnreadableVideoError(
            f"“{path}” is a picture made of tiles, which PyAV cannot put together.",
            "Install what can, with “pip install pi-heif”, or convert it to JPEG.",
        )
    if not tracks:
        what = "has sound but no moving picture" if container.streams.audio else "has no moving picture"
        raise UnreadableVideoError(f"“{path}” {what}.", "Give a video file.")
    ranked = sorted(tracks, key=_rank)
    moving = ranked[0] if len(ranked) == 1 else next((track for track in ranked if _moves(track, path)), None)
    chosen = moving or ranked[0]
    if chosen.codec_context is None:
        raise UnreadableVideoError(
            f"The video in “{path}” is in a format that this FFmpeg cannot decode.", "Convert it to H.264."
        )
    description = _described(container, chosen.index)
    cropping, vision = _CROPPING.search(description), _DOLBY_VISION.search(description)
    warnings = []
    if len(tracks) > 1:
        warnings.append(_choice_warning(chosen, tracks))
    if vision and vision[1] in _RESHAPED_PROFILES and vision[2] == "0":
        warnings.append(
            f"The video is in Dolby Vision profile {vision[1]}, whose colours are not decoded here: they are wrong "
            "(mostly green and purple), shapes and motion are right. Convert it to HDR10 or SDR to ask about colours."
        )
    return VideoTrack(chosen.index, Crop(*map(int, cropping.groups())) if cropping else Crop(), tuple(warnings))


def _rank(track: VideoStream) -> tuple[bool, bool, bool, int, int]:
    """The smaller, the better."""
    marks = track.disposition
    return (
        track.codec_context is None,  # no decoder
        not marks & Disposition.default,
        bool(marks & _FOR_SOME_PEOPLE),
        -_area(track),
        track.index,
    )


def _area(track: VideoStream) -> int:
    return track.width * track.height if track.codec_context is not None else 0


def _moves(track: VideoStream, path: Path) -> bool:
    """Whether there is more than one frame, by the container's count or else by looking for the second."""
    if track.frames:
        return track.frames > 1
    try:
        with open_container(path) as container:
            stream = container.streams[track.index]
            assert isinstance(stream, VideoStream)
            packets = packets_of(container, stream)
            return len(list(islice((packet for packet in packets if packet.size), 2))) > 1
    except (av.FFmpegError, UnreadableVideoError, IndexError):
        return False


def _choice_warning(chosen: VideoStream, tracks: Sequence[VideoStream]) -> str:
    others = [_name(track) for track in tracks if track is not chosen]
    named = ", ".join(others[:_TRACKS_NAMED]) + (", …" if len(others) > _TRACKS_NAMED else "")
    return f"The file has {len(tracks)} video tracks: {_name(chosen)} is looked at, not {named}."


def _name(track: VideoStream) -> str:
    if track.codec_context is None:
        return f"track {track.index} (of an unknown format)"
    marks = ", marked as default" if track.disposition & Disposition.default else ""
    codec = track.codec_context.codec.canonical_name
    return f"track {track.index} ({codec}, {track.width} × {track.height}{marks})"


def _described(container: InputContainer, index: int) -> str:
    """What FFmpeg says of one stream; it offers cropping and the kind of Dolby Vision in words alone."""
    with _ffmpeg_talking():
        lines = container.dumps_format().split("\n")  # type: ignore[attr-defined]  # missing in PyAV's stub
    about: list[str] = []
    is_its = False
    for line in lines:
        if start := _STREAM.match(line):
            is_its = int(start[1]) == index
        if is_its:
            about.append(line)
    return "\n".join(about)


@contextmanager
def _ffmpeg_talking() -> Iterator[None]:
    """Let FFmpeg's words come, which are off; those of other threads go nowhere."""
    with _LOG_LOCK, av.logging.Capture(local=False):
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            yield
        finally:
            av.logging.set_level(before)
