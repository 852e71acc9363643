"""Load model and tokenizer from a checkpoint folder onto a device. Never downloads."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedTokenizerBase

from sfvqa.checkpoints.adapter import Adapter
from sfvqa.checkpoints.device import free_memory_bytes, memory_errors, synchronize
from sfvqa.checkpoints.find import (
    TOKENIZER_FILES,
    CheckpointLocation,
    ModelSettings,
    find_for_random_weights,
    identify_checkpoint,
    identify_seeing,
    locate,
    revision_of,
)
from sfvqa.checkpoints.host import keep_blocks, return_large_blocks
from sfvqa.checkpoints.known import DEFAULT_NUM_FRAMES, TrainedWith, read_sizes, trained_with_adapter
from sfvqa.checkpoints.memory import RunSize, estimate_memory
from sfvqa.checkpoints.placement import AttentionKernel, compute_exactly, place, resolve_attention, resolve_quantization
from sfvqa.checkpoints.plan import config_of, resolve_place, warnings_about, what_should_fit
from sfvqa.errors import CheckpointError, UsageError
from sfvqa.model import (
    RecordedSteps,
    SlowFastConfig,
    SlowFastForConditionalGeneration,
    read_config,
    read_quantization,
)
from sfvqa.model.block_attention import BLOCK_ATTENTION
from sfvqa.model.config import FETCH_AGAIN, read_json, reason_of
from sfvqa.model.loading import StoredModel, read_generation_config
from sfvqa.model.packing import onednn_has_bfloat16, pack_linears
from sfvqa.model.quantization import Quantization
from sfvqa.model.slow_fast import random_model
from sfvqa.registry import BUNDLED_MODEL, QuantizationName


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A model ready to use, its tokenizer, the tokens that end an answer, and where it came from.

    `identity` tells what it sees of a video from what all others do; `warnings` go with every answer. `recorded_steps`
    are kept from one answer to the next.
    """

    model: SlowFastForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    end_token_ids: frozenset[int]
    location: CheckpointLocation
    revision: str | None
    attention: AttentionKernel
    load_seconds: float
    identity: str
    quantization: Quantization = Quantization.NONE
    random_weights: bool = False
    warnings: tuple[str, ...] = ()
    recorded_steps: RecordedSteps = field(default_factory=RecordedSteps)
    adapter: Adapter | None = None

    @property
    def device_names(self) -> str:
        """The model's devices: `cpu`, `cuda:0`, or `cuda:0, cuda:1` if it is split."""
        return ", ".join(sorted({str(parameter.device) for parameter in self.model.parameters()}))

    @property
    def trained_with(self) -> TrainedWith:
        """How the model was trained on videos, by its adapter, models.toml or else its own config."""
        config = self.model.config
        if self.adapter is not None and self.adapter.trained:
            return trained_with_adapter(self.adapter)
        return TrainedWith.of(
            self.location.spec, config.training_num_frames, config.training_sampling, config.training_crop
        )


def load_checkpoint(settings: ModelSettings) -> LoadedCheckpoint:
    """Load a registered model or a checkpoint folder, in the reference's format or ours, straight onto its device.

    Quantization `auto` is what the weights are stored in. An adapter is merged into what is not quantized, and computed
    beside what is. Random weights build a registered model by models.toml alone.
    Raises UnknownModelError, ModelNotDownloadedError, CheckpointError (naming file or tensors), UsageError for a
    device, dtype, attention or quantization that is not there, OutOfMemoryError.
    """
    start = time.perf_counter()
    return_large_blocks()
    adapter = None if settings.adapter is None else Adapter.of(settings.adapter)
    sizes = read_sizes(settings.name, settings.adapter)
    where, dtype = resolve_place(settings, sizes)
    if where.type == "cuda" and dtype is torch.float32:
        compute_exactly()
    config, (location, stored, build, told) = config_for(settings), _source(settings, adapter)
    identity = identify_seeing(settings)
    bits = resolve_quantization(settings.quantization, where, stored)
    tokenizer = load_tokenizer(location.folder, config)
    if settings.random_weights and config.family.video_token is not None:
        tokenizer.chat_template = None  # the bundled tokenizer's own lays out another family's prompts
    kernel = resolve_attention(settings.attention, where, dtype)
    by_onednn = where.type == "cpu" and dtype is torch.bfloat16 and onednn_has_bfloat16()
    in_blocks = by_onednn and kernel is AttentionKernel.SDPA
    num_frames, quantization = config.training_num_frames or DEFAULT_NUM_FRAMES, QuantizationName(bits.value)
    run = RunSize(num_frames, str(dtype).removeprefix("torch."), where.type, quantization)
    placement = place(settings.device, where, dtype, bits, estimate_memory(sizes.sizes, sizes.fast, run))
    remedy = partial(
        what_should_fit,
        config,
        num_frames,
        device=where,
        dtype=dtype,
        quantization=quantization,
        free_bytes=free_memory_bytes(where),
        is_loaded=False,
    )
    with memory_errors("loading the model", remedy):
        model = build(
            config=config,
            dtype=dtype,
            device_map=placement,
            attn_implementation=BLOCK_ATTENTION if in_blocks else kernel.value,
            quantization=bits,
        )
        if where.type == "cpu":
            pack_linears(model, dtype)
    synchronize(where)
    keep_blocks()
    return LoadedCheckpoint(
        model=model,
        tokenizer=tokenizer,
        end_token_ids=end_token_ids(location.folder, tokenizer, config),
        location=location,
        revision=None if settings.random_weights else revision_of(location),
        attention=kernel,
        load_seconds=time.perf_counter() - start,
        identity=identity,
        quantization=bits,
        random_weights=settings.random_weights,
        warnings=(*warnings_about(settings.device, where, dtype), *told),
        adapter=adapter,
    )


