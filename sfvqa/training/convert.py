"""`python -m sfvqa.training.convert`: make a slow-fast checkpoint of a video model or of a plain decoder.

This is the paper's "plug and play", tensor by tensor. With its warm-up gates at zero the result's logits equal those of
what it was made from exactly, until it is trained. A video model (LLaVA-OneVision, SmolVLM2) keeps its vision tower; a
decoder gets one: a checkpoint's, a folder of a tower alone, or a new one.
"""

import argparse
import copy
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from sfvqa.checkpoints.find import locate
from sfvqa.checkpoints.load import check_checkpoint, load_tokenizer
from sfvqa.checkpoints.quantize import appearing, check_new, write_shards
from sfvqa.errors import CheckpointError, ExitCode, UsageError
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.config import read_json, reason_of
from sfvqa.model.families.slowfast import ConvNextBlock, Projector, SlowFastVisionConfig, VisionTower
from sfvqa.model.hybrid_layer import FAMILIES
from sfvqa.model.loading import StoredModel, TensorFiles, build_empty, refuse_misfits
from sfvqa.training.command import run
from sfvqa.training.origin import write_origin

TOWER_MODEL_TYPE = SlowFastVisionConfig.model_type
_HEAD = "head."  # of a tower that classified; nothing computes with it
_SHALLOW = 12  # blocks; ConvNeXt's layer scale of 1e-6 is for deeper towers: in a shallow one little would be learned
_SHALLOW_GAMMA = 0.3


@dataclass(frozen=True, eq=False)
class VisionSource:
    """A vision tower's sizes and its tensors by the tower's own names; `model`, in `folder`, None for random ones."""

    config: SlowFastVisionConfig
    folder: Path | None = None
    seed: int = 0
    model: str | Path | None = None

    @classmethod
    def of(cls, model: str | Path) -> "VisionSource":
        """That of a registered model, of a slow-fast checkpoint folder, or of a folder with a tower alone.

        The latter has a config.json of model type `slow_fast_vision` and timm's names of a ConvNeXt in its safetensors.
        Raises ModelError.
        """
        folder = locate(model).folder
        stated = read_json(folder / "config.json")
        if stated.get("model_type") == TOWER_MODEL_TYPE:
            config = SlowFastVisionConfig.from_dict(stated)
        else:
            config = StoredModel.of(folder, SlowFastForConditionalGeneration).config.vision
        return cls(config, folder, model=model)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """By name, without prefix; CheckpointError when a tower's folder holds others than its config describes."""
        if self.folder is None:
            yield from self._random_tower().state_dict().items()
        elif read_json(self.folder / "config.json").get("model_type") == TOWER_MODEL_TYPE:
            yield from self._of_tower_alone(self.folder)
        else:
            prefix = "vision_tower."
            for name, parts in StoredModel.of(self.folder, SlowFastForConditionalGeneration).tensors():
                if name.startswith(prefix):
                    yield name.removeprefix(prefix), parts["weight"]

    def _of_tower_alone(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        with torch.device("meta"):
            wanted = {name: list(tensor.shape) for name, tensor in VisionTower(self.config).state_dict().items()}
        files = TensorFiles(folder)
        found = {name: shape for name, shape in files.shapes.items() if not name.startswith(_HEAD)}
        refuse_misfits(folder, found, wanted)
        yield from ((name, files.read(name)) for name in files.shapes if name in wanted)

    def _random_tower(self) -> VisionTower:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            tower = VisionTower(self.config)
        if sum(self.config.depths) < _SHALLOW:
            for module in tower.modules():
                if isinstance(module, ConvNextBlock):
                    torch.nn.init.constant_(module.gamma, _SHALLOW_GAMMA)
        return tower


PAPER_EVERY = 8  # the paper's hybrid layers: 0, 8, 16, 24 of 28
GATE_BIAS = 1.0  # of a new dynamic gate, open alike for every token: the warm-up gate gets a gradient of one sign
_NOT_IN_THE_DECODER = ("vision_tower.", "projector.")
_RECOMPUTED = ".rotary_emb.inv_freq"  # in files of old versions of transformers


class SlowInit(StrEnum):
    """Where the first projection of slow keys and values comes from."""

    DECODER = "decoder"
    """The layer's own k_proj and v_proj: slow tokens look as they would in self-attention, but for RoPE."""
    RANDOM = "random"


@dataclass(frozen=True)
class ConversionOptions:
    """Settings of the conversion. `hybrid_layers` None: every eighth from 0, as in the paper."""

    hybrid_layers: tuple[int, ...] | None = None
    slow_init: SlowInit = SlowInit.DECODER
    temporal_stride: int = 4
    min_fast_frames: int = 16
    video_pooling_stride: int = 2
    seed: int = 0


def convert(decoder: Path, vision: VisionSource, out: Path, options: ConversionOptions | None = None) -> SlowFastConfig:
    """Convert a decoder folder (config.json, safetensors, tokenizer) to a slow-fast checkpoint folder `out`.

    The folder appears when it is whole and has been checked as loading does; at most a file's worth of tensors is in
    memory. Raises UsageError when `out` is there already or cannot be written, CheckpointError for an unknown family,
    weights that are missing, no safetensors or not those of the config, and a tokenizer that cannot be read.
    """
    options = options or ConversionOptions()
    check_new(out)
    config = slow_fast_config(decoder, vision, options)
    if not list(decoder.glob("*.safetensors")):
        raise CheckpointError(
            f"There are no weights in {decoder} (looked for *.safetensors).",
            "Download them, or save the model with transformers' save_pretrained.",
        )
    files = TensorFiles(decoder)
    _check_decoder(decoder, config, files)
    with appearing(out) as folder:
        write_shards(([part] for part in _tensors(files, vision, config, options)), folder)
        config.save_pretrained(folder)
        load_tokenizer(decoder).save_pretrained(folder)  # anew, to be loaded without knowing the decoder's type
        generation = decoder / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, folder / generation.name)
        write_origin(folder, decoder, vision=vision.model)
        check_checkpoint(folder)
    return config


