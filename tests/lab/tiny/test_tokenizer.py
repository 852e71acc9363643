"""Every string encodes and comes back; the words of the trade are short; special tokens stay special."""

import pytest
from transformers import PreTrainedTokenizerFast

from sfvqa.lab.network import END_OF_TEXT, END_OF_TURN, START_OF_TURN
from sfvqa.lab.tiny.network import tiny_config, train_tokenizer
from sfvqa.lab.tiny.questions import REFUSAL


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(num_scenes=60)


@pytest.mark.parametrize(
    "text", ["What colour is the circle?", "你好 – ¿qué?", "a\n\n b\tc  ", "🟥🔵", "", "x" * 300, REFUSAL]
)
def test_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_are_qwen2s(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [tokenizer.convert_tokens_to_ids(t) for t in (END_OF_TEXT, START_OF_TURN, END_OF_TURN)] == [0, 1, 2]
    assert tokenizer.eos_token == END_OF_TURN
    assert tokenizer.padding_side == "left"
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert turn == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_it_complains_of_length_only_where_the_model_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    """At 1024 it warned on stderr of questions that the model has the positions for."""
    assert tokenizer.model_max_length == tiny_config(tokenizer).decoder_config.max_position_embeddings


def test_the_words_of_the_trade_are_few_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= 768
    assert len(tokenizer("The screen flashes purple.")["input_ids"]) <= 6
    assert len(tokenizer("You are a helpful assistant.")["input_ids"]) <= 8


def test_training_it_twice_gives_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    assert train_tokenizer(num_scenes=60).get_vocab() == tokenizer.get_vocab()
