"""Tokens as they come → pieces of text that never break a character in two."""

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class IncrementalDetokenizer:
    """Turns one token after another into text; the pieces together are exactly the decoded whole.

    A byte-level token may hold part of a character: its text is held back while it ends in a replacement character,
    and whatever is still held when `finish` is called comes out as it is.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        # Decoding starts at `_context`, not at what is new: some decoders treat the first token differently.
        self._context = 0
        self._written = 0

    def push(self, token_id: int) -> str:
        """Take one token, return the text that is now certain (often empty for a part of a character)."""
        self._token_ids.append(token_id)
        piece = self._pending()
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        self._context, self._written = self._written, len(self._token_ids)
        return piece

    def finish(self) -> str:
        """Return what is still held back."""
        piece = self._pending()
        self._context = self._written = len(self._token_ids)
        return piece

    def _pending(self) -> str:
        known = self._decode(self._token_ids[self._context : self._written])
        return self._decode(self._token_ids[self._context :])[len(known) :]

    def _decode(self, token_ids: list[int]) -> str:
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