def add_slow_path(
    model: str | Path,
    out: Path,
    *,
    num_fast_frames: int,
    num_slow_frames: int,
    options: ConversionOptions | None = None,
) -> SlowFastConfig:
    """Convert a video model without hybrid layers, a name or a folder, to a slow-fast checkpoint folder `out`.

    Tower, projector, decoder, tokenizer and template stay. Of `num_slow_frames` frames the text looks at all tokens,
    and `num_fast_frames`, evenly among them, stand in the prompt. Of `options` only what concerns the hybrid layers
    counts. Errors as of `convert`; UsageError for numbers of frames that do not divide.
    """
    options = options or ConversionOptions()
    check_new(out)
    if not 1 <= num_fast_frames <= num_slow_frames or num_slow_frames % num_fast_frames:
        raise UsageError(
            f"{num_fast_frames} fast frames cannot be spread evenly over {num_slow_frames} slow ones.",
            "Give a number of slow frames that is a multiple of the fast ones, such as 128 and 16.",
        )
    folder = locate(model).folder
    stored = StoredModel.of(folder, SlowFastForConditionalGeneration)
    config = copy.deepcopy(stored.config)
    if config.hybrid_layers:
        raise UsageError(f"{model} has hybrid layers already.", "Convert a video model without any, or a decoder.")
    layers, hybrid = config.decoder_config.num_hidden_layers, options.hybrid_layers
    config.hybrid_layers = list(range(0, layers, PAPER_EVERY) if hybrid is None else hybrid)
    config.temporal_sampling_stride = num_slow_frames // num_fast_frames
    config.min_fast_frames, config.training_num_frames = num_fast_frames, num_slow_frames
    with appearing(out) as unfinished:
        write_shards(([part] for part in _with_slow_path(stored, config, options)), unfinished)
        config.save_pretrained(unfinished)
        load_tokenizer(folder).save_pretrained(unfinished)
        if (generation := folder / "generation_config.json").is_file():
            shutil.copyfile(generation, unfinished / generation.name)
        write_origin(unfinished, model)
        check_checkpoint(unfinished)
    return config


