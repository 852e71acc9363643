"""The border of the command line: how a run begins, is interrupted and ends, and what is said of its errors."""

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, BinaryIO, cast

import typer
from rich.console import Console
from rich.text import Text

from sfvqa.cli.options import configurable, load_user_config, user_config_path
from sfvqa.cli.screen import print_json, print_line, printable, printable_line
from sfvqa.errors import ExitCode, SfvqaError


def run(argv: Sequence[str]) -> int:
    """Run the command line on `argv`, without the program's name, and return the exit code; raises nothing."""
    as_json = "--json" in _options(argv)  # asked before parsing, because parsing is what may fail
    silence_third_parties()
    with safe_streams():
        with _watch_signals() as interrupt:
            try:
                from sfvqa.cli.app import build_app, settings_of_commands

                name = argv[0] if argv else ""
                command = typer.main.get_command(build_app(name))
                defaults = {}
                if name in configurable(command) and not {"-h", "--help", "--help-all"} & set(_options(argv)):
                    defaults[name] = load_user_config(settings_of_commands)  # a broken file must stop nothing else
                result = command.main(list(argv), prog_name="sfvqa", standalone_mode=False, default_map=defaults)
                exit_code = result if isinstance(result, int) else ExitCode.OK
            except SystemExit as leaving:  # completion, SIGTERM, and rich or typer after a broken pipe
                exit_code = leaving.code if isinstance(leaving.code, int) else ExitCode.FAILED
            except BrokenPipeError:
                exit_code = ExitCode.FAILED
            except BaseException as error:  # noqa: BLE001  the border: from here on there are only exit codes
                is_interrupt = interrupt.seen or isinstance(error, KeyboardInterrupt)
                exit_code = ExitCode.INTERRUPTED if is_interrupt else report(error, as_json)
            if exit_code == ExitCode.INTERRUPTED:
                _report_interrupt(as_json)
        return _flush_output(exit_code)


def _options(argv: Sequence[str]) -> Sequence[str]:
    """The arguments that may be options: those before `--`."""
    return argv[: list(argv).index("--")] if "--" in argv else argv


# Read by the libraries when they are imported, which is why this runs before they are. What the user set stays.
_QUIET_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "critical",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "TORCH_CPP_LOG_LEVEL": "FATAL",
    "KINETO_LOG_LEVEL": "99",  # of torch's profiler
}


def silence_third_parties() -> None:
    """Turn off telemetry, and unless debugging the libraries' progress bars, warnings and logs, for this process."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not _is_debugging():
        for name, value in _QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("ignore")


def _is_debugging() -> bool:
    return os.environ.get("SFVQA_DEBUG", "") not in ("", "0")


class _Unfailing(io.RawIOBase):
    """Passes bytes on to a stream, and drops what that refuses: a full disk, a reader that has gone.

    Nothing is buffered: a thread that waits for a terminal would hold the buffer's lock, and the main thread would
    wait for that lock, deaf to Ctrl-C.
    """

    def __init__(self, target: Any) -> None:
        super().__init__()
        self._target = target

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._target.isatty())

    def fileno(self) -> int:
        return int(self._target.fileno())

    def write(self, data: Any) -> int:
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                left = left[self._target.write(left) or len(left) :]
        return len(data)


class _ClosedPipesSaidSo(_Unfailing):
    """Passes bytes on to standard output on Windows, which calls a pipe that nobody reads an invalid argument."""

    def write(self, data: Any) -> int:
        try:
            return int(self._target.write(data) or 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """While this runs, a notice that cannot be written costs nothing else, least of all the answer on stdout."""
    # `>&-` leaves Python without the stream; what is written then goes nowhere, as in any other program.
    sys.stdout = stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123  for the life of the process
    sys.stderr = stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdin, sys.stdout, stderr) if os.name == "nt" else ():
        if isinstance(stream, io.TextIOWrapper):  # which for files and pipes knows the letters of one country only
            stream.reconfigure(encoding="utf-8")
    if os.name == "nt" and isinstance(stdout, io.TextIOWrapper) and not stdout.isatty():
        pipe = _ClosedPipesSaidSo(getattr(stdout.buffer, "raw", stdout.buffer))
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(pipe), encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):  # an answer the terminal cannot spell is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(stderr, io.TextIOWrapper):
        raw = cast("BinaryIO", _Unfailing(getattr(stderr.buffer, "raw", stderr.buffer)))
        sys.stderr = io.TextIOWrapper(raw, encoding=stderr.encoding, errors="backslashreplace", line_buffering=True)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stdout, sys.stderr = stdout, stderr


def _flush_output(exit_code: int) -> int:
    """Flush stdout now: at shutdown Python would complain about a closed pipe, and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever left knows
            sys.stderr.write(f"Error: The output could not be written: {error}.\n")
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code or ExitCode.FAILED
    return exit_code


