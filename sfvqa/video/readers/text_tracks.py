"""The subtitles inside a video file, read with PyAV: which track, and its lines. Called in the reading process."""

from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.video_track import open_container, packets_of
from sfvqa.video.subtitles.encoding import decode_texts
from sfvqa.video.subtitles.lines import Subtitles, in_order
from sfvqa.video.subtitles.parsing import rows_of

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet

_PLAIN_CODECS = {"subrip", "srt", "text", "webvtt", "mov_text"}
_MAX_BYTES = 16 * 1024**2  # of text, as in files
_BROKEN = "The text track “{track}” is damaged: its lines after {seconds:.1f} s are missing."


def read_text_track(path: Path, zero_seconds: float) -> Subtitles:
    """The lines of the file's text track, in seconds from its first frame, shown at `zero_seconds` of the container.

    Of several tracks: the one marked as default, else the first; those that translate only what is foreign (forced)
    last. A file without one gives no lines and a warning, so does one whose subtitles are pictures.
    Raises UnreadableVideoError when the file cannot be opened any more.
    """
    try:
        container = open_container(path)
    except UnreadableVideoError as error:
        raise UnreadableVideoError(
            f"“{path}” cannot be read for its subtitles.", "Copy or download it again."
        ) from error
    with container:
        tracks = [stream for stream in container.streams.subtitles if _is_text(stream)]
        if not tracks:
            has_pictures = bool(container.streams.subtitles)
            what = "subtitles are pictures, which cannot be read as text" if has_pictures else "file has no text track"
            return Subtitles((), "none", (f"The {what}: the model gets no subtitles.",))
        track = min(tracks, key=_rank)
        track.codec_context.options = {"sub_charenc_mode": "ignore"}
        return _read(container, track, zero_seconds, _choice_warnings(track, tracks))


def _is_text(stream: SubtitleStream) -> bool:
    return stream.codec_context is not None and bool(stream.codec_context.codec.text_sub)


def _rank(stream: SubtitleStream) -> tuple[bool, bool, int]:
    """The smaller, the better."""
    marks = stream.disposition
    return bool(marks & Disposition.forced), not marks & Disposition.default, stream.index


def _name(stream: SubtitleStream) -> str:
    title = stream.metadata.get("title") or stream.metadata.get("handler_name")
    parts = [stream.language or "language unknown", *([title] if title else [])]
    return f"{stream.codec_context.name}, {', '.join(parts)}"


def _choice_warnings(track: SubtitleStream, tracks: list[SubtitleStream]) -> list[str]:
    if len(tracks) == 1:
        return []
    return [f"The file has {len(tracks)} text tracks; “{_name(track)}” is used."]


def _read(container: InputContainer, track: SubtitleStream, zero_seconds: float, warnings: list[str]) -> Subtitles:
    times: list[tuple[float, float]] = []
    texts: list[bytes] = []
    num_bytes = 0
    try:
        for packet in packets_of(container, track):
            if packet.pts is None or not packet.size:
                continue
            text = _text(track, packet)
            num_bytes += len(text)
            if num_bytes > _MAX_BYTES:
                warnings.append(f"The text track is longer than {_MAX_BYTES // 1024**2} MiB; its end is left out.")
                break
            start = float(packet.pts * packet.time_base) - zero_seconds
            times.append((start, start + float((packet.duration or 0) * packet.time_base)))
            texts.append(text)
    except (av.FFmpegError, OSError, ValueError):
        warnings.append(_BROKEN.format(track=_name(track), seconds=times[-1][0] if times else 0.0))
    decoded, more = decode_texts(texts, f"The text track “{_name(track)}”")
    is_ass = track.codec_context.name not in _PLAIN_CODECS
    cues = [(*time, rows_of(text, is_ass=is_ass)) for time, text in zip(times, decoded, strict=True)]
    return Subtitles(in_order(cues), f"track {track.index} ({_name(track)})", (*warnings, *more))


def _text(track: SubtitleStream, packet: "Packet[SubtitleStream]") -> bytes:
    """What a packet says, markup and all.

    In plain formats that is as it stands in the file. FFmpeg's decoders turn all others into SubStation Alpha, the
    text of which comes after eight commas; told to ignore the encoding, they do not fail at a byte that is no UTF-8.
    """
    name = track.codec_context.name
    if name in _PLAIN_CODECS:
        data = bytes(packet)
        return data[2 : 2 + int.from_bytes(data[:2], "big")] if name == "mov_text" else data
    decoded = track.codec_context.decode2(packet)
    events = [rect.ass.split(b",", 8)[-1] for rect in decoded or () if isinstance(rect, AssSubtitle)]
    return rb"\N".join(events)
