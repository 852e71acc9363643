"""One file opened with PyAV, and two ways to reach the wanted frames in it: by group (one seek) and in order.

Both leave out every frame that cannot be vouched for: after a damaged packet nothing is believed until the next key
frame. Errors are caught a packet at a time.
"""

import errno
from collections.abc import Generator, Sequence, Set
from contextlib import closing
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
from sfvqa.video.readers.frame_table import DecoderStates, FrameTable
from sfvqa.video.readers.picture_converter import PictureConverter
from sfvqa.video.readers.tracks import VideoTrack, choose_track, open_container, packets_of

if TYPE_CHECKING:  # Packet can be subscripted by type checkers only
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


# --- The two ways ---

_SEEKS_TO_EARLIER_KEYS = 3
_EARLIER_STARTS = 3
_PROGRESSIVE = (0, 1)  # AV_FIELD_UNKNOWN, AV_FIELD_PROGRESSIVE


@dataclass(frozen=True)
class Damage:
    """Stands for the frames of a group that are lost; those that precede it in decoding order are sound."""

    pts: int | None  # of the packet that cost them, if one did


def can_be_entered(handle: Handle, table: FrameTable) -> bool:
    """Whether seeking leads to the first key frame: some containers have no index, some that of a single frame."""
    with closing(_packets_from(handle, table, 0)) as packets:
        return next(packets, None) is not None


def read_group(
    handle: Handle, table: FrameTable, place: int, group: Sequence[int]
) -> Generator[tuple[int, VideoFrame | Damage]]:
    """Yield (index, frame) in order for the wanted frames `group`, all of which hang on the key frame at `place`.

    One seek; frames are matched by presentation time, never by counting. Some key frames are none quite (where a
    picture is refreshed part by part): if a frame is missing without damage, decoding starts again one earlier. Those
    that are lost come last.
    """
    left = list(group)
    damage = Damage(None)
    earliest = max(place - _EARLIER_STARTS, 0)
    for start in range(place, earliest - 1, -1):
        given, found = yield from _attempt(handle, table, start, left, may_skip=start == earliest)
        left = [index for index in left if index not in given]
        if found.pts is not None and found.pts >= table.keys[place].pts:
            damage = found  # what an earlier group has lost is no reason for what this one lacks
        if not left or found.pts is not None:
            break
    for index in left:
        yield index, damage


def _attempt(
    handle: Handle, table: FrameTable, start: int, wanted: Sequence[int], *, may_skip: bool
) -> Generator[tuple[int, VideoFrame | Damage], None, tuple[set[int], Damage]]:
    """Decode from the key frame at `start`, up to the first wanted frame that is missing without damage.

    may_skip: go on after such a frame.
    """
    damage = Damage(None)
    expected = list(wanted)
    index_at = {table.times[index]: index for index in wanted}
    given: set[int] = set()
    with closing(_wanted_frames(handle, table, start, index_at.keys())) as frames:
        for frame in frames:
            if isinstance(frame, Damage):
                damage = frame
                continue
            index = index_at[frame.pts or 0]
            if index not in expected:  # a decoder gives frames as they are shown, whatever else: this one is not sound
                return given, Damage(frame.pts)
            if index != expected[0] and not may_skip and damage.pts is None:
                break
            del expected[: expected.index(index) + 1]
            given.add(index)
            yield index, frame
    return given, damage


def read_in_order(handle: Handle) -> Generator[tuple[int, VideoFrame]]:
    """Decode from here to the end and yield (place, frame) for every frame that can be vouched for, as they are shown.

    The place counts frames; after damage it goes on at the packet that decoding goes on at, so that it stays true.
    """
    places_in_file = handle.places_in_file()
    states = DecoderStates()
    waiting_for_key, place, expected = False, 0, 0
    with closing(_demux_quietly(handle)) as packets:
        for packet in packets:
            number = places_in_file.get(packet.pos or 0) if places_in_file and packet.size else expected
            if number != expected:  # the demuxer lost one without a word, or took something else for one
                handle.decoder.flush_buffers()
                waiting_for_key = True
            if number is None:
                continue
            expected = number + 1
            state = states.before(packet)
            if waiting_for_key:
                if not packet.is_keyframe:
                    continue
                state.hand_over(handle.decoder, packet)
                waiting_for_key, place = False, max(place, number)
            frames, is_whole = _decode(handle, packet)
            holds_back = handle.decoder.has_b_frames
            if packet.size and not (frames or holds_back or packet.is_discard):
                is_whole = False  # this one's picture is lost
            for frame in frames:
                if frame.is_corrupt:
                    is_whole = False
                    break
                yield place, frame
                place += 1
            if not is_whole and packet.size:
                # What the decoder still holds may have gaps: drop it, and wait for the next key frame.
                handle.decoder.flush_buffers()
                waiting_for_key = True


