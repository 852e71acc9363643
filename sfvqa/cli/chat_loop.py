"""The conversation of `sfvqa chat`: what each line does, what is said of it, and how Ctrl-C ends one answer."""

import contextlib
import difflib
import json as jsonlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli import exits
from sfvqa.cli.answers import AnswerPrinter, describe_encoded, describe_subtitles, print_as_json
from sfvqa.cli.options import bundled_video, parse_file
from sfvqa.cli.screen import columns_of, print_json, printable, printable_line, wrap
from sfvqa.cli.whole_file import check_place, whole_file
from sfvqa.errors import ExitCode, UsageError
from sfvqa.given_file import STANDARD_INPUT
from sfvqa.video.sampling import format_time
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sfvqa.cli.answers import Seen
    from sfvqa.cli.chat_lines import EditedLines, PipedLines
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.answer import Answer, ContextUse
    from sfvqa.inference.chat import Chat
    from sfvqa.serve.client import ServedChat
    from sfvqa.video.sampling import SamplingOptions


COMMANDS = {
    "/frames": ("", "Show which frames of the video the model sees."),
    "/open": ("VIDEO", "Switch to another video and start a new conversation."),
    "/reset": ("", "Start a new conversation about the same video."),
    "/save": ("FILE", "Save the conversation: as JSON if FILE ends in .json, else as Markdown."),
    "/context": ("", "Show how full the context is."),
    "/help": ("", "Show this list."),
    "/quit": ("", "Leave; so do /exit and Ctrl-D."),
}
"""What can be typed: the name, what has to stand behind it, empty where nothing may, and the help."""
_OTHER_NAMES = {"/exit": "/quit"}
NAMES = (*COMMANDS, *_OTHER_NAMES)
_LONGEST_COMMAND = 10_000
_HINT = "To ask a question that begins with a slash, type a space before it."


def parse_command(line: str) -> tuple[str, str]:
    """The name and the argument of a command, empty for a question; UsageError for no command, or one used wrongly."""
    if not line.startswith("/"):
        return "", ""
    if len(line) > _LONGEST_COMMAND:
        raise UsageError(f"The command {line[:10]}… has more than {_LONGEST_COMMAND:,} characters.", _HINT)
    word, *behind = line.strip().split(maxsplit=1)
    name, argument = _OTHER_NAMES.get(word.lower(), word.lower()), "".join(behind)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        remedy = f"Did you mean {near[0]}?" if near else "See /help."
        raise UsageError(f"There is no command {word}.", f"{remedy} {_HINT}")
    needed, _ = COMMANDS[name]
    if needed and not argument:
        raise UsageError(f"{name} needs a {needed}.", f"Type {name} {needed}.")
    if argument and not needed:
        raise UsageError(f"{name} takes no argument.", f"Type {name} alone. {_HINT}")
    return name, argument


def typed_path(text: str) -> Path:
    """The path that is typed: as it stands if that is there, else without quotes and backslashes; ~ is home.

    Where backslashes divide a path, on Windows, they stay.

    >>> typed_path("'my clip.mp4'").name
    'my clip.mp4'
    """
    as_it_stands = _with_home(text)
    if os.path.lexists(as_it_stands):
        return as_it_stands
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if os.name == "nt":
        lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError:  # a quotation mark on its own
        return as_it_stands
    return _with_home(words[0]) if len(words) == 1 and words[0] else as_it_stands


def _with_home(text: str) -> Path:
    path = parse_file(text)
    try:
        return path.expanduser()
    except RuntimeError:  # nobody has that name, so that the tilde is part of one
        return path


