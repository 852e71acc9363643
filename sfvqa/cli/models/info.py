"""What is known of a model, in lines."""

import json as jsonlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfvqa.cli import frame_options, options
from sfvqa.cli.model import Device, DtypeOption, QuantOption
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.memory import MemoryEstimate
    from sfvqa.registry import Architecture, QuantizationName


def fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """A line a fact, from the object that `models info --json` prints."""
    lines = []
    if "license" in facts:
        lines += [
            facts["description"],
            f"Licence of the weights: {facts['license']}; {readable_size(facts['size_bytes'])}.",
            _where(facts),
        ]
        if facts["aliases"]:
            lines.append(f"Also called {', '.join(facts['aliases'])}.")
    trained, fast = facts["trained_with"], facts["fast_tokens"]
    frames = "an unknown number of frames" if trained["num_frames"] is None else plural(trained["num_frames"], "frame")
    lines += [
        f"{facts['described_as']}.",
        f"Trained with {frames}, {trained['sampling']} sampling, {trained['crop']} crop; fast tokens are averages of "
        f"{plural(fast['temporal_stride'], 'frame')}, at least {fast['min_fast_frames']}.",
        f"Quantization unless told otherwise: {facts['quantization']}.",
    ]
    if "memory_hint" in facts:
        lines.append(facts["memory_hint"])
    return lines


def _where(facts: Mapping[str, Any]) -> str:
    at = f" at commit {facts['revision']}" if facts["revision"] else ""
    here = "not on this machine" if facts["folder"] is None else f"in {facts['folder']}{at}"
    if facts["repo_id"]:
        return f"Repository: {facts['repo_id']}; {here}."
    return f"Bundled, {here}." if facts["folder"] else "There are no weights of it: it runs with --random-weights only."


HELP = """\b
[bold]Examples[/bold]
  sfvqa models info slowfast-7b-64f
  sfvqa models info slowfast-7b-64f --frames 128 --device cuda
  sfvqa models info ./my-checkpoint --quant 4bit --json

Say what a model is, and what memory a question takes by part and quantization,
whether or not the model is on this machine. The device need not be here."""

Name = Annotated[
    str,
    typer.Argument(metavar="NAME|FOLDER", help="A name from `sfvqa models list`, or a checkpoint folder."),
]
_ROWS = {
    "weights": "weights",
    "visual_tokens": "slow and fast tokens",
    "kv_cache": "KV cache",
    "slow_keys_values": "slow keys and values",
    "frames": "frames",
    "encode_activations": "while encoding, more",
    "prefill_activations": "in prefill, more",
    "decode_activations": "in decode, more",
    "process": "the program itself",
}


def info(
    name: Name,
    frames: frame_options.Frames = None,
    quant: QuantOption = "auto",
    dtype: DtypeOption = "auto",
    device: Device = "auto",
    json: options.Json = False,
) -> None:
    """Print paragraphs and a table, or an object."""
    from sfvqa.checkpoints.known import read_sizes
    from sfvqa.checkpoints.memory import BEST_FIRST, RunSize, estimate_memory
    from sfvqa.registry import QuantizationName

    model = read_sizes(name)
    kind, free = _device(device)
    num_frames = (frames and frames.number) or model.trained_with.sampling.num_frames
    computed = dtype if dtype != "auto" else "float32" if kind == "cpu" else model.stored_dtype or "bfloat16"
    kinds = BEST_FIRST if quant == "auto" else (QuantizationName(quant),)
    estimates = {
        kind_of_weights: estimate_memory(model.sizes, model.fast, RunSize(num_frames, computed, kind, kind_of_weights))
        for kind_of_weights in kinds
    }
    facts = _facts(model)
    setting = {"frames": num_frames, "device": device if device != "auto" else kind, "dtype": computed}
    if json:
        document = {"schema_version": 1, "model": model.name, **facts, "memory": _memory(setting, free, estimates)}
        typer.echo(jsonlib.dumps(document))
    else:
        _print_facts(model.name, facts)
        _print_table(setting, free, estimates)


def _device(name: str) -> tuple[str, int | None]:
    """The kind of a device and its free memory, None where it is not here; torch is asked only about GPUs."""
    from sfvqa.checkpoints.host_memory import free_host_bytes

    if name == "cpu":
        return "cpu", free_host_bytes()
    from sfvqa.checkpoints.device import free_memory_bytes, resolve_device

    where = resolve_device(name, must_be_here=False)
    return where.type, free_memory_bytes(where)


