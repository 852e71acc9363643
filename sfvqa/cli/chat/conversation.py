"""What a chat says of its turns, its frames and its context, in words. Prints nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.describe import describe_subtitles
from sfvqa.cli.print_answers import AnswerPrinter
from sfvqa.cli.terminal import printable, printable_line
from sfvqa.cli.whole_file import check_place, whole_file
from sfvqa.errors import UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.cli.chat.command import VideoOpener
    from sfvqa.cli.notices import Notices
    from sfvqa.inference.answer import Answer, AnswerStream
    from sfvqa.inference.chat import Chat, ContextUse


def describe_turn(answer: "Answer", context: "ContextUse", *, in_full: bool) -> str:
    """`First token after 0.02 s, context 119 of 2,048.`, and in full what it took and reused.

    The wait is that for this turn: reading and encoding were done before it.
    """
    timings, tokens = answer.timings, answer.tokens
    seeing = timings.read_seconds + timings.encode_seconds - timings.overlap_seconds
    parts = [f"First token after {timings.ttft_seconds - seeing:.2f} s"]
    if in_full:
        speed = "" if timings.tokens_per_second is None else f" ({timings.tokens_per_second:.1f}/s)"
        parts += [f"{plural(tokens.new, 'token')}{speed}", f"{tokens.reused:,} of {tokens.prompt:,} reused"]
    return f"{', '.join([*parts, f'context {context.num_tokens:,} of {context.limit:,}'])}."


def describe_fullness(context: "ContextUse", *, can_be_more: bool) -> str:
    """How full the conversation is, what will happen, and what can be done about it."""
    more = ", and a larger --context gives it more room" if can_be_more else ""
    return (
        f"The conversation takes {context.num_tokens:,} of {context.limit:,} tokens: the oldest turns may be dropped "
        f"to make room for the next answer. /reset begins it anew{more}."
    )


def describe_context(chat: "Chat") -> str:
    """`119 of 2,048 tokens, room for 1,929 more; 3 turns, 1 more was dropped.`"""
    use, dropped = chat.context, chat.num_dropped
    gone = f"; {plural(dropped, 'older turn')} dropped" if dropped else ""
    return (
        f"{use.num_tokens:,} of {use.limit:,} tokens, room for {use.room:,} more; "
        f"{plural(len(chat.turns), 'turn')}{gone}."
    )


def describe_times(seconds: "Sequence[float]") -> str:
    """`0:00 0:00.16 0:00.32`."""
    from sfvqa.video.sampling import format_time

    return " ".join(format_time(time) for time in seconds)


_ENDINGS = {"length": "cut: the longest answer was reached", "interrupted": "stopped before its end"}


class TranscriptWriter:
    """Writes conversations to files, over none but its own."""

    def __init__(self) -> None:
        self._written: set[Path] = set()

    def save(self, path: Path, title: str, facts: str, answers: "Sequence[Answer]") -> None:
        """Write them. UsageError where there are none, or something else is in the way; SfvqaError if it fails."""
        if not answers:
            raise UsageError("There is nothing to save: no question was answered yet.", "Ask something first.")
        check_place(path)
        target = path.resolve()
        if target.exists() and target not in self._written:
            raise UsageError(f"{path} is there already, and not from this chat.", "Name another file, or remove it.")
        is_json = path.suffix.lower() == ".json"
        text = as_json(answers) if is_json else as_markdown(title, facts, answers)
        with whole_file(path, what="conversation") as file:
            file.write(text.encode())
        self._written.add(target)


def as_json(answers: "Sequence[Answer]") -> str:
    """A list of the objects that --json prints, one a line."""
    objects = ",\n".join(json.dumps(answer.to_dict(), allow_nan=False) for answer in answers)
    return f"[\n{objects}\n]\n"


def as_markdown(title: str, facts: str, answers: "Sequence[Answer]") -> str:
    """Questions as quotations, answers below them; `facts` say what the model saw."""
    parts = [f"# {printable_line(title)}", f"{printable_line(facts)}. Answered by {answers[0].model}."]
    for answer in answers:
        question = "\n".join(f"> {line}".rstrip() for line in printable(answer.question).splitlines())
        parts += [question, printable(answer.text).strip()]
        if ending := _ENDINGS.get(answer.finish_reason.value):
            parts.append(f"*({ending})*")
    return "\n\n".join(parts) + "\n"


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
            self._notices.hint(line)
        for warning in answer.warnings:
            self._notices.warn(warning)
        if not has_dropped:  # all but the one on dropped turns, which comes as often as that happens
            self._lasting_warnings.update(answer.warnings)
        self._notices.hint(describe_turn(answer, self.chat.context, in_full=self._notices.verbose))
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
                describe_fullness(self.chat.context, can_be_more=self.opener.answers.context is not None), again=True
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

    def _make_printer(self) -> AnswerPrinter:
        return AnswerPrinter(self._notices, json=self._json, several=self._echoes_questions)
