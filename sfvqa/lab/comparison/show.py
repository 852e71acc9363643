"""`python -m sfvqa.lab.comparison.show`: a contact sheet of the benchmark, frames with questions and answers."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.comparison.items import TESTING, Item, chances, digest, draw_item, fixed_test_set, render
from sfvqa.lab.comparison.questions import BenchmarkFamily, BenchmarkQuestion
from sfvqa.lab.comparison.scenes import BenchmarkScene, Sign, Timeline
from sfvqa.lab.tiny.render import check_quality, compress

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from sfvqa.lab.comparison.scenes import Span

MOST_NEEDED = 10  # frames: both ends and the plates of two bursts
GAP, LINE, INDENT = 4, 22, 8  # pixels
BACKGROUND, INK, FAINT = (250, 250, 248), (20, 20, 20), (120, 120, 120)


SIGNS = {
    BenchmarkFamily.DIGIT: Sign.DIGIT,
    BenchmarkFamily.DIGIT_AT: Sign.DIGIT,
    BenchmarkFamily.LETTER: Sign.LETTER,
    BenchmarkFamily.GAP: Sign.RING,
}


def events_asked_about(scene: BenchmarkScene, question: BenchmarkQuestion) -> list[Span]:
    """The short events that a question is about, and what stands beside them."""
    if question.family is BenchmarkFamily.EVENTS:
        return list(scene.pulses)
    if question.family in SIGNS:
        return [plate.span for burst in scene.bursts_of(SIGNS[question.family]) for plate in burst.plates]
    return [question.seen_during] if question.family is BenchmarkFamily.FLASH and question.seen_during else []


def moments_to_show(scene: BenchmarkScene, question: BenchmarkQuestion, num_frames: int) -> NDArray[np.intp]:
    """`num_frames` moments: those of the events asked about, the others evenly spaced."""
    seconds = scene.timeline.seconds
    needed = {int(np.flatnonzero(span.holds(seconds))[0]) for span in events_asked_about(scene, question)}
    even = [int(moment) for moment in scene.timeline.sampled(num_frames)]
    free = [moment for moment in even if moment not in needed]
    while len(free) + len(needed) > num_frames:  # the one nearest to an event says least
        free.remove(min(free[1:-1], key=lambda moment: min(abs(moment - other) for other in needed)))
    return np.array(sorted({*free, *needed}), dtype=np.intp)


def examples(timeline: Timeline, per_family: int) -> list[tuple[Item, BenchmarkQuestion]]:
    """`per_family` questions of every family, each about another video of the test set."""
    found: list[tuple[Item, BenchmarkQuestion]] = []
    numbers = count()
    for family in BenchmarkFamily:
        remaining = per_family
        while remaining:
            item = draw_item(TESTING, 0, next(numbers), timeline)
            for question in item.questions:
                if question.family is family:
                    found.append((item, question))
                    remaining -= 1
    return found


def draw_sheet(
    chosen: list[tuple[Item, BenchmarkQuestion]], *, size: int, pixels_shown: int, num_frames: int, quality: int
) -> Image.Image:
    """A row an example: question and answer above its frames, whose times in seconds stand below them."""
    font, row_height = ImageFont.load_default(15), LINE + pixels_shown + LINE + GAP
    width = 2 * INDENT + num_frames * (pixels_shown + GAP)
    sheet = Image.new("RGB", (width, len(chosen) * row_height + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for row, (item, question) in enumerate(chosen):
        family, top = question.family, row * row_height + GAP
        pen.text((INDENT, top), f"{family.skill} · {family}: {question.text}   Answer: {question.answer}", INK, font)
        moments = moments_to_show(item.scene, question, num_frames)
        frames = compress(render(item.scene, size), quality=quality)[moments]
        for column, (pixels, moment) in enumerate(zip(frames, moments, strict=True)):
            left = INDENT + column * (pixels_shown + GAP)
            shown = Image.fromarray(pixels).resize((pixels_shown, pixels_shown), Image.Resampling.BICUBIC)
            sheet.paste(shown, (left, top + LINE))
            label = f"{item.scene.timeline.seconds[moment]:.2f} s"
            pen.text((left, top + LINE + pixels_shown), label, FAINT, ImageFont.load_default(12))
    return sheet


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("comparison.show", __doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark.png"), help="where the picture goes")
    parser.add_argument("--per-family", type=int, default=1, help="examples of every family")
    parser.add_argument("--frames", type=int, default=10, help=f"frames of an example, at least {MOST_NEEDED}")
    parser.add_argument("--size", type=int, default=64, help="pixels of a frame, as a model sees it")
    parser.add_argument("--shown", type=int, default=128, help="pixels of a frame in the picture")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the videos")
    parser.add_argument("--moments", type=int, default=128, help="frames of the densest sampling")
    parser.add_argument("--quality", type=int, default=23, help="x264's constant rate factor, lower is better")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    if not MOST_NEEDED <= options.frames <= options.moments:
        raise UsageError(f"{options.frames} frames cannot show it.", f"Ask for {MOST_NEEDED} to {options.moments}.")
    for name in ("per_family", "size", "shown"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} is {getattr(options, name)}.", "It must be at least 1.")
    if options.size % 2:
        raise UsageError(f"x264 takes no frames of {options.size} pixels.", "Use an even number.")
    check_quality(options.quality)
    if options.output.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"{options.output} names no kind of picture.", "End it in .png, for example.")


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise SfvqaError(f"{path} cannot be written: {error}.", "Name another place.") from error


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Write the sheet, and print what guessing would reach."""
    options = parse_arguments(arguments)
    timeline = Timeline(options.seconds, options.moments)
    _check(options)
    sheet = draw_sheet(
        examples(timeline, options.per_family),
        size=options.size,
        pixels_shown=options.shown,
        num_frames=options.frames,
        quality=options.quality,
    )
    _save(sheet, options.output)
    items = fixed_test_set(300, timeline=timeline)
    print(f"{options.output}; test set of 300 videos: {digest(items)}\n")
    rows = [
        [family, f"{chance.majority_answer} {chance.majority:.0%}", str(chance.num_questions), f"{chance.level:.0%}"]
        for family, chance in chances(items).items()
    ]
    print(markdown_table(["family", "majority answer", "questions", "chance"], rows, num_texts=2))


if __name__ == "__main__":
    main()
