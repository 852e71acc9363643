"""The questions that are asked: those on the command line, then those of a file, one a line."""

import re
from collections.abc import Sequence
from pathlib import Path

from sfvqa.errors import UsageError
from sfvqa.given_file import STANDARD_INPUT, read_given

_MOST_BYTES = 16_000_000  # more than anybody asks about a video
_LINE_END = re.compile(r"\r\n|\r|\n")


def gather_questions(given: Sequence[str] | None, file: str | None, *, video: Path) -> tuple[str, ...]:
    """All of them, in order; UsageError when there is none, or standard input is wanted twice."""
    if file == STANDARD_INPUT and str(video) == STANDARD_INPUT:
        raise UsageError("Video and questions cannot both come from standard input.", "Name a file for one of them.")
    questions = (*(given or ()), *(() if file is None else read_questions(file)))
    if not questions:
        raise UsageError("No question was given.", "Ask one, in quotes, or name a file of them with --questions.")
    return questions


def read_questions(file: str) -> tuple[str, ...]:
    """The lines of a text file, or of standard input (`-`), without empty ones; UsageError when that cannot be read."""
    name = "standard input" if file == STANDARD_INPUT else f"“{file}”"
    try:
        text = read_given(file, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"The questions in {name} are not UTF-8 text.", "Save the file as UTF-8.") from None
    except OSError as error:
        raise UsageError(
            f"The questions in {name} cannot be read: {error.strerror or error}.",
            "Name a text file, one question a line.",
        ) from error
    lines = _LINE_END.split(text)  # str.splitlines ends lines where no editor does, at U+2028 for one
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise UsageError(f"There is no question in {name}.", "Write one question a line.")
    return questions
