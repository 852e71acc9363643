"""`python -m sfvqa.lab.tiny.evaluate_unknown`: does tiny say so when it does not know? Of real footage, of odd texts.

Every window of a file is another clip: a start, a length and a number of frames drawn at random. Every question about
one is out of scope, whatever it asks. An odd question about a video of tiny's own world may be answered or refused, but
only with one of tiny's sentences.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.inference import VideoQA
from sfvqa.lab.commands import errors_without_traceback, markdown_table
from sfvqa.lab.tiny.demo import bundled_folder
from sfvqa.lab.tiny.evaluate import ANSWER, EVALUATION, evaluation_parser
from sfvqa.lab.tiny.odd_questions import odd_text, with_slip
from sfvqa.lab.tiny.questions import REFUSAL_CORE, Family, ask, is_own_sentence, out_of_scope_text
from sfvqa.lab.tiny.scenes import NUM_FRAMES, random_scene
from sfvqa.video import ReadOptions, SamplingOptions, read_clip

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

QUESTIONS_PER_WINDOW = 4
LENGTHS = (NUM_FRAMES, NUM_FRAMES, NUM_FRAMES, 64, 16, 8, 4, 2, 1)  # frames that a window is seen in
SHORTEST_SECONDS = 0.5
SLIPS = 0.3  # of the odd questions: plain ones with a slip


@dataclass(frozen=True)
class Reply:
    """What was said to a question about a file."""

    file: str
    question: str
    answer: str

    @property
    def is_refused(self) -> bool:
        """Whether the answer says what tiny was trained on."""
        return REFUSAL_CORE in self.answer


def ask_about_footage(qa: VideoQA, files: Sequence[Path], *, seed: int, windows: int) -> list[Reply]:
    """QUESTIONS_PER_WINDOW questions of tiny's families about each of `windows` windows of each file."""
    rng = np.random.default_rng([EVALUATION, seed, 1])
    replies: list[Reply] = []
    for file in files:
        seconds = read_clip(file, SamplingOptions(2)).video.duration_seconds
        for _ in range(windows):
            length = min(seconds, rng.uniform(SHORTEST_SECONDS, max(SHORTEST_SECONDS, seconds)))
            start = rng.uniform(0, max(0.0, seconds - length))
            num_frames = LENGTHS[int(rng.integers(len(LENGTHS)))]
            sampling = SamplingOptions(num_frames, start_seconds=start, end_seconds=start + length)
            video = qa.encode(file, sampling, reading=ReadOptions(isolated=False))
            texts = [_any_question(rng) for _ in range(QUESTIONS_PER_WINDOW)]
            answers = qa.answer_batch([(video, text) for text in texts], ANSWER)
            replies += [Reply(file.name, text, answer.text) for text, answer in zip(texts, answers, strict=True)]
    return replies


def _any_question(rng: np.random.Generator) -> str:
    """As one would ask of a scene, or out of scope there as well."""
    while True:
        family = list(Family)[int(rng.integers(len(Family)))]
        if family is Family.OUT_OF_SCOPE:
            return out_of_scope_text(rng, held_out=True)
        question = ask(rng, random_scene(rng), family)
        if question is not None:
            return question.text


def ask_odd_questions(qa: VideoQA, *, seed: int, count: int) -> list[Reply]:
    """`count` odd or misspelt questions about the demo videos."""
    rng = np.random.default_rng([EVALUATION, seed, 2])
    files = sorted(bundled_folder().glob("*.mp4"))
    videos = [qa.encode(file) for file in files]
    replies: list[Reply] = []
    while len(replies) < count:
        number = int(rng.integers(len(files)))
        text = with_slip(rng, _any_question(rng))[0] if rng.random() < SLIPS else odd_text(rng)
        replies.append(Reply(files[number].name, text, qa.ask(videos[number], text, ANSWER).text))
    return replies


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = evaluation_parser("evaluate_unknown", __doc__, seed=12345)
    parser.add_argument("--footage", type=Path, nargs="+", default=[], help="videos that show none of tiny's shapes")
    parser.add_argument("--windows", type=int, default=25, help="clips of each file (default: 25)")
    parser.add_argument("--odd", type=int, default=0, help="how many odd questions to ask about the demo videos")
    parser.add_argument("--wrong", type=int, default=10, help="show up to so many answers that should not be")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Ask, then print how many were refused, and how many odd ones got no sentence of tiny's."""
    options = parse_arguments(arguments)
    qa = VideoQA.load(options.model, device=options.device)
    footage = ask_about_footage(qa, options.footage, seed=options.seed, windows=options.windows)
    odd = ask_odd_questions(qa, seed=options.seed, count=options.odd)
    asked, refused = Counter(reply.file for reply in footage), Counter(r.file for r in footage if r.is_refused)
    told = [reply for reply in footage if not reply.is_refused]
    garbled = [reply for reply in odd if not is_own_sentence(reply.answer)]
    if options.json:
        files = {file: {"asked": asked[file], "refused": refused[file]} for file in asked}
        print(json.dumps({"footage": files, "odd": {"asked": len(odd), "no_sentence": len(garbled)}}))
        return
    if footage:
        rows = [[f"`{file}`", str(asked[file]), f"{refused[file] / asked[file]:.1%}"] for file in asked]
        rows.append(["**all**", str(len(footage)), f"{1 - len(told) / len(footage):.1%}"])
        print(markdown_table(["file", "questions", "refused"], rows))
    if odd:
        print(f"odd questions: {len(odd)}, refused {sum(r.is_refused for r in odd)}, no sentence: {len(garbled)}")
    for reply in [*told, *garbled][: options.wrong]:
        print(f"{reply.file}: {reply.question!r} → {reply.answer!r}")


if __name__ == "__main__":
    main()