def _facts(model: "ModelSizes") -> dict[str, object]:
    trained, sizes, fast, spec = model.trained_with, model.sizes, model.fast, model.spec
    facts: dict[str, object] = {}
    if spec is not None:
        facts |= {
            "description": spec.description,
            "can_answer": spec.can_answer,
            "license": spec.license,
            "size_bytes": spec.size_bytes,
            "repo_id": spec.repo_id,
            "aliases": list(spec.aliases),
            "memory_hint": spec.memory_hint,
            **_here(model),
        }
    return facts | {
        "quantization": model.quantization.value,
        "trained_with": {
            "num_frames": trained.num_frames,
            "sampling": trained.strategy.value,
            "crop": trained.crop.value,
            "max_length": model.training_max_length,
        },
        "fast_tokens": vars(fast),
        "architecture": {"num_parameters": sizes.num_parameters, **vars(sizes)},
        "described_as": _in_words(sizes),
    }


def _here(model: "ModelSizes") -> dict[str, object]:
    """Where the model is on this machine, and the commit if it was downloaded."""
    from sfvqa.checkpoints.find import locate_registered
    from sfvqa.errors import ModelError

    assert model.spec is not None
    try:
        location = locate_registered(model.spec)
    except ModelError:
        return {"folder": None, "revision": model.spec.revision}
    return {"folder": str(location.folder), "revision": location.revision}


def _in_words(sizes: "Architecture") -> str:
    heads = f"{plural(sizes.num_attention_heads, 'head')} with {plural(sizes.num_key_value_heads, 'KV head')}"
    hybrid = ", ".join(str(layer) for layer in sizes.hybrid_layers)
    of_several, of_one = sizes.grid_side(num_frames=2) ** 2, sizes.num_visual_tokens(1)
    alone = f", {of_one} of an only one" if of_one != of_several else ""
    return (
        f"{_count(sizes.num_parameters)} parameters: a ConvNeXt of {plural(sum(sizes.vision_depths), 'block')} that "
        f"sees {sizes.image_size} px and gives {plural(of_several, 'token')} a frame{alone}; a decoder of "
        f"{plural(sizes.num_layers, 'layer')}, width {sizes.hidden_size}, {heads}, {sizes.vocab_size:,} tokens; "
        f"layers {hybrid} also attend to slow tokens"
    )


def _count(number: int) -> str:
    return f"{number / 1e9:.2g} billion" if number >= 1e8 else f"{number / 1e6:.2g} million"


def _memory(
    setting: dict[str, object], free: int | None, estimates: "dict[QuantizationName, MemoryEstimate]"
) -> dict[str, object]:
    by_quantization = {
        kind.value: {
            "fits": None if free is None else estimate.fits(free),
            "needed_bytes": estimate.needed_bytes,
            "peak_bytes": estimate.peak_bytes,
            "phases": estimate.phases,
            "parts": estimate.parts,
        }
        for kind, estimate in estimates.items()
    }
    return {**setting, "free_bytes": free, "quantizations": by_quantization}


def _print_facts(name: str, facts: dict[str, object]) -> None:
    from sfvqa.cli.terminal import echo

    echo(f"{name}\n" + "\n".join(f"  {line}" for line in fact_lines(facts)) + "\n")


def _print_table(
    setting: dict[str, object], free: int | None, estimates: "dict[QuantizationName, MemoryEstimate]"
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from sfvqa.cli.terminal import echo
    from sfvqa.wording import plural, readable_size

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("memory")
    for kind in estimates:
        table.add_column(kind.value, justify="right", no_wrap=True)
    for part, words in _ROWS.items():
        sizes = [estimate.parts[part] for estimate in estimates.values()]
        if any(sizes):
            table.add_row(words, *(readable_size(size) for size in sizes))
    table.add_section()
    table.add_row("at most at a time", *(readable_size(estimate.peak_bytes) for estimate in estimates.values()))
    table.add_row("must be free", *(readable_size(estimate.needed_bytes) for estimate in estimates.values()))
    if free is not None:
        table.add_row("fits here", *("yes" if estimate.fits(free) else "no" for estimate in estimates.values()))
    console = Console(file=sys.stdout, highlight=False)
    here = "which is not here" if free is None else f"where {readable_size(free)} are free"
    frames = plural(int(str(setting["frames"])), "frame")
    echo(f"A question about {frames} on {setting['device']} in {setting['dtype']}, {here}:")
    console.print(table)
