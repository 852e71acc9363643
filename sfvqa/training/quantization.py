"""`python -m sfvqa.training.quantization`: what 8 and 4 bits cost the bundled model, against 16 and 32, on questions.

Each variant sees every fresh video and answers every question about it itself. Beside that all are given the same
answers (teacher forcing), the true ones and those of the 16-bit model, and asked for each next token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfvqa.inference import GenerationOptions, VideoQA
from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.model.quantization import weight_bytes
from sfvqa.training.evaluate import SIZES, draw_questions
from sfvqa.training.video_files import write_video
from sfvqa.video import ReadOptions

if TYPE_CHECKING:
    from sfvqa.inference import EncodedVideo
    from sfvqa.training.questions import Question

BASELINE = "none, bfloat16"
EXACT = "none, float32"
VARIANTS = {
    EXACT: ("none", "float32"),
    BASELINE: ("none", "bfloat16"),
    "8bit, bfloat16": ("8bit", "bfloat16"),
    "4bit, bfloat16": ("4bit", "bfloat16"),
}
"""Quantization and dtype, by name."""


@dataclass
class Error:
    """How far logits are from others: ‖difference‖ / ‖other‖ over everything added."""

    difference: float = 0.0
    size: float = 0.0

    def add(self, logits: Tensor, other: Tensor) -> None:
        """Add the logits of one answer."""
        self.difference += float((logits - other).square().sum())
        self.size += float(other.square().sum())

    @property
    def relative(self) -> float:
        """0 when they are the same."""
        return float((self.difference / self.size) ** 0.5) if self.size else 0.0


@dataclass
class Agreement:
    """On how many next tokens a variant agrees with the baseline."""

    tokens: int = 0
    same: int = 0

    def add(self, logits: Tensor, other: Tensor) -> None:
        """Add the logits `[n, V]` of one answer."""
        self.tokens += len(logits)
        self.same += int((logits.argmax(dim=-1) == other.argmax(dim=-1)).sum())

    @property
    def share(self) -> float:
        """1 when they agree everywhere."""
        return self.same / max(1, self.tokens)


@dataclass
class Row:
    """A variant and what came of it."""

    weight_bytes: int
    questions: int = 0
    right: int = 0
    to_exact: Error = field(default_factory=Error)
    to_baseline: Error = field(default_factory=Error)
    on_true_answers: Agreement = field(default_factory=Agreement)
    on_own_answers: Agreement = field(default_factory=Agreement)

    def to_dict(self) -> dict[str, float]:
        """The figures."""
        return {
            "weight_bytes": self.weight_bytes,
            "questions": self.questions,
            "accuracy": self.right / max(1, self.questions),
            "logit_error_to_float32": self.to_exact.relative,
            "logit_error_to_bfloat16": self.to_baseline.relative,
            "tokens": self.on_true_answers.tokens + self.on_own_answers.tokens,
            "agreement_on_true_answers": self.on_true_answers.share,
            "agreement_on_own_answers": self.on_own_answers.share,
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
    options = GenerationOptions(max_new_tokens=120)
    answers = {name: qa.ask(videos[name], question.text, options).text for name, qa in loaded.items()}
    for name, row in rows.items():
        row.questions += 1
        row.right += question.is_right(answers[name])
    for text, agreement in ((question.answer, "on_true_answers"), (answers[BASELINE], "on_own_answers")):
        logits = {name: next_token_logits(qa, videos[name], question.text, text) for name, qa in loaded.items()}
        for name, row in rows.items():
            getattr(row, agreement).add(logits[name], logits[BASELINE])
            row.to_exact.add(logits[name], logits[EXACT])
            row.to_baseline.add(logits[name], logits[BASELINE])


@torch.inference_mode()
def next_token_logits(qa: VideoQA, video: EncodedVideo, question: str, answer: str) -> Tensor:
    """Logits `[n, V]` of each of the answer's tokens, its end token included, given those before it."""
    tokenizer, model = qa.checkpoint.tokenizer, qa.checkpoint.model
    prompt = build_prompt(tokenizer, [question_turn(question, shows_video=True)]).expand(len(video.visual_tokens.fast))
    given: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt, *given]], device=model.device)
    output = model(ids, visual_tokens=[video.visual_tokens], use_cache=False, logits_to_keep=len(given) + 1)
    logits: Tensor = output.logits[0].float().cpu()
    return logits


def print_table(rows: dict[str, Row]) -> None:
    """The figures for people."""
    heads = ("right", "same tokens", "same, own", "error (fp32)", "error (bf16)", "weights")
    print(f"{'variant':<16}" + "".join(f"{head:>14}" for head in heads))
    for name, row in rows.items():
        cells = (
            f"{row.right / max(1, row.questions):.1%}",
            f"{row.on_true_answers.share:.2%}",
            f"{row.on_own_answers.share:.2%}",
            f"{row.to_exact.relative:.4f}",
            f"{row.to_baseline.relative:.4f}",
            f"{row.weight_bytes / 1e6:.2f} MB",
        )
        print(f"{name:<16}" + "".join(f"{cell:>14}" for cell in cells))
    baseline = rows[BASELINE]
    tokens = (baseline.on_true_answers.tokens, baseline.on_own_answers.tokens)
    print(f"{baseline.questions} questions; {tokens[0]} tokens of true answers, {tokens[1]} of the 16-bit model's own.")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.quantization", description=__doc__)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--model", default="tiny", help="a name or a checkpoint folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Compare and print."""
    options = parse_arguments(arguments)
    rows = compare(options.model, seed=options.seed, count=options.questions, device=options.device)
    if options.json:
        print(json.dumps({"seed": options.seed, "variants": {name: row.to_dict() for name, row in rows.items()}}))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