def _with_slow_path(
    stored: StoredModel, config: SlowFastConfig, options: ConversionOptions
) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a video model, and those of slow attention behind the keys and values that they start from."""
    generator = torch.Generator().manual_seed(options.seed)
    own: dict[int, dict[str, Tensor]] = {layer: {} for layer in config.hybrid_layers}
    for name, parts in stored.tensors():
        tensor = parts["weight"]
        yield name, tensor
        for layer, found in own.items():
            prefix = f"language_model.layers.{layer}.self_attn."
            if name.startswith((f"{prefix}k_proj.", f"{prefix}v_proj.")):
                found[name.removeprefix(prefix)] = tensor.clone()
    for layer, found in own.items():
        for name, tensor in slow_attention_tensors(found, config.decoder_config, options.slow_init, generator).items():
            yield f"language_model.layers.{layer}.self_attn.slow_attention.{name}", tensor.to(stored.dtype)


def slow_fast_config(decoder: Path, vision: VisionSource, options: ConversionOptions) -> SlowFastConfig:
    """The config of the converted model; CheckpointError if decoder and options do not fit together."""
    stated = read_json(decoder / "config.json")
    if (family := stated.get("model_type")) not in FAMILIES:
        raise CheckpointError(
            f"{decoder} holds a decoder of type {family!r}, which cannot have hybrid layers.",
            f"Supported: {', '.join(sorted(FAMILIES))}.",
        )
    if stated.get("quantization_config") is not None:
        raise CheckpointError(f"The decoder in {decoder} is quantized.", "Convert the unquantized one.")
    try:
        text_config = AutoConfig.from_pretrained(decoder, local_files_only=True)
    except Exception as error:  # transformers checks little before it computes with what it was given
        raise CheckpointError(f"{decoder / 'config.json'} cannot be used: {reason_of(error)}.", "Check it.") from error
    hybrid = options.hybrid_layers
    return SlowFastConfig(
        vision_config=vision.config,
        text_config=text_config,
        video_pooling_stride=options.video_pooling_stride,
        temporal_stride=options.temporal_stride,
        min_fast_frames=options.min_fast_frames,
        hybrid_layers=tuple(range(0, text_config.num_hidden_layers, PAPER_EVERY)) if hybrid is None else hybrid,
        dtype=text_config.dtype,
        architectures=[SlowFastForConditionalGeneration.__name__],
    )


def interleave(keys: Tensor, values: Tensor, num_kv_heads: int) -> Tensor:
    """Rows of k_proj and v_proj → rows laid out `[kv_head, (k | v), head_dim]`, as slow attention reads them.

    >>> interleave(torch.tensor([0, 1, 2, 3]), torch.tensor([10, 11, 12, 13]), num_kv_heads=2).tolist()
    [0, 1, 10, 11, 2, 3, 12, 13]
    """
    both = [part.unflatten(0, (num_kv_heads, -1)) for part in (keys, values)]
    return torch.stack(both, dim=1).flatten(0, 2)


def _decoder_names(files: TensorFiles, config: SlowFastConfig) -> dict[str, str]:
    """By our names, what the files call the plain decoder's tensors."""
    names = {}
    for name in files.shapes:
        own = f"language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name
        if not own.endswith(_RECOMPUTED) and not (config.tie_word_embeddings and own == "lm_head.weight"):
            names[own] = name
    return names