class ChatLoop:
    """Goes through the lines to the end or to /quit.

    A line that fails is said and costs nothing else. What commands show goes to stdout like answers, but to stderr
    where stdout is kept for those alone (--json, --quiet). What is piped in is not seen, so that the question is said
    before each answer. `has_limit` says whether --context was given. `_answers` are all since the conversation began,
    also those of turns that were dropped since.
    """

    def __init__(
        self,
        chat: "Chat | ServedChat",
        open_other: "Callable[[Path], Chat | ServedChat]",
        sampling: "SamplingOptions",
        lines: "PipedLines | EditedLines",
        notices: "Notices",
        *,
        json: bool,
        has_limit: bool,
    ) -> None:
        self._chat = chat
        self._open_other = open_other
        self._sampling = sampling
        self._lines = lines
        self._notices = notices
        self._json = json
        self._has_limit = has_limit
        self._printer = AnswerPrinter(
            notices, print_whole=print_as_json if json else None, several=not lines.is_terminal
        )
        self._answers: list[Answer] = []
        self._lasting_warnings: set[str] = set()
        self._said_full = False
        self._saved: set[Path] = set()
        self._first_failure = ExitCode.OK

    def run(self) -> int:
        """The exit code: that of the first line that failed, where nobody was there to see it fail."""
        self._say_if_full()
        if not self._lines.is_terminal:
            self._run_to_the_end()
            return self._first_failure
        self._notices.note("Ask something; /help lists the commands, Ctrl-D leaves.")
        with exits.chat_interrupts() as interrupts:
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

    def _run_step(self, interrupts: exits.Interrupt) -> bool:
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
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the chat goes on
            if interrupts.seen or isinstance(error, KeyboardInterrupt):  # libraries make other errors of it
                self._end_line_of_ctrl_c()
                self._notices.note("Stopped; nothing has changed.")
            else:
                self._report(error, line)
        return True

    def _take(self, line: str) -> bool:
        """Ask the line or do what it says; False to leave."""
        name, argument = parse_command(line)
        match name:
            case "/frames":
                times = " ".join(map(format_time, self._encoded.timestamps_seconds))
                self._show(f"{describe_encoded(self._encoded, self._sampling)}\n{times}")
            case "/open":
                self._begin(self._open(typed_path(argument)), "New conversation about this video.")
            case "/reset":
                self._chat.reset()
                self._begin(self._chat, "New conversation about the same video.")
            case "/save":
                self._save(typed_path(argument))
            case "/context":
                use, dropped = self._chat.context, self._chat.num_dropped
                gone = f"; {plural(dropped, 'older turn')} dropped" if dropped else ""
                self._show(
                    f"{use.num_tokens:,} of {use.limit:,} tokens, room for {use.room:,} more; "
                    f"{plural(self._chat.num_turns, 'turn')}{gone}."
                )
            case "/help":
                rows = [f"{f'{name} {argument}':<12}  {text}" for name, (argument, text) in COMMANDS.items()]
                rows += [f"Anything else is a question. {_HINT}", "Ctrl-C stops an answer, or clears the line."]
                self._show("\n".join(rows))
            case "/quit":
                return False
            case _ if line.strip():
                self._ask(line.strip())
        return True

    @property
    def _encoded(self) -> "Seen":
        assert self._chat.encoded is not None
        return self._chat.encoded

    def _show(self, text: str) -> None:
        """What a command was asked for, in lines that fit the terminal."""
        out = sys.stderr if self._json or self._notices.quiet else sys.stdout
        out.write(f"{wrap(printable(text), columns_of(out))}\n")
        out.flush()

    def _open(self, path: Path) -> "Chat | ServedChat":
        path = bundled_video(str(path)) or path
        if str(path) == STANDARD_INPUT:
            raise UsageError("/open cannot read a video from standard input.", "Save it to a file, and open that.")
        return self._open_other(path)

    def _begin(self, chat: "Chat | ServedChat", notice: str) -> None:
        self._chat = chat
        self._answers.clear()
        self._said_full = False
        self._lasting_warnings.clear()
        self._notices.note(notice)

    def _ask(self, question: str) -> None:
        """Answer one question; on a terminal Ctrl-C ends the answer, and what came of it is said."""
        num_dropped, num_turns, shown = self._chat.num_dropped, self._num_turns, None
        stream = self._chat.stream(question)
        has_dropped = self._chat.num_dropped > num_dropped
        for warning in stream.answer.warnings:
            self._notices.warn(warning, again=has_dropped and warning not in self._lasting_warnings)
        try:
            with stream:
                shown = self._printer.show(question, stream)
        except KeyboardInterrupt:
            if not self._lines.is_terminal:
                raise
        finally:
            answer, is_kept = shown or stream.answer, self._num_turns > num_turns
            self._answers += [answer] if is_kept else []
        if shown is None:
            self._say_stopped(answer, is_kept=is_kept)
            return
        for line in describe_subtitles(answer) if len(self._answers) == 1 else []:
            self._notices.hint(line)
        for warning in answer.warnings:
            self._notices.warn(warning)
        if not has_dropped:  # all but the one on dropped turns, which comes as often as that happens
            self._lasting_warnings.update(answer.warnings)
        self._notices.hint(describe_turn(answer, self._chat.context, in_full=self._notices.verbose))
        self._say_if_full()

    @property
    def _num_turns(self) -> int:
        return self._chat.num_dropped + self._chat.num_turns

    def _say_stopped(self, answer: "Answer", *, is_kept: bool) -> None:
        self._end_line_of_ctrl_c()
        if self._json:
            print_json(answer.to_dict())
        if is_kept:
            self._notices.note("Stopped; the partial answer is part of the conversation.")
        else:
            self._notices.note("Stopped before the answer began; the question is not part of the conversation.")

    def _end_line_of_ctrl_c(self) -> None:
        """And with it an answer that was being written."""
        with contextlib.suppress(OSError):
            if sys.stderr.isatty():
                sys.stderr.write("\n")

    def _say_if_full(self) -> None:
        """Warn, once, before the turn that makes the oldest ones go."""
        is_full = self._chat.will_drop
        if is_full and not self._said_full:
            use = self._chat.context
            larger = ", and a larger --context gives it more room" if self._has_limit else ""
            self._notices.warn(
                f"The conversation takes {use.num_tokens:,} of {use.limit:,} tokens: the next answer may drop the "
                f"oldest turns. /reset starts a new conversation{larger}.",
                again=True,
            )
        self._said_full = is_full

    def _save(self, path: Path) -> None:
        """Write the conversation, over no file but its own. UsageError, SfvqaError."""
        if not self._answers:
            raise UsageError("There is nothing to save: no question was answered yet.", "Ask something first.")
        check_place(path)
        target = path.resolve()
        if target.exists() and target not in self._saved:
            raise UsageError(f"{path} exists and was not written by this chat.", "Name another file, or remove it.")
        if path.suffix.lower() == ".json":
            objects = [jsonlib.dumps(answer.to_dict(), allow_nan=False) for answer in self._answers]
            text = "[\n{}\n]\n".format(",\n".join(objects))
        else:
            facts = describe_encoded(self._encoded, self._sampling)
            text = as_markdown(self._encoded.video.path.name, facts, self._answers)
        with whole_file(path, what="conversation") as file:
            file.write(text.encode())
        self._saved.add(target)
        self._notices.note(f"The conversation is saved to {path}.")

    def _report(self, error: BaseException, line: str) -> None:
        """Say what failed; of a question, with --json, as the object that stands in for its answer."""
        if isinstance(error, BrokenPipeError):
            raise error  # nobody is listening any more
        exit_code = exits.report(error, as_json=self._json and not line.startswith("/"))
        self._first_failure = self._first_failure or ExitCode(exit_code)


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


_ENDINGS = {"length": "cut at the token limit", "interrupted": "stopped early"}


def as_markdown(title: str, facts: str, answers: "Sequence[Answer]") -> str:
    """Questions as quotations, answers below them; `facts` say what the model saw."""
    parts = [f"# {printable_line(title)}", f"{printable_line(facts)}. Answered by {answers[0].model}."]
    for answer in answers:
        question = "\n".join(f"> {line}".rstrip() for line in printable(answer.question).splitlines())
        parts += [question, printable(answer.text).strip()]
        if ending := _ENDINGS.get(answer.finish_reason.value):
            parts.append(f"*({ending})*")
    return "\n\n".join(parts) + "\n"
