"""The subtitles inside a video file, read with PyAV: which track, and its lines. Called in the reading process."""

from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST
from sfvqa.video.subtitles.lines import Subtitles, in_order
from sfvqa.video.subtitles.parsing import without_markup

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet

_MAX_BYTES = 16 * 1024**2  # of text, as in files
_BROKEN = "The text track “{track}” is damaged: its lines after {seconds:.1f} s are missing."


def read_text_track(path: Path, zero_seconds: float) -> Subtitles:
    """The lines of the file's text track, in seconds from its first frame, shown at `zero_seconds` of the container.

    Of several tracks: the one marked as default, else the first; those that translate only what is foreign (forced)
    last. A file without one gives no lines and a warning, so does one whose subtitles are pictures. Everything is
    opened under the whitelists of local_file. Raises UnreadableVideoError when the file cannot be opened any more.
    """
    options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    try:
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
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
    cues: list[tuple[float, float, list[str]]] = []
    seconds, num_bytes = 0.0, 0
    try:
        for packet in container.demux(track):
            if packet.pts is None or not packet.size:
                continue
            start = float(packet.pts * packet.time_base) - zero_seconds
            end = start + float((packet.duration or 0) * packet.time_base)
            rows = _rows(track, packet)
            num_bytes += sum(map(len, rows))
            if num_bytes > _MAX_BYTES:
                warnings.append(f"The text track is longer than {_MAX_BYTES // 1024**2} MiB; its end is left out.")
                break
            cues.append((start, end, rows))
            seconds = end
    except (av.FFmpegError, OSError, ValueError):
        warnings.append(_BROKEN.format(track=_name(track), seconds=seconds))
    return Subtitles(in_order(cues), f"track {track.index} ({_name(track)})", tuple(warnings))


def _rows(track: SubtitleStream, packet: "Packet[SubtitleStream]") -> list[str]:
    """The rows of text in one packet, whatever the format: FFmpeg's decoders turn all of them into one."""
    decoded = track.codec_context.decode2(packet)
    texts = [rect.dialogue for rect in decoded or () if isinstance(rect, AssSubtitle)]
    return [without_markup(row) for text in texts for row in text.decode("utf-8", errors="replace").splitlines()]