def _check_decoder(decoder: Path, config: SlowFastConfig, files: TensorFiles) -> None:
    """CheckpointError unless the files hold exactly the plain decoder's tensors."""
    model = build_empty(SlowFastForConditionalGeneration, config, described_in=decoder / "config.json")
    wanted = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith(_NOT_IN_THE_DECODER) and ".slow_attention." not in name
    }
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    found = {own: files.shapes[name] for own, name in _decoder_names(files, config).items()}
    refuse_misfits(decoder, found, wanted)


def _tensors(
    files: TensorFiles, vision: VisionSource, config: SlowFastConfig, options: ConversionOptions
) -> Iterator[tuple[str, Tensor]]:
    """Everything the converted model holds, the new tensors in the decoder's own dtype."""
    names, dtype = _decoder_names(files, config), config.stored_dtype
    for name, stored_name in names.items():
        tensor = files.read(stored_name)
        dtype = dtype or tensor.dtype
        yield name, tensor
    assert dtype is not None
    generator = torch.Generator().manual_seed(options.seed)
    for layer in config.hybrid_layers:
        attention = f"language_model.layers.{layer}.self_attn"
        own = {
            f"{part}_proj.{kind}": files.read(names[name])
            for part in "kv"
            for kind in ("weight", "bias")
            if (name := f"{attention}.{part}_proj.{kind}") in names
        }
        for name, tensor in slow_attention_tensors(own, config.decoder_config, options.slow_init, generator).items():
            yield f"{attention}.slow_attention.{name}", tensor.to(dtype)
    for name, tensor in vision.tensors():
        yield f"vision_tower.{name}", tensor.to(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + 1)
        projector = Projector(config.vision.dims[-1], config.decoder_config.hidden_size)
    for name, tensor in projector.state_dict().items():
        yield f"projector.{name}", tensor.to(dtype)


def slow_attention_tensors(
    own: dict[str, Tensor], decoder: Any, slow_init: SlowInit, generator: torch.Generator
) -> dict[str, Tensor]:
    """What a hybrid layer's slow attention starts from; `own` are the tensors of its `k_proj` and `v_proj`."""
    keys = own["k_proj.weight"]
    no_bias = keys.new_zeros(len(keys))
    if slow_init is SlowInit.DECODER:
        weight = interleave(keys, own["v_proj.weight"], num_kv_heads=decoder.num_key_value_heads)
        biases = own.get("k_proj.bias", no_bias), own.get("v_proj.bias", no_bias)
        bias = interleave(*biases, num_kv_heads=decoder.num_key_value_heads)
    else:
        weight = torch.randn(2 * len(keys), keys.shape[1], generator=generator) * decoder.initializer_range
        bias = torch.cat([no_bias, no_bias])
    queries = len(keys) // decoder.num_key_value_heads * decoder.num_attention_heads
    return {
        "kv_proj.weight": weight,
        "kv_proj.bias": bias,
        "gate_proj.weight": torch.randn(1, queries, generator=generator) * decoder.initializer_range,
        "gate_proj.bias": torch.full((1,), GATE_BIAS),
        "warm_up_gate": torch.zeros(1),
    }


