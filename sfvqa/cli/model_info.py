"""`sfvqa models info`: what is known of a model, and the memory that a question takes."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from sfvqa.checkpoints.find import ModelSettings, locate_registered
from sfvqa.cli.frame_options import Frames
from sfvqa.cli.model import Device, DtypeOption, NameOrFolder, QuantOption
from sfvqa.cli.options import Json
from sfvqa.cli.screen import echo, print_json
from sfvqa.errors import ModelError, UnknownModelError
from sfvqa.registry import Architecture, PublishedModel, QuantizationName, SpeechSpec, find_any_model
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.memory import MemoryEstimate, RunSize


HELP = """\b
[bold]Examples[/bold]
  sfvqa models info slowfast-7b-64f
  sfvqa models info slowfast-7b-64f --frames 128 --device cuda
  sfvqa models info ./my-checkpoint --quant 4bit --json

Describe a model and the memory that a question takes, by part and by
quantization. Neither the model nor the device needs to be on this machine."""


def info(
    name: NameOrFolder,
    frames: Frames = None,
    quant: QuantOption = "auto",
    dtype: DtypeOption = "auto",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Print paragraphs and a table, or an object."""
    from sfvqa.checkpoints.known import read_sizes
    from sfvqa.checkpoints.memory import BEST_FIRST, NUM_TEXT_TOKENS, RunSize, estimate_memory
    from sfvqa.registry.architecture import num_layout_tokens

    if (speech := _speech_model(name)) is not None:
        _tell_speech(speech, as_json)
        return
    model = read_sizes(name)
    kind, computed, free_for = _device(device, dtype, model)
    num_frames = (frames and frames.number) or model.trained_with.sampling.num_frames
    num_text = NUM_TEXT_TOKENS + num_layout_tokens(model.sizes, model.fast, num_frames)
    runs = {
        quantization.value: RunSize(num_frames, computed, kind, quantization, num_text)
        for quantization in (BEST_FIRST if quant == "auto" else (QuantizationName(quant),))
    }
    estimates = {bits: estimate_memory(model.sizes, model.fast, run) for bits, run in runs.items()}
    frees = {bits: free_for(run) for bits, run in runs.items()}
    free = next(iter(frees.values()))
    fits = {bits: None if frees[bits] is None else estimate.fits(frees[bits]) for bits, estimate in estimates.items()}
    facts = _facts(model)
    setting = {"frames": num_frames, "device": device if device != "auto" else kind, "dtype": computed}
    if as_json:
        by_quantization = {
            quantization: {
                "fits": fits[quantization],
                "needed_bytes": estimate.needed_bytes,
                "peak_bytes": estimate.peak_bytes,
                "phases": estimate.phases,
                "parts": estimate.parts,
            }
            for quantization, estimate in estimates.items()
        }
        memory = {**setting, "free_bytes": free, "quantizations": by_quantization}
        print_json({"model": model.name, **facts, "memory": memory})
    else:
        echo("\n  ".join([model.name, *_lines(facts)]) + "\n")
        here = "which is not here" if free is None else f"where {readable_size(free)} are free"
        echo(f"A question about {plural(num_frames, 'frame')} on {setting['device']} in {computed}, {here}:")
        Console(file=sys.stdout, highlight=False).print(_table(estimates, fits))


def _speech_model(name: str) -> SpeechSpec | None:
    with contextlib.suppress(UnknownModelError):
        spec = find_any_model(name)
        return spec if isinstance(spec, SpeechSpec) else None
    return None


def _tell_speech(spec: SpeechSpec, as_json: bool) -> None:
    shown = ("description", "license", "size_bytes", "repo_id")
    facts = {**{name: getattr(spec, name) for name in shown}, "aliases": list(spec.aliases), **_here(spec)}
    if as_json:
        print_json({"model": spec.name, "is_speech_model": True, **facts})
        return
    place = facts["folder"] or f"not on this machine; sfvqa models pull {spec.name}"
    lines = [
        spec.name,
        spec.description,
        f"licence {spec.license}, {readable_size(spec.size_bytes)}, {spec.repo_id}",
        f"folder: {place}",
        "It writes down what is said, for --speech and `sfvqa transcribe`, and answers no question.",
    ]
    echo("\n  ".join(lines))


def _device(name: str, dtype: str, model: "ModelSizes") -> "tuple[str, str, Callable[[RunSize], int | None]]":
    """The kind of a device, the dtype there, and the free memory of a run, None where the device is not here.

    torch is asked only about GPUs.
    """
    if name == "cpu":
        from sfvqa.checkpoints.host import free_host_bytes

        return "cpu", model.auto_dtype("cpu") if dtype == "auto" else dtype, lambda _: free_host_bytes()
    from sfvqa.checkpoints.plan import free_bytes_for, resolve_place

    where, computed = resolve_place(ModelSettings(model.name, name, dtype), model, device_must_be_here=False)
    return where.type, str(computed).removeprefix("torch."), partial(free_bytes_for, name, where, model)


_SHOWN = ("description", "can_answer", "license", "size_bytes", "repo_id", "memory_hint")


