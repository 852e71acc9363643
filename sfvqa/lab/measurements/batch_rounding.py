"""`python -m sfvqa.lab.measurements.batch_rounding`: how often a batch answers otherwise than single questions.

Both compute the same, but rounding depends on how many rows go through the model together: an answer goes another way
where two tokens are almost equally likely. A difference of logits beyond the dtype's rounding would be a fault.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill_together
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.decoder import find_gguf, find_or_convert
from sfvqa.lab.tiny.evaluate import draw_questions
from sfvqa.lab.tiny.render import write_video
from sfvqa.model import DecodeStep
from sfvqa.video import ReadOptions, SamplingOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from torch import Tensor

    from sfvqa.inference import EncodedVideo
    from sfvqa.inference.engine import Step
    from sfvqa.inference.prefill import Prefilled

SMOLLM2 = "smollm2-135m"
"""A decoder that was trained on text; behind a random vision tower it makes up what it says about a video."""


@dataclass(frozen=True, eq=False)
class Written:
    """The tokens of an answer, and the logits `[T, V]` that each was chosen from."""

    token_ids: list[int]
    logits: Tensor


@dataclass(frozen=True)
class Parting:
    """Two answers to a question: the largest difference of a logit at each step up to the first other token; and there
    the logit of the first answer's token less that of the second's, None where all tokens are the same.
    """

    differences: tuple[float, ...]
    margin: float | None

    @classmethod
    def of(cls, one: Written, other: Written) -> Parting:
        """Compare them."""
        pairs = zip(one.token_ids, other.token_ids, strict=False)
        place = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        steps = len(one.token_ids) if place is None else place + 1
        differences = (one.logits[:steps] - other.logits[:steps]).abs().amax(dim=1)
        margin = None
        if place is not None:
            margin = float(one.logits[place, one.token_ids[place]] - one.logits[place, other.token_ids[place]])
        return cls(tuple(differences.tolist()), margin)


@torch.inference_mode()
def write_together(qa: VideoQA, asked: Sequence[tuple[EncodedVideo, str]], options: GenerationOptions) -> list[Written]:
    """Answer questions in one batch, as `VideoQA.answer_batch` does."""
    checkpoint, logits = qa.checkpoint, []
    model = checkpoint.model
    ask = partial(prompt_for, checkpoint.tokenizer, config=model.config, num_new_tokens=options.max_new_tokens)
    prompts = [ask(encoded, question, PromptOptions()).token_ids for encoded, question in asked]

    def begin(state: Prefilled, num_steps: int) -> Step:
        step = DecodeStep(model, state.cache, state.attention_mask, num_steps)

        def run(token_ids: Tensor) -> Tensor:
            logits.append(step(token_ids))
            return logits[-1]

        return run

    prefilled, _ = prefill_together(model, prompts, [encoded.visual_tokens for encoded, _ in asked])
    logits.append(prefilled.logits)
    steps = list(generate_tokens(model, prefilled, options, checkpoint.end_token_ids, begin))
    written = []
    for row in range(len(asked)):
        tokens = [token.token_id for step in steps if (token := step[row]) is not None]
        written.append(Written(tokens, torch.stack([each[row].float() for each in logits[: len(tokens)]])))
    return written


@dataclass(frozen=True)
class Comparison:
    """Answers in batches of `size` against those to single questions, of one model in one dtype.

    `differences` are a step's largest of any logit, median and largest; `margin` is the largest at which answers part.
    """

    model: str
    dtype: str
    size: int
    num_questions: int
    num_tokens: int
    num_other: int
    difference: float
    largest_difference: float
    margin: float | None


def compare(
    model: str, dtype: str, folder: str, asked: Sequence[tuple[Path, str]], options: argparse.Namespace
) -> list[Comparison]:
    """Answer all questions one at a time, and at each of the sizes."""
    qa = VideoQA.load(folder, device="cpu", dtype=dtype)
    writing = GenerationOptions(max_new_tokens=options.new_tokens)
    sampling = SamplingOptions(options.frames) if options.frames else qa.default_sampling
    seen = {path: qa.encode(path, sampling, reading=ReadOptions(isolated=False)) for path, _ in asked}
    partings: dict[int, list[Parting]] = {size: [] for size in options.sizes}
    at_once = max(options.sizes)
    for start in range(0, len(asked), at_once):
        group = [(seen[path], question) for path, question in asked[start : start + at_once]]
        alone = [write_together(qa, [each], writing)[0] for each in group]
        for size in options.sizes:
            together = [
                written
                for first in range(0, len(group), size)
                for written in write_together(qa, group[first : first + size], writing)
            ]
            partings[size] += map(Parting.of, alone, together)
    return [_summary(model, dtype, size, found) for size, found in partings.items()]


def _summary(model: str, dtype: str, size: int, partings: list[Parting]) -> Comparison:
    differences = [difference for parting in partings for difference in parting.differences]
    margins = [parting.margin for parting in partings if parting.margin is not None]
    return Comparison(
        model=model,
        dtype=dtype,
        size=size,
        num_questions=len(partings),
        num_tokens=len(differences),
        num_other=len(margins),
        difference=median(differences),
        largest_difference=max(differences),
        margin=max(margins, default=None),
    )


def as_table(results: Sequence[Comparison]) -> str:
    """Markdown: a row a model, dtype, and size."""
    rows = [
        [
            f"`{result.model}`, {result.dtype}",
            str(result.size),
            f"{result.num_other} of {result.num_questions}",
            f"{result.difference:.2g}",
            f"{result.largest_difference:.2g}",
            "" if result.margin is None else f"{result.margin:.2g}",
        ]
        for result in results
    ]
    heads = ["at a time", "other answers", "logits differ by", "at most", "margin given up, at most"]
    return markdown_table(["", *heads], rows)


def write_questions(folder: Path, count: int, seed: int) -> list[tuple[Path, str]]:
    """Fresh questions about fresh videos, as `tiny` is tested with, the videos written to a folder."""
    asked: list[tuple[Path, str]] = []
    for number, (scene, questions) in enumerate(draw_questions(seed, count)):
        path = folder / f"{number}.mp4"
        write_video(scene, path, size=160, quality=20, preset="ultrafast")
        asked += [(path, question.text) for question in questions]
    return asked


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.batch_rounding", __doc__)
    parser.add_argument(
        "--models", nargs="*", default=["tiny"], help=f"names, folders, or {SMOLLM2}, which decoder converts"
    )
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--frames", type=int, help="default: as many as in training")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--folder", type=Path, default=Path("runs", "decoder"), help="where decoder keeps its model")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Write the videos, convert the decoder if need be, compare, print a table."""
    options = parse_arguments(arguments)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        asked = write_questions(Path(folder), options.questions, options.seed)
        for model in options.models:
            options.folder.mkdir(parents=True, exist_ok=True)
            where = str(find_or_convert(find_gguf(), options.folder)) if model == SMOLLM2 else model
            for dtype in options.dtypes:
                results += compare(model, dtype, where, asked, options)
    write_figures(options.json, comparisons=[asdict(result) for result in results])
    print(as_table(results))


if __name__ == "__main__":
    main()