RANDOM = "random"
_NUMBERS = {
    "temporal_stride": "plain decoder: frames that a fast token averages",
    "min_fast_frames": "plain decoder: fewest averages over time in a prompt",
    "video_pooling_stride": "plain decoder: side of the square of cells that one token averages",
    "seed": "seed of all new weights",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = ConversionOptions()
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.convert", description=__doc__)
    parser.add_argument("model", help="a video model (a name or a folder), or the folder of a plain decoder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    add = parser.add_argument
    add(
        "--vision",
        help="plain decoder: the vision tower that it gets, of a registered model, a slow-fast checkpoint folder, or a "
        "folder with a tower alone (config.json of model type slow_fast_vision, timm's tensor names); or `random`, "
        "with the sizes below",
    )
    add("--image-size", type=int, default=64, help="random tower: side of a frame in pixels (default: 64)")
    add(
        "--vision-depths",
        type=_numbers,
        default=(2, 2),
        help="random tower: blocks of each stage, such as 3,4,30,3 (default: 2,2)",
    )
    add("--vision-dims", type=_numbers, default=(32, 96), help="random tower: width of each stage (default: 32,96)")
    add("--fast-frames", type=int, default=16, help="video model: frames in the prompt (default: 16)")
    add("--slow-frames", type=int, default=128, help="video model: frames that the text looks at (default: 128)")
    add(
        "--hybrid-layers",
        type=_numbers,
        help="layers that look at slow tokens, such as 0,8,16,24 (default: every eighth from 0)",
    )
    add(
        "--slow-init",
        type=SlowInit,
        choices=list(SlowInit),
        default=defaults.slow_init,
        help="start slow keys and values from the decoder's own, or at random (default: decoder)",
    )
    for name, said in _NUMBERS.items():
        default = getattr(defaults, name)
        add(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{said} (default: {default})")
    return parser.parse_args(arguments)


_OF_A_RANDOM_TOWER = ("image_size", "vision_depths", "vision_dims")
_OF_A_DECODER = ("vision", *_OF_A_RANDOM_TOWER, "temporal_stride", "min_fast_frames", "video_pooling_stride")
_OF_A_VIDEO_MODEL = ("fast_frames", "slow_frames")


def _refuse(asked: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """UsageError for the first option of these that is given, and would have no effect."""
    defaults = vars(parse_arguments(["", "--out", ""]))
    if given := [name for name in names if getattr(asked, name) != defaults[name]]:
        raise UsageError(f"--{given[0].replace('_', '-')} has no effect: {why}.", "Leave it out.")


def options_of(arguments: argparse.Namespace) -> tuple[VisionSource, ConversionOptions]:
    """The options of a command line; ModelError if there is no such tower."""
    given = vars(arguments)
    options = ConversionOptions(**{field.name: given[field.name] for field in fields(ConversionOptions)})
    if arguments.vision is None:
        raise UsageError("A plain decoder needs a vision tower.", "Name a model that has one with --vision.")
    if arguments.vision != RANDOM:
        _refuse(arguments, _OF_A_RANDOM_TOWER, "only a tower of --vision random is made by it")
        return VisionSource.of(arguments.vision), options
    sizes = SlowFastVisionConfig(
        image_size=arguments.image_size, depths=arguments.vision_depths, dims=arguments.vision_dims
    )
    return VisionSource(sizes, seed=arguments.seed), options


def main(arguments: list[str] | None = None) -> int:
    """Convert, and print the result."""
    asked = parse_arguments(arguments)

    def convert_and_tell() -> int:
        config = _convert_as(asked)
        layers = ", ".join(map(str, config.hybrid_layers))
        print(f"{asked.out}: {config.decoder_config.model_type} with hybrid layers {layers}")
        return ExitCode.OK

    return run(convert_and_tell, stopped=f"Stopped: {asked.out} was not written.")


def _convert_as(asked: argparse.Namespace) -> SlowFastConfig:
    """Convert the decoder or the video model that is named."""
    if Path(asked.model).is_dir() and read_json(Path(asked.model) / "config.json").get("model_type") in FAMILIES:
        _refuse(asked, _OF_A_VIDEO_MODEL, f"{asked.model} is a plain decoder, and it is of a video model")
        vision, options = options_of(asked)
        return convert(Path(asked.model), vision, asked.out, options)
    locate(asked.model)
    _refuse(asked, _OF_A_DECODER, f"{asked.model} is no plain decoder, and a video model keeps its own")
    return add_slow_path(
        asked.model,
        asked.out,
        num_fast_frames=asked.fast_frames,
        num_slow_frames=asked.slow_frames,
        options=ConversionOptions(asked.hybrid_layers, asked.slow_init, seed=asked.seed),
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Parse comma-separated whole numbers."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
