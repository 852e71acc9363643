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
    is_strict: bool = False
    encrypted_at: set[int | None] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path, like: "Handle | None" = None) -> Self:
        """Open the file, no other file or host: at the track that players choose, or in all as another handle of it."""
        container = open_container(path)
        try:
            track = like.track if like else choose_track(path, container)
        except UnreadableVideoError:
            container.close()
            raise
        stream = container.streams[track.index]
        assert isinstance(stream, VideoStream)
        stream.thread_count = 1  # errors then belong to the packet just sent
        stream.codec_context.copy_opaque = True
        # Else columns that the bitstream cuts off at the left would stay, where memory would not be aligned.
        stream.codec_context.flags |= Flags.unaligned
        handle = cls(container, track, stream, stream.codec_context, PictureConverter(stream, track.crop))
        if like is None:
            return handle
        if like.is_watchful:
            handle = handle.with_watchful_decoder() or handle
        return handle.informed(like.damaged_at, is_strict=like.is_strict)

    def informed(self, damaged_at: frozenset[int] | None, *, is_strict: bool) -> Self:
        """This handle once the file was demuxed; only before the first picture is decoded.

        is_strict: a picture that the decoder would patch up from others is an error. Not where key frames do not start
        afresh: what is said of pictures before them cannot be followed.
        """
        if is_strict:
            self.decoder.options = {"err_detect": "explode"}
        return replace(self, damaged_at=damaged_at, is_strict=is_strict)

    @property
    def is_watchful(self) -> bool:
        """Whether it has another decoder than FFmpeg's own."""
        return self.decoder is not self.stream.codec_context

    def with_watchful_decoder(self) -> Self | None:
        """The same file with a decoder that notices damage which FFmpeg's own shows as a picture; None: there is none.

        For VP9, whose data has no checksum: libvpx notices when a picture's data ends too early or too late. It is not
        told how the picture is turned.
        """
        own = self.stream.codec_context
        try:
            decoder = av.CodecContext.create(_WATCHFUL_DECODERS[own.name], "r")
        except (KeyError, av.FFmpegError, ValueError):  # another codec, or an FFmpeg built without it
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
        if packet is None or self.is_watchful:
            return self.decoder.decode(packet)
        aspect: list[Fraction | None] = []
        packet.opaque = aspect
        try:
            return self.decoder.decode(packet)
        finally:
            aspect.append(self.decoder.sample_aspect_ratio)

    def seek(self, target: int) -> None:
        """Go to the key frame at or before `target`, in the stream's time base, with nothing left in the decoder."""
        self.container.seek(target, stream=self.stream)
        self.decoder.flush_buffers()

    def places_in_file(self) -> dict[int, int]:
        """Where each packet's data begins in an AVI file → its place there; empty where none is known.

        The packets carry no times but those that the demuxer counts: one that is lost or there twice would give all
        that follow the place of another. Where FFmpeg's index is not whole, the file itself is asked.
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
