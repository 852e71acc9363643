"""What a question and its choices must be before anything is loaded for them. Imports nothing heavy."""

from collections.abc import Sequence

from sfvqa.errors import UsageError

WRITING_OPTIONS = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed", "static_decode")
"""The fields of GenerationOptions that mean nothing where an answer is chosen, not written."""

LONGEST_TEXT = 1_000_000
"""Characters of a question and the like: more than any model has room for."""


def check_question(question: str) -> str:
    """The question without white space around it; UsageError when it is empty or no valid text."""
    return check_text(question, "question", "Ask something, for example “Describe the video.”")


def check_text(text: str, what: str, if_empty: str) -> str:
    """The text without white space around it; UsageError, naming `what` it is, when it is empty or no valid text."""
    if not isinstance(text, str):
        raise UsageError(f"{_a(what)} is {text!r}, no text.", "Give it as a string.")
    stripped = text.strip()
    if not stripped:
        raise UsageError(f"{_a(what)} is empty.", if_empty)
    if len(stripped) > LONGEST_TEXT:
        raise UsageError(f"The {what} has more than {LONGEST_TEXT:,} characters.", "No model takes so many.")
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
        raise UsageError(f"There is nothing to choose from: {len(texts)} of two choices.", "Give two or more.")
    if repeated := next((text for text in texts if texts.count(text) > 1), None):
        raise UsageError(f"The choice {repeated!r} is given more than once.", "Give every choice once.")
    return texts


def check_static_decode(attention: str, quantization: str = "none") -> None:
    """UsageError where decoding steps cannot all be the same work; `quantization` may be auto."""
    if "flash" in attention:
        raise UsageError(
            "Flash attention takes no mask over positions that are still empty, as --static-decode needs.",
            "Use --attention sdpa, or leave out --static-decode.",
        )
    if quantization == "8bit":
        raise UsageError(
            "8-bit weights are multiplied in parts that depend on each step's numbers, which cannot be recorded.",
            "Use --quant 4bit or none, or leave out --static-decode.",
        )


def check_evidence(*, static_decode: bool) -> None:
    """UsageError where nobody can see which frames an answer looks at."""
    if static_decode:
        raise UsageError(
            "Steps that are recorded once and replayed, as with --static-decode, cannot be watched for evidence.",
            "Leave out --static-decode, or the evidence.",
        )
