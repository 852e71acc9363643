"""One answer of a run while it is written: tokens become text, and what waits together has its times together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from sfvqa.inference.answer import ChoiceProbability, FinishReason, TokenProbability
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GeneratedToken
from sfvqa.inference.prompt import BuiltPrompt
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.model.visual_tokens import VisualTokens

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


class TextBefore:
    """Lets text through that comes before any of some texts, whatever pieces it comes in.

    What may be the beginning of one is held back until it is certain. Of several the one counts that is whole first;
    of those whole at the same character, the longest.

    >>> text = TextBefore(("END", "ENTER"))
    >>> [text.push(piece) for piece in ("no E", "N", "d, an", "d EN", "D of it")], text.is_over
    (['no ', '', 'ENd, an', 'd ', ''], True)
    """

    def __init__(self, ends: Sequence[str]) -> None:
        self.is_over = False
        self._ends = ends
        self._held = ""

    def push(self, piece: str) -> str:
        """Take a piece, return the text that is now certain."""
        text = self._held + piece
        found = [(text.index(end) + len(end), text.index(end)) for end in self._ends if end in text]
        if found:
            self.is_over, self._held = True, ""
            return text[: min(found)[1]]
        longest = max(map(len, self._ends), default=1) - 1
        starts = range(max(len(text) - longest, 0), len(text))
        held = next((start for start in starts if any(end.startswith(text[start:]) for end in self._ends)), len(text))
        self._held = text[held:]
        return text[:held]

    def finish(self) -> str:
        """Return what is still held back."""
        held, self._held = self._held, ""
        return held


class AnswerGroup:
    """Questions that came into a run together, and wait together; with those that were there, they were `size`."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.has_begun = size, False
        self.prefill_watch = Stopwatch(device)
        # A token is waited for, and no more than it: behind it the device is at the next one.
        self.first_token_watch, self.decode_watch = Stopwatch(), Stopwatch()


@dataclass(eq=False)
class AnswerRow:
    """Its question, prompt and tokens; `num_last` of the prompt's tokens go through the model for it, come what may.

    `lead` is what a template leaves to the model to begin an answer with, and no part of its text, which ends where
    `before` and `stop_when` say.
    """

    encoded: EncodedVideo | None
    question: str
    group: AnswerGroup
    prompt: BuiltPrompt
    detokenizer: IncrementalDetokenizer
    before: TextBefore
    stop_when: Callable[[str], bool] | None = None
    lead: str = ""
    num_last: int = 1
    pieces: list[str] = field(default_factory=list)
    new_ids: list[int] = field(default_factory=list)
    log_probabilities: list[TokenProbability] = field(default_factory=list)
    num_reused: int = 0
    finish_reason: FinishReason = FinishReason.INTERRUPTED
    choices: tuple[ChoiceProbability, ...] = ()

    def take(self, token: GeneratedToken | None) -> str:
        """Add one token and return the text it completes."""
        if token is None:
            return ""
        self.new_ids.append(token.token_id)
        piece = "" if token.is_end else self.detokenizer.push(token.token_id)
        if token.finish_reason is not None:
            self.finish_reason = token.finish_reason
            piece += self.detokenizer.finish()
        if token.log_probability is not None:
            self.log_probabilities.append(TokenProbability(token.token_id, piece, token.log_probability))
        if piece:
            piece, self.lead = piece.removeprefix(self.lead), ""
        piece = self.before.push(piece)
        if self.before.is_over:
            self.finish_reason = FinishReason.STOP
        elif token.finish_reason is not None:
            piece += self.before.finish()
        self.pieces.append(piece)
        if piece and self.stop_when is not None and not self.is_over and self.stop_when(self.text):
            self.finish_reason = FinishReason.STOP
        return piece

    def choose(self, choices: tuple[ChoiceProbability, ...], token_ids: Sequence[Sequence[int]]) -> str:
        """Take the likeliest choice for the answer and return it; of equals the first."""
        best = max(range(len(choices)), key=lambda place: choices[place].probability)
        self.choices, self.new_ids, self.finish_reason = choices, list(token_ids[best]), FinishReason.CHOICE
        self.pieces.append(choices[best].text)
        return choices[best].text

    @property
    def text(self) -> str:
        """What came so far."""
        return "".join(self.pieces)

    @property
    def is_over(self) -> bool:
        """Whether no token of it comes any more."""
        return self.finish_reason is not FinishReason.INTERRUPTED

    @property
    def visual_tokens(self) -> VisualTokens | None:
        """Those of its video."""
        return self.encoded.visual_tokens if self.encoded else None
