"""One demux pass, nothing decoded: when each frame is shown, where decoding can start, where the file breaks off.

An mp4's own index holds decode times and is not used. Times are whole numbers in the stream's time base.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet, PacketSideData
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from sfvqa.errors import UsageError
from sfvqa.video.readers import DEEPEST_REORDERING
from sfvqa.video.readers.container_bytes import damaged_pictures, is_cut
from sfvqa.video.readers.tracks import packets_of
from sfvqa.video.sampling import parse_time

if TYPE_CHECKING:
    from sfvqa.video.readers.seeking import Handle


# --- What a decoder that starts in the middle must be told ---

_NEW_HEADERS = "new_extradata"
_SAID_ONCE = frozenset({"palette", _NEW_HEADERS, "display_matrix", "mastering_display_metadata", "content_light_level"})
_LENGTH_PREFIXED = b"\x01"  # H.264 and HEVC in mp4 and the like begin their headers so; other streams have start codes


@dataclass(frozen=True)
class DecoderState:
    """What a file says once, before a packet: the demuxer's side data, headers from within the stream."""

    side_data: tuple[PacketSideData, ...] = ()
    headers: bytes = b""  # where the packet has none of its own

    @property
    def has_new_headers(self) -> bool:
        """Whether the headers are others than those that a decoder begins with."""
        return bool(self.headers) or any(data.data_type == _NEW_HEADERS for data in self.side_data)

    def hand_over(self, decoder: VideoCodecContext, packet: "Packet[VideoStream]") -> None:
        """Tell it to a decoder that goes on with this packet after a seek or damage."""
        if self.headers:
            try:
                decoder.decode(Packet(self.headers))
            except av.FFmpegError:  # there is no picture in it
                decoder.flush_buffers()
        for data in self.side_data:
            data.to_packet(packet)  # type: ignore[arg-type]  # a packet of any stream


NOTHING_SAID = DecoderState()


class DecoderStates:
    """Follows the packets of a stream from its start, and knows the state that each needs.

    With a `stream` it also looks into key frames, whose data are then used up.
    """

    def __init__(self, stream: VideoStream | None = None) -> None:
        self._side_data: tuple[PacketSideData, ...] = ()
        self._header_filter = None if stream is None else _header_filter(stream)
        self._headers: list[bytes] = []

    def before(self, packet: "Packet[VideoStream]") -> DecoderState:
        """The state that the next packet of the file needs."""
        said = [data for data in packet.iter_sidedata() if data.data_type in _SAID_ONCE]
        if said:
            kinds = {data.data_type for data in said}
            self._side_data = (*(data for data in self._side_data if data.data_type not in kinds), *said)
        headers = self._headers_before(packet) if packet.is_keyframe else b""
        return DecoderState(self._side_data, headers)

    def _headers_before(self, packet: "Packet[VideoStream]") -> bytes:
        """The headers in force, where the packet has none itself; nothing as long as the first ones are."""
        if self._header_filter is None:
            return b""
        side_data = (data for filtered in self._header_filter.filter(packet) for data in filtered.iter_sidedata())
        own = b"".join(bytes(data) for data in side_data if data.data_type == _NEW_HEADERS)
        if own and own not in self._headers[-1:]:
            self._headers.append(own)
        return self._headers[-1] if len(self._headers) > 1 and not own else b""


def _header_filter(stream: VideoStream) -> BitStreamFilterContext | None:
    """What finds headers within the stream; None for a codec, or a way to store it, that has none there."""
    if (stream.codec_context.extradata or b"").startswith(_LENGTH_PREFIXED):
        return None
    try:
        return BitStreamFilterContext("extract_extradata", stream)
    except (av.FFmpegError, ValueError):
        return None


_SLICE, _SLICE_OF_IDR = 1, 5  # ITU-T H.264, table 7-1
_FIRST_SLICES = tuple(f"1{kind}" for kind in ("1", "00110", "011", "0001000"))  # P and I, each in two ways
_HEAD_BYTES = 1 << 16  # headers and messages come before the first slice


def starts_afresh(packet: "Packet[VideoStream]", context: VideoCodecContext) -> bool:
    """Whether nothing after this key frame speaks of what comes before it; true of all but H.264.

    Of H.264 it is false only if the first slice is plainly that of a picture which is no IDR picture and which others
    refer to (as where pictures are refreshed part by part): a strict decoder that began with it would take references
    to earlier pictures for damage. What damage made of a slice says nothing.
    """
    if context.name != "h264":
        return True
    head = bytes(memoryview(packet)[:_HEAD_BYTES])
    units = (head[at : at + 2] for at in _units(head, context.extradata or b""))
    first = next((unit for unit in units if unit[0] & 0x1F in (_SLICE, _SLICE_OF_IDR)), b"")
    # By 7.3.1 and 7.3.3: a bit that is 0, two of importance, the kind; then `1` for macroblock 0, and the type.
    if len(first) < 2 or first[0] & 0x9F != _SLICE or not first[0] & 0x60:
        return True
    return not f"{first[1]:08b}".startswith(_FIRST_SLICES)


