"""What is asked and how it is put to the model, checked before anything is loaded. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass

from sfvqa.errors import UsageError
from sfvqa.video.subtitles import Subtitles
from sfvqa.wording import plural

WRITING_OPTIONS = (
    "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "static_decode", "stop",
)  # fmt: skip
"""The options of a command that mean nothing where an answer is chosen, not written: fields of GenerationOptions."""

LONGEST_TEXT = 1_000_000
"""Characters of a question and the like: more than any model has room for."""


def check_question(question: str) -> str:
    """The question without white space around it; UsageError when it is empty or no valid text."""
    return check_text(question, "question", "Ask something, for example “Describe the video.”")


def check_text(text: str, what: str, if_empty: str) -> str:
    """The text without white space around it; UsageError, naming `what` it is, when it is empty or no valid text."""
    if not isinstance(text, str):
        raise UsageError(f"{_a(what)} is {text!r}, not text.", "Give it as a string.")
    stripped = text.strip()
    if not stripped:
        raise UsageError(f"{_a(what)} is empty.", if_empty)
    if len(stripped) > LONGEST_TEXT:
        raise UsageError(f"The {what} has more than {LONGEST_TEXT:,} characters.", "No model accepts that many.")
    try:
        stripped.encode("utf-8")
    except UnicodeEncodeError:  # how Python spells bytes that a shell passed and that are not UTF-8
        raise UsageError(f"The {what} {stripped!r} is not valid UTF-8.", "Type it again, in UTF-8.") from None
    return stripped


def _a(what: str) -> str:
    return f"{'An' if what[0] in 'aeiou' else 'A'} {what}"


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices without white space around them; UsageError unless there are two and more, all different, not empty.

    >>> check_choices(["A", " B"])
    ('A', 'B')
    """
    if isinstance(choices, str):
        raise UsageError(f"The choices are one text, {choices!r}.", "Give a list of them.")
    texts = tuple(check_text(choice, "choice", "Give every choice a text.") for choice in choices)
    if len(texts) < 2:
        raise UsageError(f"There is nothing to choose from: {plural(len(texts), 'choice')}.", "Give two or more.")
    if repeated := next((text for text in texts if texts.count(text) > 1), None):
        raise UsageError(f"The choice {repeated!r} is given more than once.", "Give every choice once.")
    return texts


def check_looks(model: str, hybrid_layers: Sequence[int]) -> None:
    """UsageError where evidence is wanted of a model none of whose layers looks at slow tokens."""
    if not hybrid_layers:
        raise UsageError(
            f"{model} has no layers that look at slow tokens, so nothing can be seen of them.",
            "Leave out the evidence, or name a slow-fast model.",
        )


QUESTION_PLACEHOLDER = "{question}"
MAX_SUBTITLE_TOKENS = 1024  # unless asked for: beside 1,296 fast tokens well below the 3,072 of the 96-frame model
_CHARACTERS_A_TOKEN = 3  # rather too few than too many


@dataclass(frozen=True)
class PromptOptions:
    """How a question is put to the model. Raises UsageError when built.

    `system` replaces the system message of the checkpoint's chat template. `template` is the text around the question,
    which stands where it says {question}; other braces are text. `subtitles` are cut to `subtitle_tokens`, None for
    as many as training leaves room for, at most `MAX_SUBTITLE_TOKENS`.
    """

    system: str | None = None
    template: str | None = None
    subtitles: Subtitles | None = None
    subtitle_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.system is not None:
            check_text(self.system, "system message", "Leave it out to keep the model's own.")
        if self.template is not None and QUESTION_PLACEHOLDER not in check_text(
            self.template, "template", f"Write {QUESTION_PLACEHOLDER} where the question goes."
        ):
            raise UsageError(
                f"The template {self.template!r} has no place for the question.",
                f"Write {QUESTION_PLACEHOLDER} where it goes.",
            )
        if self.subtitle_tokens is not None and (self.subtitle_tokens < 1 or self.subtitles is None):
            were = "was" if self.subtitle_tokens == 1 else "were"
            raise UsageError(
                f"{plural(self.subtitle_tokens, 'token')} {were} given to subtitles"
                f"{', and there are none' if self.subtitles is None else ''}.",
                "Give subtitles and at least one token, or neither.",
            )

    @property
    def num_tokens_about(self) -> int:
        """How many tokens it adds to a prompt, rather too many than too few: for estimates of memory."""
        num_characters = len(self.system or "") + len(self.template or "")
        said = self.subtitles is not None and self.subtitles.lines
        return num_characters // _CHARACTERS_A_TOKEN + ((self.subtitle_tokens or MAX_SUBTITLE_TOKENS) if said else 0)

    def apply_template(self, question: str) -> str:
        """The question with the template around it.

        >>> PromptOptions(template="{question} Answer with {one} word.").apply_template("What flashes?")
        'What flashes? Answer with {one} word.'
        """
        return question if self.template is None else self.template.replace(QUESTION_PLACEHOLDER, question)
