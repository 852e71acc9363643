"""One opened file of PyAV's with the video track that is looked at; each thread that reads has a handle of its own."""

import errno
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.container_bytes import AVI_CHUNK_HEADER_BYTES, avi_index, is_locked
from sfvqa.video.readers.picture_converter import PictureConverter
from sfvqa.video.readers.tracks import VideoTrack, choose_track, open_container

if TYPE_CHECKING:
    from fractions import Fraction

    from av.packet import Packet


_WATCHFUL_DECODERS = {"vp9": "libvpx-vp9"}


@dataclass(frozen=True, eq=False)
class Handle:
    """A container, its video stream, what decodes it and makes pictures of its frames; to be closed after use.

    `damaged_at` are the places in the file of packets that are known to be damaged; None: FFmpeg's marks are believed.
    `encrypted_at` are the times of the packets that came so far and were encrypted.
    """

    container: InputContainer
    track: VideoTrack
    stream: VideoStream
    decoder: VideoCodecContext
    converter: PictureConverter
    damaged_at: frozenset[int] | None = None
    encrypted_at: set[int | None] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path, track: VideoTrack | None = None) -> Self:
        """Open the file, no other file or host, at the track that was chosen when it was opened before, or choose."""
        container = open_container(path)
        try:
            track = track or choose_track(path, container)
        except UnreadableVideoError:
            container.close()
            raise
        stream = container.streams[track.index]
        assert isinstance(stream, VideoStream)
        stream.thread_count = 1  # errors then belong to the packet just sent
        stream.codec_context.copy_opaque = True
        # Else columns that the bitstream cuts off at the left would stay, where memory would not be aligned.
        stream.codec_context.flags |= Flags.unaligned
        return cls(container, track, stream, stream.codec_context, PictureConverter(stream, track.crop))

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

    def decode(self, packet: "Packet[VideoStream] | None") -> list[VideoFrame]:
        """Decode one packet, None: what the decoder still holds.

        Frames come later than their packets and in another order, so each carries what the bitstream says of its
        pixels' aspect, which may change in mid-stream, as its `opaque`: a list, filled as soon as that is known.
        Raises av.FFmpegError for what is damaged or encrypted.
        """
        if packet is not None and is_locked(packet):
            self.encrypted_at.add(packet.pts)
            raise av.InvalidDataError(errno.EINVAL, "encrypted")
        if packet is None or self.decoder is not self.stream.codec_context:
            return self.decoder.decode(packet)
        aspect: list[Fraction | None] = []
        packet.opaque = aspect
        try:
            return self.decoder.decode(packet)
        finally:
            aspect.append(self.decoder.sample_aspect_ratio)

    def refuse_patched_pictures(self) -> None:
        """Make a picture that the decoder would patch up from others an error; only before the first is decoded.

        Not where key frames do not start afresh: what is said of pictures before them cannot be followed.
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
        """Where each packet's data begins in an AVI file → its place there; empty where none is known.

        The packets carry no times but those that the demuxer counts: one that is lost or there twice would give all
        that follow the place of another. FFmpeg's index where it is whole; otherwise it holds what FFmpeg came upon,
        and the file itself is asked.
        """
        if self.container.format.name != "avi":
            return {}
        known = {entry.pos + AVI_CHUNK_HEADER_BYTES: place for place, entry in enumerate(self.stream.index_entries)}
        if len(known) == self.stream.frames:
            return known
        return avi_index(Path(self.container.name), self.stream.index)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self.container.close()