def _units(data: bytes, headers: bytes) -> Iterator[int]:
    """Where each unit of H.264 begins: behind its length, whose size the headers name, or behind a start code."""
    if not headers.startswith(_LENGTH_PREFIXED) or len(headers) < 5:
        yield from (match.end() for match in re.finditer(rb"\x00\x00\x01(?=.)", data, re.DOTALL))
        return
    at, length_bytes = 0, (headers[4] & 3) + 1
    while at + length_bytes < len(data):
        yield at + length_bytes
        at += length_bytes + int.from_bytes(data[at : at + length_bytes])


# --- The pass ---


@dataclass(frozen=True)
class PacketTimes:
    """What is kept of one packet; `state` is what a decoder that starts with it must have been told."""

    pts: int | None
    dts: int | None
    duration: int  # 0 where the container has none
    is_key: bool
    is_shown: bool  # not marked to be discarded (edit lists), not an invisible reference frame
    is_corrupt: bool  # by FFmpeg's mark
    state: DecoderState = NOTHING_SAID
    starts_afresh: bool = True  # of a key frame: what follows speaks of nothing before it
    position: int = -1  # where its data begins in the file, if that is known


@dataclass(frozen=True)
class KeyFrame:
    """A frame that needs no other one: decoding can start here, once the decoder was told its `state`."""

    pts: int
    dts: int | None
    state: DecoderState = NOTHING_SAID


