"""`python -m sfvqa.lab.tiny.evaluate`: accuracy by family on fresh videos, written to mp4 and read back by VideoQA."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.tiny.questions import REFUSAL_CORE, Family, Question, ask, out_of_scope_text, refused
from sfvqa.lab.tiny.render import write_video
from sfvqa.lab.tiny.scenes import Scene, random_scene
from sfvqa.video import ReadOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from sfvqa.inference import EncodedVideo

EVALUATION = 1_000_003  # training seeds its scenes with [seed, stage, …] of small stages: these can never be the same
QUESTIONS_PER_VIDEO = 5
QUESTIONS_AT_ONCE = 40
ANSWER = GenerationOptions(max_new_tokens=120)
SIZES, QUALITIES = (128, 160, 192), (20, 24, 28)  # pixels; x264's constant rate factors


@dataclass(frozen=True)
class Outcome:
    """A question that was answered."""

    question: Question
    answer: str
    video: int

    @property
    def is_right(self) -> bool:
        """Whether the answer names what was asked for and nothing else of its kind."""
        return self.question.is_right(self.answer)

    @property
    def is_refused(self) -> bool:
        """Whether the answer says that the question is out of scope."""
        return REFUSAL_CORE in self.answer


def draw_questions(seed: int, count: int) -> Iterator[tuple[Scene, list[Question]]]:
    """Fresh scenes with up to QUESTIONS_PER_VIDEO questions each, `count` in all, families as evenly as possible."""
    rng = np.random.default_rng([EVALUATION, seed])
    families = list(Family)
    wanted = {
        family: count // len(families) + (number < count % len(families)) for number, family in enumerate(families)
    }
    while any(wanted.values()):
        scene = random_scene(rng)
        questions: list[Question] = []
        rarest_first = sorted(families, key=lambda family: -wanted[family])
        for family in rarest_first:
            if wanted[family] == 0 or len(questions) == QUESTIONS_PER_VIDEO:
                continue
            question = _draw(rng, scene, family)
            if question is not None:
                questions.append(question)
                wanted[family] -= 1
        if questions:
            yield scene, questions


def _draw(rng: np.random.Generator, scene: Scene, family: Family) -> Question | None:
    if family is Family.OUT_OF_SCOPE:  # in words that training never saw
        return refused(out_of_scope_text(rng, held_out=True))
    return ask(rng, scene, family)


def evaluate(qa: VideoQA, *, seed: int, count: int, without_slow: bool = False) -> list[Outcome]:
    """Ask `count` questions about fresh videos that went through a file each."""
    outcomes: list[Outcome] = []
    waiting: list[tuple[int, EncodedVideo, Question]] = []
    with (
        qa.checkpoint.model.without_slow() if without_slow else nullcontext(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "scene.mp4"
        for number, (scene, questions) in enumerate(draw_questions(seed, count)):
            size, quality = SIZES[number % len(SIZES)], QUALITIES[number // len(SIZES) % len(QUALITIES)]
            write_video(scene, path, size=size, quality=quality, preset="ultrafast")
            # Written by ourselves: no process of its own has to stand between.
            video = qa.encode(path, reading=ReadOptions(isolated=False))
            waiting += [(number, video, question) for question in questions]
            if len(waiting) >= QUESTIONS_AT_ONCE:
                outcomes += _answer(qa, waiting)
                waiting = []
        outcomes += _answer(qa, waiting)
    return outcomes


def _answer(qa: VideoQA, waiting: list[tuple[int, EncodedVideo, Question]]) -> list[Outcome]:
    """Answer questions about several videos in one batch."""
    pairs = [(video, question.text) for _, video, question in waiting]
    answers = qa.answer_batch(pairs, ANSWER)
    return [
        Outcome(question, answer.text, number) for (number, _, question), answer in zip(waiting, answers, strict=True)
    ]


def summarise(outcomes: list[Outcome]) -> dict[str, object]:
    """Accuracy over all and by family, with the share of the commonest true answer of each family; and how many of the
    questions that are in scope were refused.
    """
    by_family: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_family[outcome.question.family.value].append(outcome)
    families = {
        name: {
            "accuracy": sum(outcome.is_right for outcome in found) / len(found),
            "questions": len(found),
            "commonest": Counter(outcome.question.values for outcome in found).most_common(1)[0][1] / len(found),
        }
        for name, found in sorted(by_family.items())
    }
    in_scope = [outcome for outcome in outcomes if outcome.question.family is not Family.OUT_OF_SCOPE]
    return {
        "accuracy": sum(outcome.is_right for outcome in outcomes) / max(1, len(outcomes)),
        "questions": len(outcomes),
        "videos": 1 + max((outcome.video for outcome in outcomes), default=-1),
        "refused_in_scope": sum(outcome.is_refused for outcome in in_scope) / max(1, len(in_scope)),
        "families": families,
    }


def as_table(summary: dict[str, object]) -> str:
    """The summary for people."""
    families = summary["families"]
    assert isinstance(families, dict)
    rows = [
        [name, f"{figures['accuracy']:.1%}", str(figures["questions"]), f"{figures['commonest']:.1%}"]
        for name, figures in families.items()
    ]
    rows.append(["**all**", f"**{summary['accuracy']:.1%}**", str(summary["questions"]), ""])
    table = markdown_table(["questions about", "right", "questions", "commonest"], rows)
    return f"{table}\n\nin scope and refused: {summary['refused_in_scope']:.1%}"


def evaluation_parser(name: str, description: str | None, *, seed: int) -> argparse.ArgumentParser:
    """What the evaluations of tiny are told alike: seed, model, device, and how to print."""
    parser = command_parser(f"tiny.{name}", description)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--model", default="tiny", help="a name or a checkpoint folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = evaluation_parser("evaluate", __doc__, seed=12345)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--without-slow", action="store_true", help="force the warm-up gates to zero")
    parser.add_argument("--wrong", type=int, default=0, help="also show so many wrong answers")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Evaluate and print."""
    options = parse_arguments(arguments)
    qa = VideoQA.load(options.model, device=options.device)
    outcomes = evaluate(qa, seed=options.seed, count=options.questions, without_slow=options.without_slow)
    summary = {"seed": options.seed, "without_slow": options.without_slow, **summarise(outcomes)}
    if options.json:
        print(json.dumps(summary))
        return
    print(as_table(summary))
    for outcome in [outcome for outcome in outcomes if not outcome.is_right][: options.wrong]:
        question = outcome.question
        print(f"[{question.family.value}] {question.text} → {outcome.answer!r}, not {question.answer!r}")


if __name__ == "__main__":
    main()
