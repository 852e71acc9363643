"""What models trained from nothing on synthetic videos share: a small decoder, first values, and a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Config

from sfvqa.model.families.slowfast import CHATML_TEMPLATE, ConvNextBlock
from sfvqa.model.hybrid_layer import GatedSlowAttention

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfvqa.model import SlowFastForConditionalGeneration


END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Qwen2's: words with their leading space, single digits, line ends apart.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MODEL_MAX_LENGTH = 2048  # tokens above which the tokenizer warns
OPEN = 1.0  # first value of the gates that are learned: from zero slow attention learns once they have opened


def small_decoder(
    tokenizer: PreTrainedTokenizerFast, width: int, *, num_layers: int, max_positions: int
) -> Qwen2Config:
    """A Qwen2 of four heads that share two keys and values."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def prepare(model: SlowFastForConditionalGeneration, first_gate: float = OPEN) -> None:
    """First values of what sees and of the gates, for a model that learns from nothing; warm-up ones: `first_gate`."""
    for part in (model.vision_tower, model.projector):
        _prepare_vision(part)
    for module in model.modules():
        if isinstance(module, ConvNextBlock):
            nn.init.constant_(module.gamma, 0.3)  # ConvNeXt's 1e-6 is for towers ten times as deep
        elif isinstance(module, GatedSlowAttention):
            if module.warm_up_gate.requires_grad:
                nn.init.constant_(module.warm_up_gate, first_gate)
            if module.gate_proj is not None:
                nn.init.constant_(module.gate_proj.bias, OPEN)


def _prepare_vision(part: nn.Module) -> None:
    """PyTorch's own first values for convolutions, variance-keeping ones for linear layers."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)


def learn_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer; every string encodes, because every byte is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True) for t in (END_OF_TEXT, START_OF_TURN, END_OF_TURN)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return with_template(tokenizer)


def with_template(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """What was learned, with its special tokens named and the chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        chat_template=CHATML_TEMPLATE,
        model_max_length=MODEL_MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
