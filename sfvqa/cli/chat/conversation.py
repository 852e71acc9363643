"""One chat and what a user sees of it: answers, warnings, where the time went, how full it is. Reads no input."""

from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.answers import make_printer
from sfvqa.cli.chat.wording import describe_fullness, describe_turn
from sfvqa.cli.describe import describe_subtitles

if TYPE_CHECKING:
    from sfvqa.cli.chat.opening import VideoOpener
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import AnswerPrinter
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.answer_stream import AnswerStream
    from sfvqa.inference.chat import Chat


class AnswerStopped(KeyboardInterrupt):
    """Ctrl-C while an answer was written: `answer` is what there is of it, `is_kept` if the chat goes on from it."""

    def __init__(self, answer: "Answer", *, is_kept: bool) -> None:
        super().__init__()
        self.answer = answer
        self.is_kept = is_kept


class Conversation:
    """Asks, and says what there is to say about it.

    `answers` are all that were given since the conversation began, also those of turns that were dropped since. What
    is piped in is not seen, so that `echoes_questions` says which question an answer belongs to.
    """

    def __init__(
        self, opener: "VideoOpener", chat: "Chat", notices: "Notices", *, json: bool, echoes_questions: bool
    ) -> None:
        self.chat = chat
        self.opener = opener
        self.answers: list[Answer] = []
        self._notices = notices
        self._json = json
        self._echoes_questions = echoes_questions
        self._printer = self._make_printer()
        self._lasting_warnings: set[str] = set()
        self._said_full = False

    def ask(self, question: str) -> None:
        """Answer one question; AnswerStopped when Ctrl-C ends it early, after what came is noted."""
        num_dropped = self.chat.num_dropped
        stream = self.chat.stream(question)
        has_dropped = self.chat.num_dropped > num_dropped
        for warning in stream.answer.warnings:
            self._notices.warn(warning, again=has_dropped and warning not in self._lasting_warnings)
        answer = self._show(question, stream)
        for line in describe_subtitles(answer) if len(self.answers) == 1 else []:
            self._notices.note(line)
        for warning in answer.warnings:
            self._notices.warn(warning)
        if not has_dropped:  # all but the one on dropped turns, which comes as often as that happens
            self._lasting_warnings.update(answer.warnings)
        self._notices.note(describe_turn(answer, self.chat.context))
        self.say_if_full()

    def reset(self) -> None:
        """Forget the turns."""
        self.chat.reset()
        self._begin_anew()
        self._notices.note("The conversation begins anew, with the same video.")

    def open(self, path: Path) -> None:
        """Go on with another video; on any failure with the old one, as if nothing had been."""
        self.chat = self.opener.open(path)
        self._begin_anew()
        self._notices.note("The conversation begins anew, with this video.")

    def say_if_full(self) -> None:
        """Say, once, before the turn that makes the oldest ones go."""
        is_full = self.chat.will_drop
        if is_full and not self._said_full:
            self._notices.warn(
                describe_fullness(self.chat.context, can_be_more=self.opener.context_tokens is not None), again=True
            )
        self._said_full = is_full

    def _show(self, question: str, stream: "AnswerStream") -> "Answer":
        num_turns, shown = self._num_turns, None
        try:
            with stream:
                shown = self._printer.show(question, stream)
        except KeyboardInterrupt:
            raise AnswerStopped(stream.answer, is_kept=self._num_turns > num_turns) from None
        finally:
            if self._num_turns > num_turns:
                self.answers.append(shown or stream.answer)
            if not self._echoes_questions:
                self._printer = self._make_printer()  # on a terminal the prompt sets answers apart
        return shown

    @property
    def _num_turns(self) -> int:
        return self.chat.num_dropped + len(self.chat.turns)

    def _begin_anew(self) -> None:
        self.answers.clear()
        self._said_full = False
        self._lasting_warnings.clear()

    def _make_printer(self) -> "AnswerPrinter":
        return make_printer(
            self._notices,
            json=self._json,
            quiet=self._notices.quiet,
            num_questions=2 if self._echoes_questions else 1,
        )