def read_group_start(handle: Handle, table: FrameTable, place: int) -> Generator[VideoFrame]:
    """Yield every sound frame that the decoder gives from the key frame at `place` on, up to the first damage."""
    handle.decoder.skip_frame = "DEFAULT"
    with closing(_packets_from(handle, table, place)) as packets:
        for packet in packets:
            frames, is_whole = _decode(handle, packet)
            for frame in frames:
                if frame.is_corrupt:
                    return
                if frame.pts is None or frame.pts >= table.keys[place].pts:
                    yield frame
            if not is_whole:
                return


def _wanted_frames(handle: Handle, table: FrameTable, place: int, wanted: Set[int]) -> Generator[VideoFrame | Damage]:
    """Yield every frame shown at the `wanted` times, all of which hang on the key frame at `place`.

    Damage ends it: after it come only those that the decoder still holds, which precede it in decoding order.
    """
    context = handle.decoder
    # Unwanted frames that no other needs are passed over (not if interlaced: half of a wanted one could be lost).
    passed_over = "NONREF" if context.field_order in _PROGRESSIVE else "DEFAULT"
    not_yet_sent = set(wanted)
    with closing(_packets_from(handle, table, place)) as packets:
        for packet in packets:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else passed_over  # type: ignore[assignment]
            frames, is_whole = _decode(handle, packet)
            not_yet_sent.discard(packet.pts or 0)
            is_last = not is_whole or not not_yet_sent
            if is_last:
                # All that is wanted is in the decoder, or all that is sound: take it out and send no more.
                frames = frames + _decode(handle, None)[0]
            if not is_whole:
                yield Damage(packet.pts)
            for frame in frames:
                if frame.is_corrupt:
                    yield Damage(frame.pts)
                    return
                if frame.pts in wanted and (is_whole or frame.pts != packet.pts):
                    yield frame
            if is_last:
                return


def _packets_from(handle: Handle, table: FrameTable, place: int) -> Generator["Packet[VideoStream]"]:
    """Yield the packets from the key frame at `place` on, wherever the container's seek really lands."""
    key = table.keys[place]
    earlier = [before.pts for before in reversed(table.keys[max(place - _SEEKS_TO_EARLIER_KEYS, 0) : place])]
    # Some demuxers seek by decode time, so a seek to the presentation time may land too late: then try further back.
    for target in dict.fromkeys([key.pts, key.dts or key.pts, *earlier, min(table.keys[0].pts, 0)]):
        try:
            handle.seek(target)
        except av.FFmpegError:
            continue
        with closing(_demux_quietly(handle)) as packets:
            for packet in packets:
                if packet.is_keyframe and packet.pts is not None and packet.pts >= key.pts:
                    break
            else:
                continue
            if packet.pts == key.pts:
                key.state.hand_over(handle.decoder, packet)
                yield packet
                yield from packets
                return


def _demux_quietly(handle: Handle) -> Generator["Packet[VideoStream]"]:
    """Demux to the end, or to where the file cannot be read further; the frame table already says where that is."""
    try:
        yield from packets_of(handle.container, handle.stream)
    except av.FFmpegError:
        return


def _decode(handle: Handle, packet: "Packet[VideoStream] | None") -> tuple[list[VideoFrame], bool]:
    """Decode one packet (None: what the decoder still holds): the frames that come out, and whether it was whole."""
    if packet is not None and (packet.is_corrupt if handle.damaged_at is None else packet.pos in handle.damaged_at):
        return [], False
    try:
        return handle.decode(packet), True
    except av.FFmpegError:
        return [], False