@dataclass(frozen=True)
class FrameTable:
    """Every sound frame; both lists increase and `keys` starts at or before `times[0]`."""

    times: tuple[int, ...]
    keys: tuple[KeyFrame, ...]
    num_before: int = 0  # frames before the first key frame, which cannot be decoded

    @property
    def key_frames(self) -> tuple[int, ...]:
        """Places in `times` of the key frames that are shown."""
        starts = {key.pts for key in self.keys}
        return tuple(index for index, time in enumerate(self.times) if time in starts)

    @property
    def has_new_headers(self) -> bool:
        """Whether the codec's headers change within the file."""
        return any(key.state.has_new_headers for key in self.keys)

    def groups(self, indices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Group frame indices (sorted) by the place in `keys` of the key frame that decoding has to start from."""
        starts = [key.pts for key in self.keys]
        groups = groupby(indices, lambda index: bisect_right(starts, self.times[index]) - 1)
        return [(place, list(group)) for place, group in groups]


@dataclass(frozen=True)
class Demuxed:
    """The outcome of the demux pass; `packets` stand in file order.

    `last_duration` is how long the last frame is shown; `claimed_seconds` is the length that the container names;
    `ends_early`: the file was cut off; `skips_packets`: the demuxer passed over damaged ones, so that in an AVI file
    all that follow have others' times; `damaged_at` is what a Handle should know of damage.
    """

    packets: tuple[PacketTimes, ...]
    last_duration: int
    claimed_seconds: float
    ends_early: bool
    skips_packets: bool
    damaged_at: frozenset[int] | None = None

    @property
    def decode_times(self) -> list[int]:
        """When each packet is to be decoded; empty unless all say so, in increasing order."""
        times = [packet.dts for packet in self.packets if packet.dts is not None]
        return times if len(times) == len(self.packets) and increases(times) else []

    @property
    def starts_afresh(self) -> bool:
        """Whether what follows a key frame never speaks of what comes before it."""
        return all(packet.starts_afresh for packet in self.packets)


def demux(handle: "Handle", path: Path) -> Demuxed:
    """Read every packet of the video once; what cannot be read any more ends the pass without an error."""
    container, stream = handle.container, handle.stream
    packets: list[PacketTimes] = []
    states = DecoderStates(stream)
    places, count = handle.places_in_file(), 0
    failed = skips_packets = False
    try:
        for packet in packets_of(container, stream):
            if packet.size:  # the last one is empty
                packets.append(_kept(packet, stream.codec_context, states))
            skips_packets = skips_packets or bool(places and packet.size and places.get(packet.pos or 0) != count)
            count += 1
    except av.FFmpegError:
        failed = True
    damaged_at = damaged_pictures(path, packets) if container.format.name == "mpegts" else None
    # What proves that a file was cut off is no duration, which may be the sound's, a tag's, or a guess.
    last_is_damaged = bool(packets) and packets[-1].is_corrupt and damaged_at is None
    has_all_counted = 0 < stream.frames <= len(packets)
    ends_early = failed or last_is_damaged or (is_cut(path) and not has_all_counted)
    claimed_seconds = _claimed_seconds(container, stream)
    return Demuxed(tuple(packets), _last_duration(packets), claimed_seconds, ends_early, skips_packets, damaged_at)


def _kept(packet: "Packet[VideoStream]", context: VideoCodecContext, states: DecoderStates) -> PacketTimes:
    is_shown = not packet.is_discard
    if context.name == "vp8":
        # VP8 frame tag (RFC 6386, 9.1): bit 4 of the first byte says whether the frame is shown.
        is_shown = is_shown and bool(memoryview(packet)[0] & 0x10)
    return PacketTimes(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        is_key=packet.is_keyframe,
        is_shown=is_shown,
        is_corrupt=packet.is_corrupt,
        starts_afresh=not packet.is_keyframe or starts_afresh(packet, context),
        position=-1 if packet.pos is None else packet.pos,
        state=states.before(packet),  # at the end: the packet is used up
    )


def _last_duration(packets: Sequence[PacketTimes]) -> int:
    """How long the last frame is shown: the usual step if it does not say."""
    shown = sorted((packet.pts, packet.duration) for packet in packets if packet.pts is not None and packet.is_shown)
    if not shown:
        return 0
    steps = sorted(later - earlier for (earlier, _), (later, _) in pairwise(shown))
    return shown[-1][1] or (steps[len(steps) // 2] if steps else 0)


def _claimed_seconds(container: InputContainer, stream: VideoStream) -> float:
    """What the container says about its length (0 if nothing): of the video if it can, else of the whole."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # FFmpeg fits an AVI's duration to the file's size
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    with suppress(UsageError):
        return parse_time(stream.metadata.get("DURATION", ""))  # matroska: 00:00:20.000000000
    return (container.duration or 0) / av.time_base


# --- The table ---


def build_table(demuxed: Demuxed) -> FrameTable | None:
    """Build the table of frames to choose from, without the incomplete group at the end of a file that was cut off.

    None if the packets carry no usable presentation times (AVI, elementary streams, times that jump back or repeat).
    """
    packets = _without_unplaced(demuxed.packets)
    if not packets or demuxed.skips_packets or any(packet.pts is None for packet in packets):
        return None
    places = [place for place, packet in enumerate(packets) if packet.is_key] or [0]
    last_place = len(packets)
    if demuxed.ends_early:
        # One frame next to a cut was seen to be wrong without being flagged, so the group goes; where it is the only
        # group, its packets before the last one are whole and each depends on earlier ones only (see _before_gaps).
        last_place = places[-1] if len(places) > 1 else len(packets) - 1
    key_packets = [packets[place] for place in places if place < last_place]
    candidates = [KeyFrame(packet.pts or 0, packet.dts, packet.state) for packet in key_packets]
    follows_edits = any(not packet.is_shown for packet in packets)  # an edit list may show a piece again
    keys = _increasing(candidates, may_ignore=not follows_edits)
    if keys is None:
        return None
    if not keys:
        return FrameTable((), ())
    starts = [key.pts for key in keys]
    times = sorted(
        packet.pts
        for packet in packets[places[0] : last_place]
        if packet.is_shown and packet.pts is not None and packet.pts >= starts[0]
    )
    if not increases(times):
        return None  # a time that two frames share names neither
    if demuxed.ends_early and len(places) == 1:
        times = _before_gaps(times, packets[-1])
    before = [packet for place, packet in enumerate(packets) if place < places[0] or (packet.pts or 0) < starts[0]]
    num_before = sum(packet.is_shown for packet in before) + len(demuxed.packets) - len(packets)
    return FrameTable(tuple(times), tuple(keys), num_before)


def increases(times: Sequence[int]) -> bool:
    """Whether each is later than the one before."""
    return all(earlier < later for earlier, later in pairwise(times))


def _without_unplaced(packets: Sequence[PacketTimes]) -> list[PacketTimes]:
    """Leave out what directly follows the first key frame with no time, or with that one's.

    In a piece cut out of an open group these are shown before the key frame and cannot be decoded, and a container
    that knows no times below zero has none for them.
    """
    first = next((place for place, packet in enumerate(packets) if packet.is_key), 0)
    rest = list(packets[first + 1 :])
    num_unplaced = next((n for n, packet in enumerate(rest) if packet.pts not in (None, packets[first].pts)), 0)
    return [*packets[: first + 1], *rest[num_unplaced:]]


def _increasing(keys: Sequence[KeyFrame], *, may_ignore: bool) -> list[KeyFrame] | None:
    """The key frames whose times increase; None if times jump back.

    In damaged data a parser may take any packet for a key frame: those whose times go to and fro within a group are
    ignored where they may be.
    """
    kept: list[KeyFrame] = []
    for key in keys:
        if not kept or key.pts > kept[-1].pts:
            kept.append(key)
        elif not may_ignore or len(kept) < 2 or key.pts <= kept[-2].pts:
            return None
    return kept


def _before_gaps(times: list[int], last_packet: PacketTimes) -> list[int]:
    """Drop the frames of a cut group that a lost one may come before: those shown after the last packet is decoded.

    A frame is shown no earlier than it is decoded, and a lost one would have been decoded later than the last packet.
    """
    if last_packet.dts is None:
        return times[:-DEEPEST_REORDERING]
    return times[: bisect_right(times, last_packet.dts)]
