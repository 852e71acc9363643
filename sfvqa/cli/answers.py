"""Everything that goes to stdout: answers as they stream, one a line, or as JSON objects."""

import json as jsonlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from sfvqa.cli.screen import WordWriter
from sfvqa.cli.text import plural, printable

if TYPE_CHECKING:
    from sfvqa.cli.render import Notices
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.answer_stream import AnswerStream


def make_printer(
    notices: "Notices", *, json: bool, quiet: bool, num_questions: int
) -> "StreamedAnswers | OneLineAnswers | JsonAnswers":
    """The printer for these flags; with both, JSON goes to stdout and nothing to stderr."""
    if json:
        return JsonAnswers(notices)
    return OneLineAnswers(notices) if quiet else StreamedAnswers(notices, num_questions=num_questions)


class StreamedAnswers:
    """Answers as they stream; several are set apart by an empty line, and stderr says which question comes next."""

    def __init__(self, notices: "Notices", *, num_questions: int) -> None:
        self._notices = notices
        self._several = num_questions > 1
        self._shown = 0

    def show(self, question: str, stream: "AnswerStream") -> "Answer":
        """Print one answer to the end and return it; what was printed stays when it is interrupted."""
        if self._shown:
            _end_line()
        self._shown += 1
        if self._several:
            self._notices.question(question)
        return _write_pieces(stream, self._notices, one_line=False)


class OneLineAnswers:
    """Answers and nothing else, one a line: line breaks in an answer become spaces."""

    def __init__(self, notices: "Notices") -> None:
        self._notices = notices

    def show(self, question: str, stream: "AnswerStream") -> "Answer":  # noqa: ARG002  the three kinds look alike
        """Print one answer as one line and return it."""
        return _write_pieces(stream, self._notices, one_line=True)


class JsonAnswers:
    """One JSON object a line and question, in ASCII: safe on any terminal, readable by anything."""

    def __init__(self, notices: "Notices") -> None:
        self._notices = notices

    def show(self, question: str, stream: "AnswerStream") -> "Answer":
        """Wait for the whole answer, print its object and return it."""
        with self._notices.waiting(f"Answering: {question}"):
            for _ in stream:
                pass
        answer = _with_cut_noted(stream.answer)
        write_object(answer)
        return answer


def write_object(answer: "Answer") -> None:
    """Write an answer's JSON object, in a line of its own."""
    sys.stdout.write(jsonlib.dumps(answer.to_dict(), allow_nan=False))
    _end_line()


def _write_pieces(stream: "AnswerStream", notices: "Notices", *, one_line: bool) -> "Answer":
    """Write the pieces to stdout as they come, then end the line, also when something interrupts."""
    out, pieces, words = sys.stdout, iter(stream), WordWriter(sys.stdout)
    with notices.waiting("Thinking"):  # until the first piece; the spinner must be gone before anything is written
        piece = next(pieces, None)
    try:
        while piece is not None:
            words.write(printable(piece.replace("\n", " ") if one_line else piece))
            piece = next(pieces, None)
        words.close()
    except KeyboardInterrupt:
        words.close()
        if not (out.isatty() and sys.stderr.isatty()):  # there the newline that answers ^C ends this line too
            _end_line()
        raise
    except Exception:
        words.close()
        _end_line()
        raise
    _end_line()
    return _with_cut_noted(stream.answer)


def _end_line() -> None:
    sys.stdout.write("\n")
    sys.stdout.flush()


def _with_cut_noted(answer: "Answer") -> "Answer":
    """Add the warning that the answer may be cut, where it ended because it had become too long."""
    if answer.finish_reason != "length":
        return answer
    limit = answer.settings.max_new_tokens
    warning = f"The answer was cut at {plural(limit, 'new token')}; --max-new-tokens lets it be longer."
    return replace(answer, warnings=(*answer.warnings, warning))
