"""A checkpoint folder → model and tokenizer on a device. Never downloads; says what is wrong with a folder."""

import contextlib
import hashlib
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.device import memory_errors, resolve_device, resolve_dtype, synchronize
from sfvqa.inference.locate import TOKENIZER_FILES, WEIGHTS, CheckpointLocation, locate
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration, read_config

_FETCH_AGAIN = "The checkpoint is incomplete or damaged: fetch it again, or name another with --model."


class AttentionKernel(StrEnum):
    """What computes attention, in transformers' names."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLASH_ATTENTION_2 = "flash_attention_2"


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A model ready to use, its tokenizer, the tokens that end an answer, and where it came from."""

    model: SlowFastForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    end_token_ids: frozenset[int]
    location: CheckpointLocation
    revision: str | None
    attention: AttentionKernel
    load_seconds: float


def load_checkpoint(
    model: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto", attention: str = "sdpa"
) -> LoadedCheckpoint:
    """Load a registered model or a checkpoint folder, in the reference's format or ours.

    Raises UnknownModelError, ModelNotDownloadedError, CheckpointError (naming file or tensors), UsageError for a
    device, dtype or attention that is not there, OutOfMemoryError.
    """
    start = time.perf_counter()
    where = resolve_device(device)
    kernel = _resolve_attention(attention)
    location = locate(model)
    config = read_config(location.folder)
    tokenizer = _load_tokenizer(location.folder, config)
    network = _load_model(location.folder, config, where, resolve_dtype(dtype, where, _stored_dtype(config)), kernel)
    _check_vocabulary(location.folder, tokenizer, config)
    synchronize(where)
    return LoadedCheckpoint(
        model=network,
        tokenizer=tokenizer,
        end_token_ids=_end_token_ids(location.folder, tokenizer, config),
        location=location,
        revision=location.revision or _bundled_revision(location),
        attention=kernel,
        load_seconds=time.perf_counter() - start,
    )


def _load_model(
    folder: Path, config: SlowFastConfig, device: torch.device, dtype: torch.dtype, attention: AttentionKernel
) -> SlowFastForConditionalGeneration:
    with memory_errors("loading the model"), _no_progress_bar():
        network = SlowFastForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=attention.value
        )
        network.to(device)  # type: ignore[arg-type]  # transformers wraps `to` and loses its signature
        network.eval()  # type: ignore[no-untyped-call]
        return network


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing on the terminal, which belongs to the command line."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


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
        except (OSError, ValueError) as error:
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


def _resolve_attention(name: str) -> AttentionKernel:
    try:
        kernel = AttentionKernel(name)
    except ValueError:
        raise UsageError(f"There is no attention {name!r}.", f"Use one of {', '.join(AttentionKernel)}.") from None
    if kernel is AttentionKernel.FLASH_ATTENTION_2 and importlib.util.find_spec("flash_attn") is None:
        raise UsageError("flash-attn is not installed.", "Install `sfvqa[flash-attn]`, or use --attention sdpa.")
    return kernel


def _bundled_revision(location: CheckpointLocation) -> str | None:
    """A hash of the bundled weights, which have no commit of their own and change with the package."""
    if location.spec is None or not location.spec.is_bundled:
        return None
    return hashlib.sha256((location.folder / WEIGHTS).read_bytes()).hexdigest()[:12]