def _source(
    settings: ModelSettings, adapter: Adapter | None
) -> tuple[CheckpointLocation, Quantization, Callable[..., Any], tuple[str, ...]]:
    """Where a model is, how its weights are stored, what builds it, and warnings about that."""
    if settings.random_weights:
        if adapter is not None:
            raise UsageError("An adapter changes trained weights.", "Leave out --adapter or --random-weights.")
        spec = find_for_random_weights(settings.name)
        location = CheckpointLocation(spec.name, locate(BUNDLED_MODEL).folder, spec)  # its own tokenizer may be absent
        told = f"The weights of {spec.name} are random: the answer means nothing."
        return location, Quantization.NONE, random_model, (told,)
    location = locate(settings.name)
    stored = read_quantization(location.folder)
    build = partial(SlowFastForConditionalGeneration.from_pretrained, location.folder)
    if adapter is None:
        return location, stored, build, ()
    warnings = adapter.warnings(location.name, identify_checkpoint(location, random_weights=False))
    return replace(location, name=settings.title), stored, partial(build, adapter=adapter.tensors), warnings


def config_for(settings: ModelSettings) -> SlowFastConfig:
    """The config of the model that `load_checkpoint` loads. Raises ModelError."""
    if settings.random_weights:
        return config_of(find_for_random_weights(settings.name))
    return read_config(locate(settings.name).folder)


def check_checkpoint(folder: Path) -> None:
    """Raise the CheckpointError that loading a folder would raise: from config, headers and tokenizer, no values."""
    config = read_config(folder)
    StoredModel.of(folder, SlowFastForConditionalGeneration, config)
    end_token_ids(folder, load_tokenizer(folder, config), config)


def load_tokenizer(folder: Path, config: SlowFastConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in a checkpoint folder; CheckpointError names files that are missing, damaged or of another model.

    Which class it is, transformers says by the model's type; of those that it does not know, the files do, given the
    config.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        names = ", ".join(TOKENIZER_FILES)
        raise CheckpointError(f"There is no tokenizer in {folder} (looked for {names}).", FETCH_AGAIN)
    own: Any = config
    if config is not None:
        model_type = str(read_json(folder / "config.json").get("model_type"))
        own = CONFIG_MAPPING[model_type]() if model_type in CONFIG_MAPPING else config
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=own, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare one for a damaged file
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {reason_of(error)}.", FETCH_AGAIN) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    for name in ("chat_template.json", "processor_config.json"):  # a processor's own, which goes before the tokenizer's
        if (folder / name).is_file() and (template := read_json(folder / name).get("chat_template")):
            tokenizer.chat_template = template
    if config is not None and len(tokenizer) > (size := config.decoder_config.vocab_size):
        raise CheckpointError(
            f"The tokenizer in {folder} knows {len(tokenizer)} tokens, the model {size}.",
            "Tokenizer and weights are of different models: fetch the checkpoint again.",
        )
    return tokenizer


def end_token_ids(folder: Path, tokenizer: PreTrainedTokenizerBase, config: SlowFastConfig) -> frozenset[int]:
    """Every token that ends an answer; a source may name several.

    Those of generation_config.json or else, as transformers has it, of config.json, whose class may have one of its own
    (Llama's is 2, whatever the vocabulary); and the tokenizer's.
    """
    stated = _named_ends(read_generation_config(folder)) or _named_ends(config) | _named_ends(config.decoder_config)
    return frozenset(stated | _named_ends(tokenizer))


def _named_ends(source: object) -> set[int]:
    ids = getattr(source, "eos_token_id", None)
    return {token for token in (ids if isinstance(ids, list | tuple) else [ids]) if isinstance(token, int)}
