"""The bundled model's tokenizer: a small byte-level BPE learned from the project's own questions and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sfvqa.inference.prompt import CHATML_TEMPLATE
from sfvqa.training.out_of_scope import REFUSAL
from sfvqa.training.questions import Family, ask
from sfvqa.training.scenes import random_scene
from sfvqa.training.tiny_model import MAX_POSITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCAB_SIZE = 768
# Qwen2's: words with their leading space, single digits, line ends apart.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(*, seed: int = 0, num_scenes: int = 3000, vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """Learn tiny's tokenizer from tiny's questions."""
    return learn_tokenizer(_corpus(seed, num_scenes), vocab_size)


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
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _corpus(seed: int, num_scenes: int) -> Iterator[str]:
    rng = np.random.default_rng([seed, 77])
    for _ in range(num_scenes // 10):
        yield "system\nYou are a helpful assistant.\nuser\nassistant\n"
        yield REFUSAL
    for _ in range(num_scenes):
        scene = random_scene(rng)
        for family in Family:
            question = ask(rng, scene, family)
            if question is not None:
                yield question.text
                yield question.answer
