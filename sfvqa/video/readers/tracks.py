"""Which tracks of a file are used, as players choose: the video track and the text track."""

import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import av
import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST
from sfvqa.video.subtitles import MAX_BYTES, Subtitles, decode_texts, join_cues, rows_of
from sfvqa.wording import first_few

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.packet import Packet


AnyStream = TypeVar("AnyStream", VideoStream, AudioStream, SubtitleStream)


def open_container(path: Path) -> InputContainer:
    """Open a checked local file, no other file or host; raises UnreadableVideoError."""
    options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    try:
        # Else FFmpeg mostly takes frames of JPEG for a pipe of pictures, in which its seeks land within one.
        with path.open("rb") as file:
            form = "mjpeg" if file.read(3) == b"\xff\xd8\xff" else None
        # An absolute path cannot be taken for a protocol ("concat:a.mp4").
        return av.open(str(path.absolute()), format=form, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideoError(
            f"“{path}” cannot be read as a video.",
            "Check that it is a video file and complete (mp4, mkv, webm, mov, avi, …).",
        ) from error


def packets_of(container: InputContainer, stream: AnyStream, *others: Any) -> "Iterator[Packet[AnyStream]]":
    """Yield the packets of one stream, or of several, from here to the end, and an empty one; raises av.FFmpegError."""
    packets: Any = container.demux(stream, *others)
    try:
        yield from packets
    except IndexError:
        return  # where another stream turned up on the way, PyAV looks at the end for its own of it


# --- The video track ---

# Covers, previews of chapters, tiles and layers of another track.
_NO_PICTURE_OF_ITS_OWN = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
_FOR_SOME_PEOPLE = Disposition.hearing_impaired | Disposition.visual_impaired
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


def choose_track(path: Path, container: InputContainer) -> VideoTrack:
    """Choose as players do among the tracks of the file, open as `container`, from which nothing is read.

    What moves comes before a single picture, then the track marked as default (in mp4: enabled), then the largest, then
    the first. Covers, chapter previews, tiles and layers are no choice. Raises UnreadableVideoError if none is left.
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
    chosen = next((track for track in ranked if len(ranked) > 1 and _moves(track, path)), ranked[0])
    if chosen.codec_context is None:
        raise UnreadableVideoError(
            f"The video in “{path}” is in a format that this FFmpeg cannot decode.", "Convert it to H.264."
        )
    description = _described(container, chosen.index)
    cropping, vision = _CROPPING.search(description), _DOLBY_VISION.search(description)
    warnings = []
    if len(tracks) > 1:
        others = first_few([_name(track) for track in tracks if track is not chosen])
        warnings.append(f"The file has {len(tracks)} video tracks: {_name(chosen)} is used, not {others}.")
    if vision and vision[1] in _RESHAPED_PROFILES and vision[2] == "0":
        warnings.append(
            f"The video is in Dolby Vision profile {vision[1]}, whose colours are not decoded here: they are wrong "
            "(mostly green and purple), shapes and motion are right. Convert it to HDR10 or SDR to ask about colours."
        )
    return VideoTrack(chosen.index, Crop(*map(int, cropping.groups())) if cropping else Crop(), tuple(warnings))


def _rank(track: VideoStream) -> tuple[bool, bool, bool, int, int]:
    """The smaller, the better."""
    marks, has_decoder = track.disposition, track.codec_context is not None
    area = track.width * track.height if has_decoder else 0
    return not has_decoder, not marks & Disposition.default, bool(marks & _FOR_SOME_PEOPLE), -area, track.index


def _moves(track: VideoStream, path: Path) -> bool:
    """Whether there is more than one frame, by the container's count or by looking for the second."""
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


def _name(track: VideoStream) -> str:
    if track.codec_context is None:
        return f"track {track.index} (of an unknown format)"
    marks = ", marked as default" if track.disposition & Disposition.default else ""
    codec = track.codec_context.codec.canonical_name
    return f"track {track.index} ({codec}, {track.width} × {track.height}{marks})"


def _described(container: InputContainer, index: int) -> str:
    """What FFmpeg says of one stream; it offers cropping and the kind of Dolby Vision in words alone."""
    with _LOG_LOCK, av.logging.Capture(local=False):  # its words are off, and those of other threads go nowhere
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            lines = container.dumps_format().split("\n")  # type: ignore[attr-defined]  # missing in PyAV's stub
        finally:
            av.logging.set_level(before)
    about: list[str] = []
    is_its = False
    for line in lines:
        if start := _STREAM.match(line):
            is_its = int(start[1]) == index
        if is_its:
            about.append(line)
    return "\n".join(about)


# --- The text track ---

_PLAIN_CODECS = {"subrip", "srt", "text", "webvtt", "mov_text"}


def read_text_track(path: Path, zero_seconds: float) -> Subtitles:
    """The lines of the file's text track, in seconds from its first frame, shown at `zero_seconds` of the container.

    Of several: the one marked as default, else the first; forced ones, which translate only what is foreign, last.
    A file without text gives no lines and a warning. Raises UnreadableVideoError.
    """
    with open_container(path) as container:
        streams = container.streams.subtitles
        tracks = [stream for stream in streams if stream.codec_context and stream.codec_context.codec.text_sub]
        if not tracks:
            what = "subtitles are pictures, which cannot be read as text" if streams else "file has no text track"
            return Subtitles((), "none", (f"The {what}: the model gets no subtitles.",))
        unforced = [track for track in tracks if not track.disposition & Disposition.forced] or tracks
        track = next((track for track in unforced if track.disposition & Disposition.default), unforced[0])
        track.codec_context.options = {"sub_charenc_mode": "ignore"}
        is_choice = len(tracks) > 1
        warnings = [f"The file has {len(tracks)} text tracks; “{_text_name(track)}” is used."] if is_choice else []
        return _read_lines(container, track, zero_seconds, warnings)


def _text_name(stream: SubtitleStream) -> str:
    title = stream.metadata.get("title") or stream.metadata.get("handler_name")
    parts = [stream.language or "language unknown", *([title] if title else [])]
    return f"{stream.codec_context.name}, {', '.join(parts)}"


def _read_lines(
    container: InputContainer, track: SubtitleStream, zero_seconds: float, warnings: list[str]
) -> Subtitles:
    times: list[tuple[float, float]] = []
    texts: list[bytes] = []
    num_bytes = 0
    try:
        for packet in packets_of(container, track):
            if packet.pts is None or not packet.size:
                continue
            text = _text(track, packet)
            num_bytes += len(text)
            if num_bytes > MAX_BYTES:
                warnings.append(f"The text track is longer than {MAX_BYTES // 1024**2} MiB; its end is left out.")
                break
            start = float(packet.pts * packet.time_base) - zero_seconds
            times.append((start, start + float((packet.duration or 0) * packet.time_base)))
            texts.append(text)
    except (av.FFmpegError, OSError, ValueError):
        last = times[-1][0] if times else 0.0
        warnings.append(f"The text track “{_text_name(track)}” is damaged: its lines after {last:.1f} s are missing.")
    decoded, more = decode_texts(texts, f"The text track “{_text_name(track)}”")
    is_ass = track.codec_context.name not in _PLAIN_CODECS
    cues = [(*time, rows_of(text, is_ass=is_ass)) for time, text in zip(times, decoded, strict=True)]
    return Subtitles(join_cues(cues), f"track {track.index} ({_text_name(track)})", (*warnings, *more))


def _text(track: SubtitleStream, packet: "Packet[SubtitleStream]") -> bytes:
    """What a packet says, markup and all: of plain formats as it stands in the file.

    FFmpeg's decoders turn all others into SubStation Alpha, the text of which comes after eight commas; told to ignore
    the encoding, they do not fail at a byte that is no UTF-8.
    """
    name = track.codec_context.name
    if name in _PLAIN_CODECS:
        data = bytes(packet)
        return data[2 : 2 + int.from_bytes(data[:2], "big")] if name == "mov_text" else data
    decoded = track.codec_context.decode2(packet)
    events = [rect.ass.split(b",", 8)[-1] for rect in decoded or () if isinstance(rect, AssSubtitle)]
    return rb"\N".join(events)