def _facts(model: "ModelSizes") -> dict[str, Any]:
    trained, sizes, spec = model.trained_with, model.sizes, model.spec
    facts: dict[str, Any] = {}
    if spec is not None:
        facts = {
            **{name: getattr(spec, name) for name in _SHOWN},
            "aliases": list(spec.aliases),
            **_here(spec),
        }
    return facts | {
        "quantization": model.quantization.value,
        "trained_with": {
            "num_frames": trained.num_frames,
            "sampling": trained.strategy.value,
            "crop": trained.crop.value,
            "max_length": model.training_max_length,
        },
        "fast_tokens": vars(model.fast),
        "architecture": {"num_parameters": sizes.num_parameters, **vars(sizes)},
        "described_as": _in_words(sizes),
    }


def _here(spec: PublishedModel) -> dict[str, str | None]:
    """Where the model is on this machine, and the commit if it was downloaded."""

    try:
        location = locate_registered(spec)
    except ModelError:
        return {"folder": None, "revision": spec.revision}
    return {"folder": str(location.folder), "revision": location.revision}


def _in_words(sizes: Architecture) -> str:
    number = sizes.num_parameters
    count = f"{number / 1e9:.2g} billion" if number >= 1e8 else f"{number / 1e6:.2g} million"
    heads = f"{plural(sizes.num_attention_heads, 'head')} with {plural(sizes.num_key_value_heads, 'KV head')}"
    tower = f"a ConvNeXt with {plural(sum(sizes.vision_depths), 'block')}"
    if sizes.vision_layers:
        tower = f"a vision transformer with {plural(sizes.vision_layers, 'layer')}"
    of_several, of_one = sizes.grid_side(num_frames=2) ** 2, sizes.num_visual_tokens(1)
    alone = f", or {of_one} for a single one" if of_one != of_several else ""
    looking = "none of them attends to slow tokens"
    if sizes.hybrid_layers:
        several = len(sizes.hybrid_layers) > 1
        indices = ", ".join(map(str, sizes.hybrid_layers))
        looking = f"layer{'s' * several} {indices} also attend{'s' * (not several)} to slow tokens"
    return (
        f"{count} parameters: {tower} that takes "
        f"{sizes.image_size} px and gives {plural(of_several, 'token')} a frame{alone}; a decoder with "
        f"{plural(sizes.num_layers, 'layer')}, width {sizes.hidden_size}, {heads}, {sizes.vocab_size:,} tokens; "
        f"{looking}"
    )


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """A line a fact, from the object that --json prints."""
    lines = []
    if "license" in facts:
        at = f" at commit {facts['revision']}" if facts["revision"] else ""
        here = "not on this machine" if facts["folder"] is None else f"in {facts['folder']}{at}"
        where = "It has no weights; run it with --random-weights."
        if facts["repo_id"]:
            where = f"Repository: {facts['repo_id']}; {here}."
        elif facts["folder"]:
            where = f"Bundled, {here}."
        size = readable_size(facts["size_bytes"])
        lines = [facts["description"], f"Licence of the weights: {facts['license']}; {size}.", where]
        lines += [f"Also called {', '.join(facts['aliases'])}."] if facts["aliases"] else []
    trained, fast = facts["trained_with"], facts["fast_tokens"]
    in_prompt = "all visual tokens stand in the prompt"
    if facts["architecture"]["hybrid_layers"]:
        average = plural(fast["temporal_stride"], "frame")
        in_prompt = f"fast tokens are averages over {average}, at least {fast['min_fast_frames']}"
    frames = "an unknown number of frames" if trained["num_frames"] is None else plural(trained["num_frames"], "frame")
    return [
        *lines,
        f"{facts['described_as']}.",
        f"Trained with {frames}, {trained['sampling']} sampling, crop {trained['crop']}; {in_prompt}.",
        f"Default quantization: {facts['quantization']}.",
        *([facts["memory_hint"]] if "memory_hint" in facts else []),
    ]


_ROWS = {
    "weights": "weights",
    "visual_tokens": "slow and fast tokens",
    "kv_cache": "KV cache",
    "slow_keys_values": "slow keys and values",
    "frames": "frames",
    "encode_activations": "more during encoding",
    "prefill_activations": "more during prefill",
    "decode_activations": "more during decoding",
    "process": "the program itself",
}


def _table(estimates: "Mapping[str, MemoryEstimate]", fits: "Mapping[str, bool | None]") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("memory")
    for quantization in estimates:
        table.add_column(quantization, justify="right", no_wrap=True)
    for part, words in _ROWS.items():
        sizes = [estimate.parts[part] for estimate in estimates.values()]
        if any(sizes):
            table.add_row(words, *map(readable_size, sizes))
    table.add_section()
    table.add_row("peak", *(readable_size(estimate.peak_bytes) for estimate in estimates.values()))
    table.add_row("must be free", *(readable_size(estimate.needed_bytes) for estimate in estimates.values()))
    if None not in fits.values():
        table.add_row("fits here", *("yes" if each else "no" for each in fits.values()))
    return table
