"""An answer piece by piece, as a caller gets it: what came so far stays when it is left early."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from sfvqa.inference.answer import Answer


class AnswerStream:
    """Pieces of an answer as they come; `answer` is what there is so far, whole once the pieces are at an end.

    Leaving early (`close`, the end of a `with` block, an exception such as Ctrl-C) keeps what came: `answer` then
    says `interrupted`.
    """

    def __init__(self, pieces: Iterator[str], answer_so_far: Callable[[], Answer]) -> None:
        self._pieces = pieces
        self._answer_so_far = answer_so_far

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """The stream of an answer that is whole already: one piece."""
        return cls(iter([answer.text] if answer.text else []), lambda: answer)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._answer_so_far()

    def close(self) -> None:
        """Stop generating and free what it holds; harmless when it is over already."""
        if close := getattr(self._pieces, "close", None):
            close()
