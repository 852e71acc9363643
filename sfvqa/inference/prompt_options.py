"""What goes into a prompt beside the video and the question, as the user asks for it. Imports nothing heavy."""

from dataclasses import dataclass

from sfvqa.errors import UsageError
from sfvqa.inference.question import check_text
from sfvqa.video.subtitles.lines import Subtitles
from sfvqa.wording import plural

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
