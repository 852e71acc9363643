"""The chat itself: read a line, ask it or do what it says, and go on whatever happens."""

import contextlib
import sys
from typing import TYPE_CHECKING

from sfvqa.cli import exits
from sfvqa.cli.answers import write_object
from sfvqa.cli.chat.conversation import AnswerStopped
from sfvqa.cli.chat.slash import Typed, describe_commands, parse_command
from sfvqa.cli.chat.transcript import TranscriptWriter
from sfvqa.cli.chat.wording import describe_context, describe_times
from sfvqa.cli.describe import describe_encoded
from sfvqa.cli.interrupts import ChatInterrupts, chat_interrupts
from sfvqa.cli.screen import columns_of, wrap
from sfvqa.cli.text import printable
from sfvqa.errors import ExitCode

if TYPE_CHECKING:
    from sfvqa.cli.chat.conversation import Conversation
    from sfvqa.cli.chat.lines import LineSource
    from sfvqa.cli.render import Notices


class ChatLoop:
    """Goes through the lines to the end or to /quit.

    A line that fails is said and costs nothing else. What commands show goes to stdout like answers, but to stderr
    where stdout is kept for those alone (--json, --quiet).
    """

    def __init__(self, conversation: "Conversation", lines: "LineSource", notices: "Notices", *, json: bool) -> None:
        self._conversation = conversation
        self._lines = lines
        self._notices = notices
        self._json = json
        self._transcripts = TranscriptWriter()
        self._first_failure = ExitCode.OK

    def run(self) -> int:
        """The exit code: that of the first line that failed, where nobody was there to see it fail."""
        self._conversation.say_if_full()
        if not self._lines.is_terminal:
            self._run_to_the_end()
            return self._first_failure
        self._notices.note("Ask something; /help says what else can be typed, Ctrl-D leaves.")
        with chat_interrupts() as interrupts:
            while self._run_step(interrupts):
                pass
        return ExitCode.OK

    def _run_to_the_end(self) -> None:
        """Lines of a pipe; Ctrl-C ends the command, as it does any other."""
        while (line := self._lines.read()) is not None:
            try:
                if not self._take(line):
                    return
            except Exception as error:  # noqa: BLE001  what it is does not matter, the next line may be better
                self._report(error, line)

    def _run_step(self, interrupts: ChatInterrupts) -> bool:
        """One line of a terminal; False when it was the last."""
        try:
            with interrupts.step():
                line = self._lines.read()
        except KeyboardInterrupt:
            self._notices.note("Ctrl-D or /quit leaves.")
            return True
        if line is None:
            return False
        try:
            with interrupts.step():
                return self._take(line)
        except KeyboardInterrupt as stop:
            self._say_stopped(stop)
        except Exception as error:  # noqa: BLE001  the chat goes on
            if interrupts.seen:  # a library made an error of the KeyboardInterrupt
                self._say_stopped(KeyboardInterrupt())
            else:
                self._report(error, line)
        return True

    def _take(self, line: str) -> bool:
        """Ask the line or do what it says; False to leave."""
        typed = parse_command(line)
        if typed is not None:
            return self._do(typed)
        if line.strip():
            self._conversation.ask(line.strip())
        return True

    def _do(self, typed: Typed) -> bool:
        conversation = self._conversation
        match typed.name:
            case "/frames":
                encoded = conversation.chat.encoded
                assert encoded is not None
                self._show(describe_encoded(encoded, conversation.opener.sampling))
                self._show(describe_times(encoded.timestamps_seconds))
            case "/open":
                conversation.open(typed.path)
            case "/reset":
                conversation.reset()
            case "/save":
                self._save(typed)
            case "/context":
                self._show(describe_context(conversation.chat))
            case "/help":
                self._show(describe_commands())
            case "/quit":
                return False
        return True

    def _save(self, typed: Typed) -> None:
        conversation = self._conversation
        encoded = conversation.chat.encoded
        assert encoded is not None
        facts = describe_encoded(encoded, conversation.opener.sampling)
        self._transcripts.save(typed.path, encoded.video.path.name, facts, conversation.answers)
        self._notices.note(f"The conversation is written to {typed.path}.")

    def _show(self, text: str) -> None:
        """What a command was asked for, in lines that fit the terminal."""
        out = sys.stderr if self._json or self._notices.quiet else sys.stdout
        out.write(f"{wrap(printable(text), columns_of(out))}\n")
        out.flush()

    def _say_stopped(self, stop: KeyboardInterrupt) -> None:
        with contextlib.suppress(OSError):
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # ends the line that holds ^C, and with it an answer that was being written
        if not isinstance(stop, AnswerStopped):
            self._notices.note("Stopped; nothing has changed.")
            return
        if self._json:
            write_object(stop.answer)
        if stop.is_kept:
            self._notices.note("Stopped; what came of the answer is part of the conversation.")
        else:
            self._notices.note("Stopped before anything came; the question is not part of the conversation.")

    def _report(self, error: Exception, line: str) -> None:
        """Say what failed; of a question, with --json, as the object that stands in for its answer."""
        if isinstance(error, BrokenPipeError):
            raise error  # nobody is listening any more
        exit_code = exits.report(error, as_json=self._json and not line.startswith("/"))
        self._first_failure = self._first_failure or ExitCode(exit_code)
