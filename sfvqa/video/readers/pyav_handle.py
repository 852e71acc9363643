"""One opened file of PyAV's with its first moving picture; a thread that reads has a handle of its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.avi_index import CHUNK_HEADER_BYTES, places_by_position
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST
from sfvqa.video.readers.picture_converter import PictureConverter

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
    from av.packet import Packet

_WATCHFUL_DECODERS = {"vp9": "libvpx-vp9"}


@dataclass(frozen=True, eq=False)
class Handle:
    """A container, its video stream, what decodes it and makes pictures of its frames; to be closed after use.

    `damaged_at` are the places in the file of packets that are known to be damaged; None: FFmpeg's marks are believed.
    """

    container: InputContainer
    stream: VideoStream
    decoder: VideoCodecContext
    converter: PictureConverter
    damaged_at: frozenset[int] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file, no other file or host, and pick its first moving picture (not a cover image)."""
        options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
        try:
            # An absolute path cannot be taken for a protocol ("concat:a.mp4").
            container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideoError(
                f"“{path}” cannot be read as a video.",
                "Check that it is a video file and complete (mp4, mkv, webm, mov, avi, …).",
            ) from error
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            has_sound = bool(container.streams.audio)
            container.close()
            what = "has sound but no moving picture" if has_sound else "has no moving picture"
            raise UnreadableVideoError(f"“{path}” {what}.", "Give a video file.")
        stream = streams[0]
        if stream.codec_context is None:
            container.close()
            raise UnreadableVideoError(
                f"The video in “{path}” is in a format that this FFmpeg cannot decode.", "Convert it to H.264."
            )
        stream.thread_count = 1  # errors then belong to the packet just sent
        return cls(container, stream, stream.codec_context, PictureConverter(stream))

    def with_watchful_decoder(self) -> Self | None:
        """The same file with a decoder that notices damage which FFmpeg's own shows as a picture; None: there is none.

        For VP9, whose data has no checksum: libvpx notices when a picture's data ends too early or too late. It is not
        told how the picture is turned.
        """
        own = self.stream.codec_context
        if own.name not in _WATCHFUL_DECODERS:
            return None
        try:
            decoder = av.CodecContext.create(_WATCHFUL_DECODERS[own.name], "r")
        except (av.FFmpegError, ValueError):  # an FFmpeg built without it
            return None
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_count = 1
        # What only the container may say.
        for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(decoder, name, getattr(own, name))
        return replace(self, decoder=decoder)

    def refuse_patched_pictures(self) -> None:
        """Make a picture that the decoder would patch up from others an error; only before the first is decoded.

        Not for files with open groups: after a seek to one its first pictures miss what they depend on.
        """
        self.decoder.options = {"err_detect": "explode"}

    def is_damaged(self, packet: "Packet[VideoStream]") -> bool:
        """Whether a packet is known to have lost something."""
        return packet.is_corrupt if self.damaged_at is None else packet.pos in self.damaged_at

    def seek(self, target: int) -> None:
        """Go to the key frame at or before `target`, in the stream's time base, with nothing left in the decoder."""
        self.container.seek(target, stream=self.stream)
        self.decoder.flush_buffers()

    def places_in_file(self) -> dict[int, int]:
        """Where each packet's data begins in an AVI file → its place there (see avi_index); empty where none is known.

        FFmpeg's index where it is whole; what it has otherwise is what it came upon, and the file itself is asked.
        """
        if self.container.format.name != "avi":
            return {}
        known = {entry.pos + CHUNK_HEADER_BYTES: place for place, entry in enumerate(self.stream.index_entries)}
        if len(known) == self.stream.frames:
            return known
        return places_by_position(Path(self.container.name), self.stream.index)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self.container.close()
