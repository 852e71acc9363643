"""`python -m sfvqa.lab.tiny.evidence`: whether evidence finds the moment, on fresh videos in which it is known.

What flashes, or the digit that is shown, is there for one or two sampled frames. Of the questions about it that are
answered rightly: how often the moment with most slow attention is one of them, or a neighbour of one. Beside it the
same for a question about something else, since what is unlike the rest of a video draws attention whatever is asked.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.evaluation.scores import wilson_interval
from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.lab.commands import errors_without_traceback, markdown_table
from sfvqa.lab.tiny.evaluate import ANSWER, EVALUATION, SIZES, evaluation_parser
from sfvqa.lab.tiny.questions import Family, Question, ask
from sfvqa.lab.tiny.render import write_video
from sfvqa.lab.tiny.scenes import Scene, random_scene
from sfvqa.video import ReadOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from sfvqa.inference import Answer, EncodedVideo

MOMENTS = (Family.FLASH, Family.DIGIT)
OPTIONS = replace(ANSWER, evidence=True)


class Asked(StrEnum):
    """What is asked about a video, and how it is answered."""

    WRITTEN = "about it"
    """The answer is written, token by token."""
    CHOICES = "with choices"
    """The answers it could have are compared."""
    OTHER = "about another thing"
    """The colour of an object: written."""


@dataclass(frozen=True)
class Look:
    """Where one answer looked: whether its strongest moment is the one in question, and that one's share of 1."""

    family: Family
    asked: Asked
    is_right: bool
    is_there: bool
    share: float


def moment_of(scene: Scene, family: Family) -> range:
    """The sampled frames that show what a question of `family` is about; empty where the scene has none."""
    if family is Family.FLASH and scene.flash is not None:
        return range(scene.flash.frame, scene.flash.frame + 1)
    if family is Family.DIGIT and scene.digit is not None:
        return range(scene.digit.frame, scene.digit.frame + scene.digit.num_frames)
    return range(0)


def draw_scenes(seed: int, family: Family, count: int) -> Iterator[tuple[Scene, Question, Question]]:
    """Fresh scenes with a moment, a question about it, and one about something else."""
    rng = np.random.default_rng([EVALUATION, seed, list(Family).index(family)])
    while count:
        scene = random_scene(rng)
        question, other = ask(rng, scene, family), ask(rng, scene, Family.COLOUR)
        if question and other and moment_of(scene, family):
            count -= 1
            yield scene, question, other


def look(answer: Answer, question: Question, asked: Asked, family: Family, moment: range) -> Look:
    """Judge one answer; the share is of the moment with its neighbours."""
    weights = [frame.weight for frame in answer.evidence or ()]
    near = range(max(moment.start - 1, 0), moment.stop + 1)
    strongest = max(range(len(weights)), key=weights.__getitem__, default=-1)
    return Look(family, asked, question.is_right(answer.text), strongest in near, sum(weights[near.start : near.stop]))


def answers_it_could_have(question: Question) -> list[str]:
    """The true answer, and it with each of the other values in its place."""
    (value,) = question.values
    return [question.answer, *(question.answer.replace(value, other) for other in question.other_values)]


def measure(qa: VideoQA, *, seed: int, count: int) -> list[Look]:
    """Ask `count` questions about moments, as many of each family, of videos that went through a file each."""
    looks: list[Look] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        for place, family in enumerate(MOMENTS):
            share = (count + len(MOMENTS) - 1 - place) // len(MOMENTS)
            for number, (scene, question, other) in enumerate(draw_scenes(seed, family, share)):
                write_video(scene, path, size=SIZES[number % len(SIZES)], preset="ultrafast")
                video = qa.encode(path, reading=ReadOptions(isolated=False))
                looks += _ask_all(qa, video, question, other, family, moment_of(scene, family))
    return looks


def _ask_all(
    qa: VideoQA, video: EncodedVideo, question: Question, other: Question, family: Family, moment: range
) -> Iterator[Look]:
    about_it, about_other = qa.answer_batch([(video, question.text), (video, other.text)], OPTIONS)
    chosen = qa.ask(video, question.text, GenerationOptions(evidence=True), choices=answers_it_could_have(question))
    yield look(about_it, question, Asked.WRITTEN, family, moment)
    yield look(chosen, question, Asked.CHOICES, family, moment)
    yield look(about_other, other, Asked.OTHER, family, moment)


def summarise(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """A row for each family and way of asking: of the right answers, how many have the moment as their strongest."""
    rows: list[dict[str, Any]] = []
    for family in MOMENTS:
        for asked in Asked:
            found = [each for each in looks if (each.family, each.asked) == (family, asked)]
            right = [each for each in found if each.is_right]
            there = sum(each.is_there for each in right)
            interval = wilson_interval(there, len(right))
            rows.append(
                {
                    "family": family.value,
                    "asked": asked.value,
                    "questions": len(found),
                    "right": len(right),
                    "moment_is_strongest": there,
                    "share": there / max(1, len(right)),
                    "interval": [interval.low, interval.high],
                    "mean_weight": sum(each.share for each in right) / max(1, len(right)),
                }
            )
    return rows


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    cells = []
    for row in rows:
        low, high = row["interval"]
        figures = [f"{row['share']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['mean_weight']:.1%}"]
        cells.append([row["family"], row["asked"], str(row["right"]), *figures])
    return markdown_table(["moment", "asked", "right", "strongest", "95 % interval", "its weight"], cells, num_texts=2)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = evaluation_parser("evidence", __doc__, seed=777)
    parser.add_argument("--questions", type=int, default=300, help="about flashes and digits, half of each")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parse_arguments(arguments)
    qa = VideoQA.load(options.model, device=options.device)
    rows = summarise(measure(qa, seed=options.seed, count=options.questions))
    if options.json:
        print(json.dumps({"model": options.model, "seed": options.seed, "rows": rows}))
        return
    print(as_table(rows))


if __name__ == "__main__":
    main()
