"""A checkpoint folder → model and tokenizer on a device. Never downloads; says what is wrong with a folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from sfvqa.checkpoints.device import (
    AttentionKernel,
    free_memory_bytes,
    memory_errors,
    place,
    resolve_attention,
    resolve_device,
    resolve_dtype,
    resolve_quantization,
    synchronize,
)
from sfvqa.checkpoints.find import (
    TOKENIZER_FILES,
    CheckpointLocation,
    find_for_random_weights,
    identify_checkpoint,
    locate,
    revision_of,
)
from sfvqa.checkpoints.host_memory import return_large_blocks
from sfvqa.checkpoints.known import DEFAULT_NUM_FRAMES, TrainedWith
from sfvqa.checkpoints.plan import BUNDLED_MODEL, config_of, what_should_fit
from sfvqa.checkpoints.settings import ModelSettings
from sfvqa.errors import CheckpointError
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration, read_config, read_quantization
from sfvqa.model.loading import StoredModel
from sfvqa.model.quantization import Quantization
from sfvqa.model.slow_fast import random_model
from sfvqa.registry import QuantizationName

_FETCH_AGAIN = "The checkpoint is incomplete or damaged: fetch it again, or name another with --model."


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A model ready to use, its tokenizer, the tokens that end an answer, and where it came from.

    `identity` tells these weights from all others; `warnings` go with every answer.
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

    @property
    def device_names(self) -> str:
        """Where the model is: `cpu`, `cuda:0`, or `cuda:0, cuda:1` for one that is spread."""
        return ", ".join(sorted({str(parameter.device) for parameter in self.model.parameters()}))

    @property
    def trained_with(self) -> TrainedWith:
        """How the model looked at videos in training, by models.toml or else its own config."""
        config = self.model.config
        return TrainedWith.of(
            self.location.spec, config.training_num_frames, config.training_sampling, config.training_crop
        )


def load_checkpoint(settings: ModelSettings) -> LoadedCheckpoint:
    """Load a registered model or a checkpoint folder, in the reference's format or ours, straight onto its device.

    Quantization `auto` is what the weights are stored in. Random weights build a registered model by models.toml alone.
    Raises UnknownModelError, ModelNotDownloadedError, CheckpointError (naming file or tensors), UsageError for a
    device, dtype, attention or quantization that is not there, OutOfMemoryError.
    """
    start = time.perf_counter()
    return_large_blocks()
    where = resolve_device(settings.device)
    source = _untrained(settings.name) if settings.random_weights else _trained(settings.name)
    location, config = source.location, source.config
    identity = identify_checkpoint(location, random_weights=settings.random_weights)
    bits = resolve_quantization(settings.quantization, where, source.stored)
    tokenizer = _load_tokenizer(location.folder, config)
    weights_dtype = resolve_dtype(settings.dtype, where, _stored_dtype(config))
    kernel = resolve_attention(settings.attention, where, weights_dtype)
    placement = place(settings.device, where, weights_dtype, bits)
    remedy = partial(
        what_should_fit,
        config,
        config.training_num_frames or DEFAULT_NUM_FRAMES,
        device=where,
        dtype=weights_dtype,
        quantization=QuantizationName(bits.value),
        free_bytes=free_memory_bytes(where),
        is_loaded=False,
    )
    with memory_errors("loading the model", remedy):
        network = source.build(
            dtype=weights_dtype, device_map=placement, attn_implementation=kernel.value, quantization=bits
        )
    _check_vocabulary(location.folder, tokenizer, config)
    synchronize(where)
    return LoadedCheckpoint(
        model=network,
        tokenizer=tokenizer,
        end_token_ids=_end_token_ids(location.folder, tokenizer, config),
        location=location,
        revision=None if settings.random_weights else revision_of(location),
        attention=kernel,
        load_seconds=time.perf_counter() - start,
        identity=identity,
        quantization=bits,
        random_weights=settings.random_weights,
        warnings=source.warnings,
    )


def check_checkpoint(folder: Path) -> None:
    """Raise the CheckpointError that loading a folder would raise: from config, headers and tokenizer, no values."""
    config = read_config(folder)
    tokenizer = _load_tokenizer(folder, config)
    StoredModel.of(folder, SlowFastForConditionalGeneration, config)
    _check_vocabulary(folder, tokenizer, config)
    _end_token_ids(folder, tokenizer, config)


@dataclass(frozen=True, eq=False)
class _Source:
    """Where a model's weights come from: `location` is the folder of files or, for random ones, of the tokenizer."""

    location: CheckpointLocation
    config: SlowFastConfig
    build: Callable[..., SlowFastForConditionalGeneration]
    stored: Quantization = Quantization.NONE
    warnings: tuple[str, ...] = ()


def _trained(model: str | Path) -> _Source:
    location = locate(model)
    config = read_config(location.folder)
    build = partial(SlowFastForConditionalGeneration.from_pretrained, location.folder, config=config)
    return _Source(location, config, build, read_quantization(location.folder))


def _untrained(model: str | Path) -> _Source:
    spec = find_for_random_weights(model)
    config = config_of(spec)
    tokenizer_folder = locate(BUNDLED_MODEL).folder  # the model's own may not be on this machine
    warning = f"The weights of {spec.name} are random: the answer means nothing."
    location = CheckpointLocation(spec.name, tokenizer_folder, spec)
    return _Source(location, config, partial(random_model, config), warnings=(warning,))


def _load_tokenizer(folder: Path, config: SlowFastConfig) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer; CheckpointError names the missing or damaged files."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"There is no tokenizer in {folder} (looked for {', '.join(TOKENIZER_FILES)}).", _FETCH_AGAIN
        )
    try:
        # Given the config, transformers need not guess a tokenizer from a model type it does not know.
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare one for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {reason}.", _FETCH_AGAIN) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, config: SlowFastConfig) -> None:
    if len(tokenizer) > config.decoder_config.vocab_size:
        raise CheckpointError(
            f"The tokenizer in {folder} knows {len(tokenizer)} tokens, the model {config.decoder_config.vocab_size}.",
            "Tokenizer and weights are of different models: fetch the checkpoint again.",
        )


def _end_token_ids(folder: Path, tokenizer: PreTrainedTokenizerBase, config: SlowFastConfig) -> frozenset[int]:
    """Every token that ends an answer: of generation_config.json, config.json and the tokenizer; each may be a list."""
    found: set[int] = set()
    sources: list[object] = [getattr(part, "eos_token_id", None) for part in (config, config.decoder_config, tokenizer)]
    if (folder / "generation_config.json").is_file():
        try:
            sources.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
        except (OSError, ValueError, TypeError) as error:  # TypeError: JSON that is no object
            raise CheckpointError(
                f"{folder / 'generation_config.json'} cannot be read: {error}.", _FETCH_AGAIN
            ) from error
    for source in sources:
        ids = source if isinstance(source, list | tuple) else [source]
        found.update(token_id for token_id in ids if isinstance(token_id, int))
    return frozenset(found)


def _stored_dtype(config: SlowFastConfig) -> torch.dtype | None:
    stored = config.dtype
    if isinstance(stored, str):
        stored = getattr(torch, stored, None)
    return stored if isinstance(stored, torch.dtype) else None
