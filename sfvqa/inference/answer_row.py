"""One answer of a run while it is being made: its prompt, and what came of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sfvqa.inference.answer import ChoiceProbability, FinishReason
from sfvqa.inference.detokenize import IncrementalDetokenizer
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.generation import GeneratedToken
from sfvqa.inference.prompting import BuiltPrompt
from sfvqa.model import VisualTokens


@dataclass(eq=False)
class AnswerRow:
    """Its question, prompt and tokens; `num_last` of the prompt's tokens go through the model for it, come what may."""

    encoded: EncodedVideo | None
    question: str
    prompt: BuiltPrompt
    detokenizer: IncrementalDetokenizer
    num_last: int = 1
    pieces: list[str] = field(default_factory=list)
    new_ids: list[int] = field(default_factory=list)
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
        self.pieces.append(piece)
        return piece

    def choose(self, choices: tuple[ChoiceProbability, ...], token_ids: Sequence[Sequence[int]]) -> str:
        """Take the likeliest choice for the answer and return it; of equals the first."""
        best = max(range(len(choices)), key=lambda place: choices[place].probability)
        self.choices, self.new_ids, self.finish_reason = choices, list(token_ids[best]), FinishReason.CHOICE
        self.pieces.append(choices[best].text)
        return choices[best].text

    @property
    def is_over(self) -> bool:
        """Whether no token of it comes any more."""
        return self.finish_reason is not FinishReason.INTERRUPTED

    @property
    def visual_tokens(self) -> VisualTokens | None:
        """Those of its video."""
        return self.encoded.visual_tokens if self.encoded else None
