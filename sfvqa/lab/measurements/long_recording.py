"""`python -m sfvqa.lab.measurements.long_recording`: hours of 720p, of which the seconds worth finding are known.

Shots of tiny's world and of camera footage follow one another; in a few, for one to three seconds, a red star crosses
the picture. Shots come again, as the same bytes: each is encoded once, by x264, and its packets are copied to wherever
it comes, so that two hours are written in minutes. Those with a star in them come once. The same seed, footage and x264
give the same recording.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from sfvqa.errors import UsageError
from sfvqa.lab.commands import command_parser, errors_without_traceback
from sfvqa.lab.tiny.render import RGB, blend_shape, frame_times, render, shape_distance
from sfvqa.lab.tiny.scenes import (
    DIGIT_RADIUS,
    EDGE_MARGIN,
    MAX_OBJECTS,
    NUM_FRAMES,
    Colour,
    Scene,
    Shape,
    random_scene,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]


EVENT = "a red star"
FPS, GOP_FRAMES = 15, 75  # a key frame every 5 s, as cameras write them
WIDTH, HEIGHT = 1280, 720
_DRAWN_AT = 360  # pixels, and then enlarged
_NUM_SCENES, _NUM_FOOTAGE = 24, 12
_FOOTAGE_SHARE = 0.35
_CHUNK = 30  # frames drawn at a time
_FROM_EDGE_SECONDS = 4.0  # between an event and the cuts around its shot


@dataclass(frozen=True)
class Event:
    """When the star is in the picture."""

    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Shot:
    """One of the scenes, or one of the pieces of footage; `event` in seconds of the shot, drawn by `seed`."""

    name: str
    num_frames: int
    event: Event | None = None
    seed: int = 0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.num_frames / FPS


def plan_shots(rng: np.random.Generator, seconds: float, num_events: int, *, with_footage: bool) -> list[Shot]:
    """Shots of a recording of about that length, the events spread over all of it, in scenes alone.

    UsageError for more events than there are scenes among the shots.
    """
    pool = [Shot(f"scene-{number}", int(rng.integers(20, 45)) * FPS) for number in range(_NUM_SCENES)]
    footage = [Shot(f"footage-{number}", int(rng.integers(20, 45)) * FPS) for number in range(_NUM_FOOTAGE)]
    shots: list[Shot] = []
    while sum(shot.seconds for shot in shots) < seconds:
        kind = footage if with_footage and rng.random() < _FOOTAGE_SHARE else pool
        shots.append(kind[int(rng.integers(len(kind)))])
    scenes = [place for place, shot in enumerate(shots) if shot.name.startswith("scene")]
    if len(scenes) < num_events:
        raise UsageError(f"There is no room for {num_events} events in {len(scenes)} scenes.", "Ask for fewer.")
    for number, places in enumerate(np.array_split(np.array(scenes), num_events) if num_events else []):
        place = int(rng.choice(places))
        lasts = float(rng.uniform(1.0, 3.0))
        start = float(rng.uniform(_FROM_EDGE_SECONDS, shots[place].seconds - _FROM_EDGE_SECONDS - lasts))
        first, last = round(start * FPS), round((start + lasts) * FPS)
        shots[place] = Shot(
            f"event-{number}", shots[place].num_frames, Event(first / FPS, last / FPS), int(rng.integers(1 << 31))
        )
    return shots


def events_of(shots: Sequence[Shot]) -> list[Event]:
    """The events of a recording, in seconds of the whole.

    >>> events_of([Shot("scene-0", 30), Shot("event-0", 300, Event(4.0, 6.0))])
    [Event(start_seconds=6.0, end_seconds=8.0)]
    """
    found, began = [], 0.0
    for shot in shots:
        if shot.event is not None:
            found.append(Event(began + shot.event.start_seconds, began + shot.event.end_seconds))
        began += shot.seconds
    return found


def draw_scene(shot: Shot, seed: int) -> Iterator[Frames]:
    """The frames of a scene, with the event if there is one, [H, W, 3] each."""
    rng = np.random.default_rng([seed, shot.seed, *shot.name.encode()])
    scene = random_scene(rng)
    while any(item.shape is Shape.STAR and item.colour is Colour.RED for item in scene.objects):
        scene = random_scene(rng)
    star: Star | None = None
    while shot.event is not None and star is None:
        star = place_star(rng, scene, shot.event, shot.seconds)
        scene = random_scene(rng) if star is None else scene
    times = frame_times(shot.num_frames)
    for first in range(0, shot.num_frames, _CHUNK):
        frames = render(scene, _DRAWN_AT, times[first : first + _CHUNK])
        if star is not None:
            star.draw(frames, np.arange(first, first + len(frames)) / FPS)
        yield from map(_fill, frames)


@dataclass(frozen=True)
class Star:
    """The event: a red star on its way from `start` to `end`, shares of the frame."""

    event: Event
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]

    def share(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of the way it has gone; below 0 or from 1 on it is not there."""
        return (seconds - self.event.start_seconds) / (self.event.end_seconds - self.event.start_seconds)

    def places(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where it is, [T, 2]."""
        return np.asarray(self.start) * (1 - share[:, None]) + np.asarray(self.end) * share[:, None]

    def draw(self, frames: Frames, seconds: NDArray[np.float64]) -> None:
        """Draw it into frames [T, S, S, 3] of those seconds."""
        share = self.share(seconds)
        shown = np.flatnonzero((share >= 0) & (share < 1))
        drawn = frames[shown].astype(np.float32) / np.float32(255)
        distance = partial(shape_distance, Shape.STAR)
        blend_shape(drawn, distance, RGB[Colour.RED], self.radius, np.arange(len(shown)), self.places(share[shown]))
        frames[shown] = (drawn * 255 + 0.5).astype(np.uint8)


def place_star(rng: np.random.Generator, scene: Scene, event: Event, seconds: float) -> Star | None:
    """A star that keeps clear of all else, as things do in tiny's world; None where that world has no room for it."""
    if (
        len(scene.objects) > MAX_OBJECTS - 1
        or scene.find(Shape.STAR)
        or any(item.colour is Colour.RED for item in scene.objects)
        or (scene.flash is not None and scene.flash.colour is Colour.RED)
    ):
        return None
    share = np.linspace(0, 1, 16)
    moments = (event.start_seconds + share * (event.end_seconds - event.start_seconds)) / seconds * (NUM_FRAMES - 1)
    sway = scene.sway(moments)
    others = [(item.positions(moments) + sway, item.radius) for item in scene.objects]
    if scene.digit is not None:
        others.append((np.asarray(scene.digit.centre) + sway, DIGIT_RADIUS * 1.3))
    for _ in range(60):
        radius = float(rng.uniform(0.1, 0.13))
        ends = rng.uniform(radius + 0.05, 0.95 - radius, size=(2, 2))
        star = Star(event, radius, (ends[0, 0], ends[0, 1]), (ends[1, 0], ends[1, 1]))
        path = star.places(share)
        if all(np.hypot(*(path - other).T).min() > radius + size + EDGE_MARGIN for other, size in others):
            return star
    return None


def _fill(frame: Frames) -> Frames:
    """A square picture enlarged to the height, its edges drawn out to the width."""
    square = cv2.resize(frame, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
    side = (WIDTH - HEIGHT) // 2
    return np.pad(square, ((0, 0), (side, WIDTH - HEIGHT - side), (0, 0)), mode="edge")


def cut_footage(shot: Shot, files: Sequence[Path], seed: int) -> Iterator[Frames]:
    """Frames of one of the files, from somewhere in it and around its end, cut to 16:9, [H, W, 3] each."""
    rng = np.random.default_rng([seed, *shot.name.encode()])
    path = files[int(rng.integers(len(files)))]
    with av.open(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or FPS)
        num_frames = sum(1 for _ in container.decode(stream))
    first = int(rng.integers(num_frames))
    wanted = [first + int(number * rate / FPS) for number in range(shot.num_frames)]
    source = enumerate(_forever(path))
    number, picture = next(source)
    for index in wanted:
        while number < index:
            number, picture = next(source)
        pixels = picture.to_ndarray(format="rgb24")
        height = round(pixels.shape[1] * HEIGHT / WIDTH)
        top = (pixels.shape[0] - height) // 2
        yield cv2.resize(pixels[max(top, 0) : max(top, 0) + height], (WIDTH, HEIGHT)).astype(np.uint8)


def _forever(path: Path) -> Iterator[av.VideoFrame]:
    while True:
        with av.open(path) as container:
            yield from container.decode(video=0)


def encode_shot(frames: Iterator[Frames], path: Path) -> None:
    """Write one shot as H.264 in mp4, of one thread."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast", "g": str(GOP_FRAMES), "flags": "+cgop"}
        stream.codec_context.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())


def join(paths: Sequence[Path], path: Path) -> None:
    """One file of the packets of several that were encoded alike."""
    with av.open(str(path), "w", format="mp4") as out:
        stream: VideoStream | None = None
        began = 0.0
        for each in paths:
            with av.open(str(each)) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(source)
                assert source.time_base is not None
                offset = round(began / source.time_base)
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    out.mux(packet)
                began += source.frames / FPS


def write_recording(path: Path, shots: Sequence[Shot], files: Sequence[Path], seed: int) -> None:
    """Encode every shot once and join them; what is written says how far it is, on stderr."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        of_shot: dict[Shot, Path] = {}
        for number, shot in enumerate(dict.fromkeys(shots)):
            of_shot[shot] = Path(folder, f"{number}.mp4")
            frames = cut_footage(shot, files, seed) if shot.name.startswith("footage") else draw_scene(shot, seed)
            encode_shot(frames, of_shot[shot])
            print(f"{number + 1} of {len(set(shots))} shots are encoded", file=sys.stderr)
        join([of_shot[shot] for shot in shots], path)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command."""
    parser = command_parser("measurements.long_recording", __doc__)
    parser.add_argument("video", type=Path, help="the mp4 file to write; its events go beside it, as .json")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--footage", type=Path, nargs="*", default=[], help="videos of the world as it is")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Write a recording and its events."""
    options = parse_arguments(arguments)
    with errors_without_traceback():
        rng = np.random.default_rng(options.seed)
        shots = plan_shots(rng, options.minutes * 60, options.events, with_footage=bool(options.footage))
        options.video.parent.mkdir(parents=True, exist_ok=True)
        write_recording(options.video, shots, options.footage, options.seed)
    document = {
        "event": EVENT,
        "seconds": sum(shot.seconds for shot in shots),
        "footage_seconds": sum(shot.seconds for shot in shots if shot.name.startswith("footage")),
        "events": list(map(asdict, events_of(shots))),
    }
    options.video.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
