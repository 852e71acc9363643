"""Pieces of text never break a character, and together are the decoded whole, whatever the tokens."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from sfvqa.inference.answer_row import REPLACEMENT, IncrementalDetokenizer
from tests.inference.small_checkpoint import VOCABULARY_SIZE, byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()


def pieces_of(token_ids: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(TOKENIZER)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.finish()]


@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=40))
def test_pieces_of_any_tokens_are_the_decoded_whole(token_ids: list[int]) -> None:
    """Also of ids that the model has and the tokenizer has not: 7B checkpoints have 400 of them."""
    whole = TOKENIZER.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces_of(token_ids)) == whole


@given(st.text(max_size=30))
def test_pieces_of_any_text_break_no_character(text: str) -> None:
    token_ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(token_ids)
    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in pieces)


def test_a_character_of_four_tokens_comes_with_its_last() -> None:
    token_ids = TOKENIZER("🎬é", add_special_tokens=False)["input_ids"]
    assert len(token_ids) == 6
    assert pieces_of(token_ids) == ["", "", "", "🎬", "", "é", ""]


def test_half_a_character_at_the_end_is_not_lost() -> None:
    token_ids = TOKENIZER("aé", add_special_tokens=False)["input_ids"][:-1]
    assert pieces_of(token_ids) == ["a", "", REPLACEMENT]


def test_spaces_stay_where_a_decoder_drops_the_first() -> None:
    """Decoders of the sentencepiece kind drop the space in front of whatever token they are given first."""
    words = Tokenizer(models.WordLevel({"▁The": 0, "▁circle": 1, "▁moves": 2, "<unk>": 3}, unk_token="<unk>"))
    words.decoder = decoders.Metaspace()
    detokenizer = IncrementalDetokenizer(PreTrainedTokenizerFast(tokenizer_object=words))
    assert [detokenizer.push(token_id) for token_id in (0, 1, 2)] == ["The", " circle", " moves"]


def test_text_comes_token_by_token() -> None:
    assert pieces_of(TOKENIZER("It is", add_special_tokens=False)["input_ids"]) == ["I", "t", " ", "i", "s", ""]
