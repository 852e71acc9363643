"""`python -m sfvqa.lab.tiny.quantization`: what 8 and 4 bits cost the bundled model, against 16 and 32, on questions.

Each variant sees every fresh video and answers every question about it itself. Beside that all are given the same
answers (teacher forcing), the true ones and those of the 16-bit model, and asked for each next token.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfvqa.inference import VideoQA
from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.lab.commands import errors_without_traceback, markdown_table
from sfvqa.lab.tiny.evaluate import ANSWER, SIZES, draw_questions, evaluation_parser
from sfvqa.lab.tiny.render import write_video
from sfvqa.model.quantization import weight_bytes
from sfvqa.video import ReadOptions

if TYPE_CHECKING:
    import argparse

    from sfvqa.inference import EncodedVideo
    from sfvqa.lab.tiny.questions import Question

BASELINE = "none, bfloat16"
EXACT = "none, float32"
VARIANTS = {
    EXACT: ("none", "float32"),
    BASELINE: ("none", "bfloat16"),
    "8bit, bfloat16": ("8bit", "bfloat16"),
    "4bit, bfloat16": ("4bit", "bfloat16"),
}
"""Quantization and dtype, by name."""
ANSWERS = ("true_answers", "own_answers")  # own: those of the baseline
ERRORS = ("float32", "bfloat16")


@dataclass
class Row:
    """A variant, and sums over the answers that it was given."""

    weight_bytes: int
    questions: int = 0
    right: int = 0
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, logits: Tensor, baseline: Tensor, exact: Tensor, answers: str) -> None:
        """Add the logits [n, V] of one of the `answers`, beside those of BASELINE and EXACT."""
        self.sums[f"tokens_of_{answers}"] += len(logits)
        self.sums[f"same_on_{answers}"] += int((logits.argmax(dim=-1) == baseline.argmax(dim=-1)).sum())
        for name, other in (("bfloat16", baseline), ("float32", exact)):
            self.sums[f"difference_to_{name}"] += float((logits - other).square().sum())
            self.sums[f"size_of_{name}"] += float(other.square().sum())

    def to_dict(self) -> dict[str, float]:
        """The figures; an error is ‖difference‖ / ‖other‖ over everything added."""
        sums = self.sums
        error = {name: (sums[f"difference_to_{name}"] / max(sums[f"size_of_{name}"], 1e-9)) ** 0.5 for name in ERRORS}
        agreement = {name: sums[f"same_on_{name}"] / max(1, sums[f"tokens_of_{name}"]) for name in ANSWERS}
        return {
            "weight_bytes": self.weight_bytes,
            "questions": self.questions,
            "accuracy": self.right / max(1, self.questions),
            **{f"logit_error_to_{name}": value for name, value in error.items()},
            "tokens": int(sum(sums[f"tokens_of_{name}"] for name in ANSWERS)),
            **{f"agreement_on_{name}": value for name, value in agreement.items()},
        }


def compare(model: str, *, seed: int, count: int, device: str = "auto") -> dict[str, Row]:
    """Ask all variants of a model `count` questions about fresh videos."""
    loaded = {
        name: VideoQA.load(model, device=device, dtype=dtype, quantization=quantization)
        for name, (quantization, dtype) in VARIANTS.items()
    }
    rows = {name: Row(weight_bytes(qa.checkpoint.model)) for name, qa in loaded.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        for number, (scene, questions) in enumerate(draw_questions(seed, count)):
            write_video(scene, path, size=SIZES[number % len(SIZES)], preset="ultrafast")
            videos = {name: qa.encode(path, reading=ReadOptions(isolated=False)) for name, qa in loaded.items()}
            for question in questions:
                _add(rows, loaded, videos, question)
    return rows


def _add(rows: dict[str, Row], loaded: dict[str, VideoQA], videos: dict[str, EncodedVideo], question: Question) -> None:
    answers = {name: qa.ask(videos[name], question.text, ANSWER).text for name, qa in loaded.items()}
    for name, row in rows.items():
        row.questions += 1
        row.right += question.is_right(answers[name])
    for text, which in zip((question.answer, answers[BASELINE]), ANSWERS, strict=True):
        logits = {name: next_token_logits(qa, videos[name], question.text, text) for name, qa in loaded.items()}
        for name, row in rows.items():
            row.add(logits[name], logits[BASELINE], logits[EXACT], which)


@torch.inference_mode()
def next_token_logits(qa: VideoQA, video: EncodedVideo, question: str, answer: str) -> Tensor:
    """Logits `[n, V]` of each of the answer's tokens, its end token included, given those before it."""
    tokenizer, model = qa.checkpoint.tokenizer, qa.checkpoint.model
    prompt = build_prompt(
        tokenizer, [question_turn(question, shows_video=True)], layout=(len(video.visual_tokens.fast), "\n")
    )
    given: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt, *given]], device=model.device)
    output = model(ids, visual_tokens=[video.visual_tokens], use_cache=False, logits_to_keep=len(given) + 1)
    logits: Tensor = output.logits[0].float().cpu()
    return logits


def as_table(rows: dict[str, Row]) -> str:
    """The figures for people."""
    cells = []
    for name, figures in ((name, row.to_dict()) for name, row in rows.items()):
        shares = [f"{figures[f'agreement_on_{answers}']:.2%}" for answers in ANSWERS]
        errors = [f"{figures[f'logit_error_to_{other}']:.2%}" for other in ERRORS]
        cells.append([name, f"{figures['accuracy']:.1%}", *shares, *errors, f"{figures['weight_bytes'] / 1e6:.2f} MB"])
    heads = ["same token, true answers", "same token, own answers", "error against float32", "against bfloat16", "size"]
    table, baseline = markdown_table(["weights", "right", *heads], cells), rows[BASELINE]
    true, own = (baseline.sums[f"tokens_of_{answers}"] for answers in ANSWERS)
    given = f"{true:.0f} tokens of true answers, {own:.0f} of the 16-bit model's own"
    return f"{table}\n\n{baseline.questions} questions; {given}."


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = evaluation_parser("quantization", __doc__, seed=12345)
    parser.add_argument("--questions", type=int, default=500)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Compare and print."""
    options = parse_arguments(arguments)
    rows = compare(options.model, seed=options.seed, count=options.questions, device=options.device)
    if options.json:
        print(json.dumps({"seed": options.seed, "variants": {name: row.to_dict() for name, row in rows.items()}}))
    else:
        print(as_table(rows))


if __name__ == "__main__":
    main()