@dataclass(frozen=True)
class Failure:
    """What the user is told about an error: its type's name, a sentence, a remedy, and the exit code."""

    kind: str
    message: str
    remedy: str
    exit_code: int


_LONGEST_REASON = 500


def explain(error: BaseException) -> Failure:
    """What to tell the user about `error`."""
    if isinstance(error, SfvqaError):
        return Failure(type(error).__name__, error.message, error.remedy, error.exit_code)
    if isinstance(error, typer.TyperException):
        return Failure("UsageError", *describe_parse_error(error), error.exit_code)
    if isinstance(error, typer.Abort):
        return Failure("Aborted", "Aborted.", "", ExitCode.FAILED)
    if isinstance(error, MemoryError):
        remedy = "Use fewer frames (--frames), a smaller model, or a machine with more free memory."
        return Failure("OutOfMemoryError", "Out of memory.", remedy, ExitCode.OUT_OF_MEMORY)
    if isinstance(error, OSError):
        return Failure(type(error).__name__, f"The operating system reported: {error}.", "", ExitCode.FAILED)
    reason = " ".join(str(error).split())[:_LONGEST_REASON]  # torch writes pages
    message = f"Internal error: {type(error).__name__}: {reason}"
    remedy = "Rerun with SFVQA_DEBUG=1 for a traceback, and report it."
    return Failure(type(error).__name__, message, remedy, ExitCode.FAILED)


def describe_parse_error(error: Any) -> tuple[str, str]:
    """What happened and what to do, a sentence each; a value is blamed on where it came from."""
    message = error.format_message()
    if type(error) is typer.BadParameter and error.param is not None:
        reason = error.message.removeprefix("Value error, ")  # pydantic's, from inside typer
        if checks := getattr(error.__cause__, "errors", None):
            reason = reason.replace("Input should", f"“{checks()[0]['input']}” should", 1)
        message = f"Invalid value for {_origin(error)}: {reason}"
    if message and message[-1] not in ".!?…":
        message += "."
    command = getattr(getattr(error, "ctx", None), "command_path", None)
    if not command:
        return message, ""
    option = getattr(error, "option_name", "")
    if option and not option.startswith("--"):  # -d of -dash.mp4
        return message, f"See `{command} --help`; write -- before a file or a question that begins with a dash."
    return message, f"See `{command} --help`."


def _origin(error: Any) -> str:
    """The flag, the variable or the line of the config file that gave the value."""
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx else None
    match source.name if source else None:
        case "ENVIRONMENT":
            return str(error.param.envvar)
        case "DEFAULT_MAP":
            return f"`{error.param.name}` in {user_config_path()}"
        case _:
            return str(error.param_hint or " / ".join(error.param.opts))


def report(error: BaseException, as_json: bool) -> int:
    """Tell the user about `error`, on stderr or as an object on stdout, and return its exit code."""
    failure = explain(error)
    with contextlib.suppress(OSError):  # nobody is listening any more: the exit code still tells
        if _is_debugging():
            sys.stderr.write(printable("".join(traceback.format_exception(error))))
        if as_json and _print_json_error(failure.kind, f"{failure.message} {failure.remedy}".strip()):
            return failure.exit_code
        if failure.message:  # empty after the help that stands in for missing arguments
            message = Text.assemble(("Error: ", "bold red"), printable_line(failure.message))
            message.append(f"\n{printable_line(failure.remedy)}" if failure.remedy else "")
            print_line(Console(stderr=True, highlight=False), message)
    return failure.exit_code


