"""`python -m sfvqa.lab.measurements.find_events`: what `find` finds of the known events of a recording.

A moment is right if its best time lies within a second of an event. Beside it, 64 frames over the whole recording: the
frame that the model then looked at most, if it says yes. What is decoded is counted, and timed against decoding all of
the file once, in one run and thread.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from sfvqa.checkpoints.device import peak_memory_bytes
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.moments import FindOptions, log_odds, question_about
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.long_recording import Event
from sfvqa.video import ReadOptions, SamplingOptions
from sfvqa.video.readers.seeking import Handle

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

_NEAR_SECONDS = 1.0
_NUM_UNIFORM = 64


@dataclass
class Decoded:
    """Frames that came out of decoders, and the seconds of CPU time that went into them."""

    frames: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Search:
    """What one way of searching found and cost."""

    name: str
    found_seconds: tuple[float, ...]
    num_seen: int
    decoded: Decoded
    wall_seconds: float
    peak_memory_bytes: int | None

    def num_right(self, events: Sequence[Event]) -> int:
        """How many of the times are within a second of an event."""
        return sum(any(is_near(found, event) for event in events) for found in self.found_seconds)

    def num_found(self, events: Sequence[Event]) -> int:
        """How many of the events have one of the times within a second."""
        return sum(any(is_near(found, event) for found in self.found_seconds) for event in events)


def is_near(seconds: float, event: Event) -> bool:
    """Whether it is within an event, or a second before or after it.

    >>> [is_near(seconds, Event(10.0, 12.0)) for seconds in (8.9, 9.0, 13.0, 13.1)]
    [False, True, True, False]
    """
    return event.start_seconds - _NEAR_SECONDS <= seconds <= event.end_seconds + _NEAR_SECONDS


@contextmanager
def counting() -> Iterator[Decoded]:
    """Count what is decoded in this process while the block runs."""
    decoded, decode = Decoded(), Handle.decode

    def counted(handle: Handle, packet: Any) -> list[Any]:
        began = time.thread_time()
        frames = decode(handle, packet)
        decoded.seconds += time.thread_time() - began
        decoded.frames += len(frames)
        return frames

    Handle.decode = counted  # type: ignore[method-assign, assignment]
    try:
        yield decoded
    finally:
        Handle.decode = decode  # type: ignore[method-assign]


def decode_all(video: Path) -> Decoded:
    """Decode every frame of a file once, in one thread."""
    decoded = Decoded()
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        began = time.thread_time()
        decoded.frames = sum(1 for _ in container.decode(stream))
        decoded.seconds = time.thread_time() - began
    return decoded


def search_windows(model: VideoQA, video: Path, text: str) -> Search:
    """By `find`."""
    began = time.perf_counter()
    with counting() as decoded:
        found = model.find(video, text, FindOptions(top=1000), reading=ReadOptions(isolated=False, num_threads=1))
    times = tuple(moment.best_seconds for moment in found.moments)
    wall = time.perf_counter() - began
    return Search("`find`", times, found.num_frames, decoded, wall, peak_memory_bytes(model.checkpoint.model.device))


def search_uniform(model: VideoQA, video: Path, text: str) -> Search:
    """By one question about frames of the whole recording."""
    began = time.perf_counter()
    with counting() as decoded:
        reading = ReadOptions(isolated=False, num_threads=1)
        encoded = model.encode(video, SamplingOptions(num_frames=_NUM_UNIFORM), reading=reading)
        answer = model.ask(encoded, question_about(text), GenerationOptions(evidence=True), choices=("Yes", "No"))
    times: tuple[float, ...] = ()
    if log_odds(answer.choices[0].log_probability) >= 0 and answer.evidence:
        times = (max(answer.evidence, key=lambda frame: frame.weight).timestamp_seconds,)
    wall = time.perf_counter() - began
    name = f"{_NUM_UNIFORM} frames, uniform"
    return Search(name, times, len(encoded.indices), decoded, wall, peak_memory_bytes(model.checkpoint.model.device))


def table(searches: Sequence[Search], events: Sequence[Event], whole: Decoded) -> str:
    """A row a way of searching."""
    rows = []
    for search in searches:
        found, right, told = search.num_found(events), search.num_right(events), len(search.found_seconds)
        rows.append(
            [
                search.name,
                f"{found} of {len(events)}",
                f"{right} of {told}",
                f"{search.num_seen:,}",
                f"{search.decoded.frames / whole.frames:.3f}",
                f"{search.decoded.seconds / whole.seconds:.3f}",
                f"{search.wall_seconds:.0f} s",
                f"{(search.peak_memory_bytes or 0) / 1e6:.0f} MB",
            ]
        )
    head = ["", "events found", "moments right", "frames looked at", "frames decoded, × all", "decoding, × all of it"]
    return markdown_table([*head, "wall clock", "peak memory"], rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command."""
    parser = command_parser("measurements.find_events", __doc__)
    parser.add_argument("recording", type=Path, help="what measurements.long_recording wrote, its .json beside it")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Search in both ways, and print the table."""
    options = parse_arguments(arguments)
    with errors_without_traceback():
        known = json.loads(options.recording.with_suffix(".json").read_text(encoding="utf-8"))
        events = [Event(**event) for event in known["events"]]
        model = VideoQA.load(options.model)
        searches = [search(model, options.recording, known["event"]) for search in (search_uniform, search_windows)]
        whole = decode_all(options.recording)
    print(table(searches, events, whole))
    write_figures(options.json, whole=asdict(whole), events=known["events"], searches=list(map(asdict, searches)))


if __name__ == "__main__":
    main()
