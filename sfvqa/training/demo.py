"""`python -m sfvqa.training.demo`: write the bundled demo videos and what to ask about them into sfvqa/assets."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from sfvqa.training.backdrop import Backdrop, Camera, Pattern, Shot
from sfvqa.training.scenes import Colour, DigitCard, Direction, Flash, Scene, SceneObject, Shape
from sfvqa.training.video_files import write_video

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


@dataclass(frozen=True)
class Demo:
    """One bundled video: its scene, what a person sees in it, and questions with their true answers."""

    file: str
    description: str
    scene: Scene
    questions: tuple[tuple[str, str], ...]


DEMOS = (
    Demo(
        "shapes.mp4",
        "A red circle, a blue square and a yellow star; the screen flashes green, and a 7 is shown for a blink.",
        Scene(
            (
                SceneObject(Shape.CIRCLE, Colour.RED, 0.12, Direction.LEFT, (0.80, 0.24), (0.24, 0.24)),
                SceneObject(Shape.SQUARE, Colour.BLUE, 0.12, Direction.UP, (0.80, 0.82), (0.80, 0.38)),
                SceneObject(Shape.STAR, Colour.YELLOW, 0.125, Direction.DOWN, (0.24, 0.36), (0.24, 0.80)),
            ),
            NIGHT,
            Flash(Colour.GREEN, 21),
            DigitCard(7, 9, 2, (0.53, 0.56)),
        ),
        (
            ("Which way does the circle move?", "The circle moves left."),
            ("What colour is the square?", "The square is blue."),
            ("How many objects are there?", "There are three objects."),
            ("What colour does the screen flash?", "The screen flashes green."),
            ("Which digit is shown?", "The digit 7 is shown."),
            ("Where is the star at the end?", "The star ends in the bottom left."),
            (
                "Describe the video.",
                "A red circle moves left, a blue square moves up and a yellow star moves down. "
                "The screen flashes green. The digit 7 is shown.",
            ),
        ),
    ),
    Demo(
        "order.mp4",
        "A purple triangle, then a white cross, then an orange heart appear before drifting stripes and, after a cut, "
        "others, while the camera sways; a 3 is shown for a blink.",
        Scene(
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
        (
            ("Which shape appears first?", "First comes the triangle."),
            ("Which shape appears last?", "Last comes the heart."),
            ("Which appears first, the cross or the heart?", "First comes the cross."),
            ("Which way does the triangle move?", "The triangle moves right."),
            ("Which digit is shown?", "The digit 3 is shown."),
            ("Is there a green star?", "No, there is no green star."),
            (
                "Describe the video.",
                "A purple triangle moves right, a white cross moves down and an orange heart appears. "
                "The digit 3 is shown.",
            ),
        ),
    ),
    Demo(
        "flash.mp4",
        "A green heart and an orange square; the screen flashes purple for a sixth of a second.",
        Scene(
            (
                SceneObject(Shape.HEART, Colour.GREEN, 0.125, Direction.DOWN, (0.26, 0.20), (0.26, 0.78)),
                SceneObject(Shape.SQUARE, Colour.ORANGE, 0.11, Direction.UP, (0.74, 0.78), (0.74, 0.30)),
            ),
            SLATE,
            Flash(Colour.PURPLE, 13),
        ),
        (
            ("What colour does the screen flash?", "The screen flashes purple."),
            ("Which way does the heart move?", "The heart moves down."),
            ("Where is the heart at the end?", "The heart ends in the bottom left."),
            ("How many shapes are there?", "There are two objects."),
            ("Is there a circle?", "No, there is no circle."),
            (
                "Describe the video.",
                "An orange square moves up and a green heart moves down. The screen flashes purple.",
            ),
        ),
    ),
)


def bundled_folder() -> Path:
    """Where the package keeps its demo videos."""
    return Path(__file__).resolve().parents[1] / "assets" / "demo"


def write_demos(folder: Path, *, size: int = 288, num_frames: int = 120) -> None:
    """Write every demo video and demo.json, five seconds of `size` × `size` pixels at 24 frames a second."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for demo in DEMOS:
        write_video(demo.scene, folder / demo.file, size=size, num_frames=num_frames, fps=24, quality=20, preset="slow")
        questions = [{"question": question, "answer": answer} for question, answer in demo.questions]
        entries.append({"file": demo.file, "description": demo.description, "questions": questions})
    text = json.dumps({"videos": entries}, indent=2, ensure_ascii=False)
    (folder / "demo.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Write the demo videos."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=bundled_folder())
    options = parser.parse_args(arguments)
    write_demos(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