def _report_interrupt(as_json: bool) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write("\n")  # ends the line that holds ^C, and with it an answer that was being written
        if as_json:
            _print_json_error("Interrupted", "Interrupted with Ctrl-C.")


def _print_json_error(kind: str, message: str) -> bool:
    """Whether it went out: where stdout itself is what failed, stderr is left."""
    try:
        print_json({"status": "error", "error": {"type": kind, "message": message}})
    except OSError as failed:
        return isinstance(failed, BrokenPipeError)  # whoever left knows
    return True


class Interrupt:
    """Ctrl-C, as a signal handler: the first one lets everything tidy up, another ends the process at once.

    `seen` says that it was pressed: libraries may turn the KeyboardInterrupt into an error of their own. In a chat it
    stops the step that is under way, and does nothing between steps; each step counts its own, and another press ends
    the process only after `double_tap_seconds`: keys are pressed twice in a hurry, which must not cost a conversation.
    """

    def __init__(self, *, double_tap_seconds: float = 0.0) -> None:
        self._double_tap_seconds = double_tap_seconds
        self._is_heard = not double_tap_seconds
        self._pressed_at: float | None = None

    @property
    def seen(self) -> bool:
        """Whether it was pressed, in a chat since the last step began."""
        return self._pressed_at is not None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """What Ctrl-C stops in a chat: KeyboardInterrupt is raised somewhere in the block."""
        self._pressed_at, self._is_heard = None, True
        try:
            yield
        finally:
            self._is_heard = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_heard:
            return
        now = time.monotonic()
        if self._pressed_at is None:
            self._pressed_at = now
            if not self._double_tap_seconds:
                # What Python does last it does without handlers: Ctrl-C would end it by the signal, not with 130.
                atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt
        if now - self._pressed_at >= self._double_tap_seconds:
            _end_now()


@contextlib.contextmanager
def chat_interrupts() -> Iterator[Interrupt]:
    """Handle Ctrl-C as a chat does, and afterwards as before; where it is ignored, as under nohup, it stays so."""
    interrupts, before = Interrupt(double_tap_seconds=1.0), signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and callable(before)
    if ours:
        signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _exit_tidily(number: int, _frame: FrameType | None) -> None:
    """Exit as the signal would, once everything is put away: a copy of standard input, for one."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _watch_signals() -> Iterator[Interrupt]:
    """Note Ctrl-C while running, and until the process ends once it came; nohup and other handlers keep theirs."""
    interrupt = Interrupt()
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        usual[signal.SIGHUP] = signal.SIG_DFL
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [number for number, handler in usual.items() if in_main_thread and signal.getsignal(number) is handler]
    for number in ours:
        signal.signal(number, interrupt if number == signal.SIGINT else _exit_tidily)
    try:
        yield interrupt
    finally:
        for number in ours:
            if number != signal.SIGINT or not interrupt.seen:
                signal.signal(number, usual[number])


_STDERR = 2  # Python's own stream may be locked by what was interrupted


def _end_now() -> None:
    """End the process without tidying up, but for the cursor, which a live display hides.

    A terminal that was stopped, or whose connection hangs, takes nothing, and is not waited for.
    """
    if os.isatty(_STDERR) and os.environ.get("TERM", "dumb") != "dumb":
        is_posix = os.name == "posix"
        with contextlib.suppress(OSError):
            if is_posix:
                os.set_blocking(_STDERR, False)
            os.write(_STDERR, b"\x1b[?25h\n")
        with contextlib.suppress(OSError):
            if is_posix:
                os.set_blocking(_STDERR, True)  # the shell's as well
    os._exit(ExitCode.INTERRUPTED)
