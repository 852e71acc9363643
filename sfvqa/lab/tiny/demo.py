"""`python -m sfvqa.lab.tiny.demo`: write the bundled demo videos. What to ask about them stands in their demo.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.lab.commands import command_parser
from sfvqa.lab.tiny.render import write_video
from sfvqa.lab.tiny.scenes import (
    Backdrop,
    Camera,
    Colour,
    DigitCard,
    Direction,
    Flash,
    Pattern,
    Scene,
    SceneObject,
    Shape,
    Shot,
)

if TYPE_CHECKING:
    import argparse

NIGHT = ((0.07, 0.08, 0.14), (0.16, 0.17, 0.22))
DUSK = ((0.20, 0.17, 0.20), (0.11, 0.10, 0.12))
SLATE = ((0.12, 0.16, 0.17), (0.24, 0.27, 0.27))
HALL = Backdrop(
    Pattern.STRIPES,
    (
        Shot(0.0, ((0.10, 0.09, 0.12), (0.33, 0.31, 0.36)), 3.2, (0.1, 0.0), (0.012, 0.004)),
        Shot(17.5, ((0.08, 0.13, 0.13), (0.36, 0.40, 0.38)), 4.2, (0.6, 0.3), (-0.01, 0.008)),
    ),
    Camera((0.02, 0.015), 0.1, 31.0, 0.6),
)


SCENES = {
    "shapes.mp4": Scene(
        (
            SceneObject(Shape.CIRCLE, Colour.RED, 0.12, Direction.LEFT, (0.80, 0.24), (0.24, 0.24)),
            SceneObject(Shape.SQUARE, Colour.BLUE, 0.12, Direction.UP, (0.80, 0.82), (0.80, 0.38)),
            SceneObject(Shape.STAR, Colour.YELLOW, 0.125, Direction.DOWN, (0.24, 0.36), (0.24, 0.80)),
        ),
        NIGHT,
        Flash(Colour.GREEN, 21),
        DigitCard(7, 9, 2, (0.53, 0.56)),
    ),
    "order.mp4": Scene(
        (
            SceneObject(Shape.TRIANGLE, Colour.PURPLE, 0.12, Direction.RIGHT, (0.18, 0.78), (0.76, 0.78)),
            SceneObject(Shape.CROSS, Colour.WHITE, 0.115, Direction.DOWN, (0.22, 0.18), (0.22, 0.62), 10.0),
            SceneObject(Shape.HEART, Colour.ORANGE, 0.12, Direction.STILL, (0.77, 0.24), (0.77, 0.24), 20.0),
        ),
        DUSK,
        None,
        DigitCard(3, 15, 2, (0.52, 0.36)),
        HALL,
    ),
    "flash.mp4": Scene(
        (
            SceneObject(Shape.HEART, Colour.GREEN, 0.125, Direction.DOWN, (0.26, 0.20), (0.26, 0.78)),
            SceneObject(Shape.SQUARE, Colour.ORANGE, 0.11, Direction.UP, (0.74, 0.78), (0.74, 0.30)),
        ),
        SLATE,
        Flash(Colour.PURPLE, 13),
    ),
}


def bundled_folder() -> Path:
    """Where the package keeps its demo videos."""
    return Path(__file__).resolve().parents[2] / "assets" / "demo"


def write_demos(folder: Path, *, size: int = 288, num_frames: int = 120) -> None:
    """Write every demo video, five seconds of `size` × `size` pixels at 24 frames a second."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, scene in SCENES.items():
        write_video(scene, folder / file, size=size, num_frames=num_frames, fps=24, quality=20, preset="slow")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("tiny.demo", __doc__)
    parser.add_argument("--output", type=Path, default=bundled_folder())
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Write the demo videos."""
    output = parse_arguments(arguments).output
    write_demos(output)
    print(output)


if __name__ == "__main__":
    main()
