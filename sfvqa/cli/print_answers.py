"""Answers on stdout: as they stream, one a line, or as JSON objects; and what comes with each, on stderr."""

import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sfvqa.cli.describe import describe_choices, describe_evidence, describe_subtitles
from sfvqa.cli.terminal import WordWriter, printable
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.cli.answer_options import TurnOptions
    from sfvqa.cli.notices import Notices
    from sfvqa.inference.answer import Answer, AnswerStream
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.video_qa import VideoQA


class AnswerPrinter:
    """Prints answers on stdout, and the questions on stderr where there are several.

    With `json` an answer is an object a line, in ASCII: safe on any terminal, readable by anything. Where notices are
    quiet it is a line, in which line breaks become spaces. Otherwise it streams, after an empty line but for the first.
    """

    def __init__(self, notices: "Notices", *, json: bool, several: bool) -> None:
        self._notices = notices
        self._json = json
        self._several = several
        self._shown = 0

    def show(self, question: str, stream: "AnswerStream") -> "Answer":
        """Print one answer to the end and return it; what was printed stays when it is interrupted."""
        if self._json:
            with self._notices.waiting(f"Answering: {question}"):
                for _ in stream:
                    pass
            answer = _with_cut_noted(stream.answer)
            write_object(answer)
            return answer
        if self._shown and not self._notices.quiet:
            _end_line()
        self._shown += 1
        if self._several:
            self._notices.hint(question, style="bold")
        return _write_pieces(stream, self._notices, one_line=self._notices.quiet)


def answer_questions(
    model: "VideoQA",
    encoded: "EncodedVideo",
    questions: Sequence[str],
    answers: "TurnOptions",
    prompt: "PromptOptions",
    printer: AnswerPrinter,
    notices: "Notices",
    batch_size: int = 1,
) -> "list[Answer]":
    """Answer every question in order, one by one as they are written, or in batches; the first that fails ends it."""
    said: list[Answer] = []
    if batch_size == 1:
        streams = model.stream_all(encoded, questions, answers.generation(), prompt=prompt, choices=answers.compared)
    else:
        streams = _stream_batches(model, encoded, questions, answers, prompt, notices, batch_size)
    for question, stream in zip(questions, streams, strict=True):
        with stream:
            answer = printer.show(question, stream)
        for line in (*describe_choices(answer), *describe_evidence(answer)):
            notices.note(line)
        for line in () if said else describe_subtitles(answer):
            notices.hint(line)
        for warning in answer.warnings:
            notices.warn(warning)
        said.append(answer)
    return said


def _stream_batches(
    model: "VideoQA",
    encoded: "EncodedVideo",
    questions: Sequence[str],
    answers: "TurnOptions",
    prompt: "PromptOptions",
    notices: "Notices",
    batch_size: int,
) -> "Iterator[AnswerStream]":
    from sfvqa.inference.answer import AnswerStream

    for start in range(0, len(questions), batch_size):
        batch = [
            (encoded if start == 0 else encoded.paid(), question) for question in questions[start : start + batch_size]
        ]
        with notices.waiting(f"Answering {plural(len(batch), 'question')}"):
            found = model.answer_batch(batch, answers.generation(), prompt=prompt, choices=answers.compared)
        yield from map(AnswerStream.of, found)


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
