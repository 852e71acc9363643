"""What a question must be before anything is loaded for it. Imports nothing heavy."""

from sfvqa.errors import UsageError


def check_question(question: str) -> str:
    """The question without white space around it; UsageError when it is empty or no valid text."""
    if not isinstance(question, str):
        raise UsageError(f"A question is {question!r}, no text.", "Give it as a string.")
    text = question.strip()
    if not text:
        raise UsageError("A question is empty.", "Ask something, for example “Describe the video.”")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # how Python spells bytes that a shell passed and that are not UTF-8
        raise UsageError(f"The question {text!r} is not valid UTF-8.", "Type it again, in UTF-8.") from None
    return text
