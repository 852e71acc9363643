"""What is wrong with a command line, a variable or the config file, in our words instead of the parser's."""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, BinaryIO, cast

import typer

from sfvqa.cli.interrupts import Interrupt
from sfvqa.cli.terminal import printable, printable_line
from sfvqa.cli.user_config import user_config_path
from sfvqa.errors import ExitCode, SfvqaError


def describe_parse_error(error: typer.TyperException) -> tuple[str, str]:
    """What happened and what to do, a sentence each; a value is blamed on where it came from."""
    message = _invalid_value(error) if _has_value(error) else error.format_message()
    return _end(message), _remedy(error)


def _has_value(error: typer.TyperException) -> bool:
    return type(error) is typer.BadParameter and getattr(error, "param", None) is not None


def _invalid_value(error: Any) -> str:
    reason = error.message.removeprefix("Value error, ")  # pydantic's, from inside typer
    checks = getattr(error.__cause__, "errors", None)
    if checks is not None:
        reason = reason.replace("Input should", f"“{checks()[0]['input']}” should", 1)
    return f"Invalid value for {_origin(error)}: {reason}"


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


def _remedy(error: Any) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    if not path:
        return ""
    option = getattr(error, "option_name", "")
    if option and not option.startswith("--"):  # -d of -dash.mp4
        return f"See `{path} --help`; write -- before a file or a question that begins with a dash."
    return f"See `{path} --help`."


def _end(message: str) -> str:
    return message if not message or message[-1] in ".!?…" else f"{message}."


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
    """Turn off telemetry, progress bars, warnings and logs of the libraries underneath, for this process."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if os.environ.get("SFVQA_DEBUG", "") not in ("", "0"):
        return
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")


class _Unfailing(io.RawIOBase):
    """Passes bytes on to a stream, and drops what that refuses: a full disk, a reader that has gone.

    Nothing is buffered: a thread that waits for a terminal would hold the buffer's lock, for which the main thread
    waits deaf to Ctrl-C.
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


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """While this runs a notice that cannot be written costs nothing else, least of all the answer on stdout."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an answer the terminal cannot spell is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    stderr = sys.stderr
    if isinstance(stderr, io.TextIOWrapper):
        raw = _Unfailing(getattr(stderr.buffer, "raw", stderr.buffer))
        sys.stderr = io.TextIOWrapper(
            cast("BinaryIO", raw), encoding=stderr.encoding, errors="backslashreplace", line_buffering=True
        )
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = stderr


def _replace_closed_streams() -> None:
    """`>&-` leaves Python without the stream; what is written then goes nowhere, as in any other program."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the life of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


JSON_SCHEMA_VERSION = 1
_LONGEST_REASON = 500
_INTERNAL_REMEDY = "Run it again with SFVQA_DEBUG=1 to see where, and report what it prints."


@dataclass(frozen=True)
class Failure:
    """What the user is told about an error: its type's name, a sentence, a remedy, and the exit code."""

    kind: str
    message: str
    remedy: str
    exit_code: int


def run(argv: Sequence[str]) -> int:
    """Run the command line on `argv`, without the program's name, and return the exit code; raises nothing."""
    as_json = wants_json(argv)
    silence_third_parties()
    with safe_streams():
        with _watch_interrupts() as interrupt:
            exit_code = _run_guarded(argv, as_json, interrupt)
        return _flush_output(exit_code)


def wants_json(argv: Sequence[str]) -> bool:
    """Whether errors are to be JSON: asked before parsing, because parsing is what may fail."""
    return "--json" in _options(argv)


def _options(argv: Sequence[str]) -> Sequence[str]:
    """The part of the arguments that may hold options."""
    return argv[: list(argv).index("--")] if "--" in argv else argv


def explain(error: BaseException) -> Failure:
    """What to tell the user about `error`."""
    if isinstance(error, SfvqaError):
        return Failure(type(error).__name__, error.message, error.remedy, error.exit_code)
    if isinstance(error, typer.TyperException):
        return Failure("UsageError", *describe_parse_error(error), error.exit_code)
    if isinstance(error, typer.Abort):
        return Failure("Aborted", "Nothing was answered.", "", ExitCode.FAILED)
    if isinstance(error, MemoryError):
        remedy = "Use fewer frames (--frames), a smaller model, or a machine with more free memory."
        return Failure("OutOfMemoryError", "Memory ran out.", remedy, ExitCode.OUT_OF_MEMORY)
    if isinstance(error, OSError):
        return Failure(type(error).__name__, f"The system refused something: {error}.", "", ExitCode.FAILED)
    reason = " ".join(str(error).split())[:_LONGEST_REASON]  # torch writes pages
    message = f"Something went wrong inside sfvqa: {type(error).__name__}: {reason}"
    return Failure(type(error).__name__, message, _INTERNAL_REMEDY, ExitCode.FAILED)


# What a terminal that is closed, or a job that is ended, sends; Windows has only the first.
_ENDINGS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def _tidy_up(number: int, _frame: FrameType | None) -> None:
    """End as the signal would, but for what has to be put away first, a copy of standard input for one."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _watch_interrupts() -> Iterator[Interrupt]:
    """Note Ctrl-C while running, and until the process ends once it came; nohup and other handlers keep theirs."""
    interrupt = Interrupt()
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    endings = [number for number in _ENDINGS if in_main_thread and signal.getsignal(number) is signal.SIG_DFL]
    for number in endings:
        signal.signal(number, _tidy_up)
    try:
        yield interrupt
    finally:
        for number in endings:
            signal.signal(number, signal.SIG_DFL)
        if ours and not interrupt.seen:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_guarded(argv: Sequence[str], as_json: bool, interrupt: Interrupt) -> int:
    try:
        exit_code = _invoke(argv)
        if exit_code != ExitCode.INTERRUPTED:
            return exit_code
    except SystemExit as leaving:  # completion, and rich or typer after a broken pipe
        return leaving.code if isinstance(leaving.code, int) else ExitCode.FAILED
    except BrokenPipeError:
        return ExitCode.FAILED
    except BaseException as error:  # noqa: BLE001  the border: from here on there are only exit codes
        if not interrupt.seen and not isinstance(error, KeyboardInterrupt):
            return report(error, as_json)
    _report_interrupt(as_json)
    return ExitCode.INTERRUPTED


def _invoke(argv: Sequence[str]) -> int:
    from sfvqa.cli.app import app
    from sfvqa.cli.user_config import configurable, load_user_config

    name = next((word for word in argv if not word.startswith("-")), None)
    command = typer.main.get_command(app)
    known = configurable(command)
    needs_config = name in known and not {"-h", "--help", "--help-all"} & set(_options(argv))
    default_map = {name: load_user_config(known)} if needs_config else {}  # a broken file must stop nothing else
    result = command.main(list(argv), prog_name="sfvqa", standalone_mode=False, default_map=default_map)
    return result if isinstance(result, int) else ExitCode.OK


def report(error: BaseException, as_json: bool) -> int:
    """Tell the user about `error`, on stderr or as an object on stdout, and return its exit code."""
    failure = explain(error)
    with contextlib.suppress(OSError):  # nobody is listening any more: the exit code still tells
        if os.environ.get("SFVQA_DEBUG", "") not in ("", "0"):
            sys.stderr.write(printable("".join(traceback.format_exception(error))))
        if as_json and _print_json_error(failure.kind, f"{failure.message} {failure.remedy}".strip()):
            return failure.exit_code
        if failure.message:  # empty after the help that stands in for missing arguments
            _print_error(failure)
    return failure.exit_code


def _report_interrupt(as_json: bool) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write("\n")  # ends the line that holds ^C, and with it an answer that was being written
        if as_json:
            _print_json_error("Interrupted", "Interrupted with Ctrl-C.")


def _print_json_error(kind: str, message: str) -> bool:
    """Whether it went out: where stdout itself is what failed, stderr is left."""
    error = {"type": kind, "message": message}
    document = {"schema_version": JSON_SCHEMA_VERSION, "status": "error", "error": error}
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except OSError as failed:
        return isinstance(failed, BrokenPipeError)  # whoever left knows
    return True


def _print_error(failure: Failure) -> None:
    from rich.console import Console
    from rich.text import Text

    from sfvqa.cli.terminal import print_line

    message = Text.assemble(("Error: ", "bold red"), printable_line(failure.message))
    if failure.remedy:
        message.append(f"\n{printable_line(failure.remedy)}")
    print_line(Console(stderr=True, highlight=False), message)


def _flush_output(exit_code: int) -> int:
    """Flush stdout now: at shutdown Python would complain about a closed pipe, and change the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code or ExitCode.FAILED
    except OSError as error:
        sys.stderr.write(f"Error: The answer could not be written: {error}.\n")
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code or ExitCode.FAILED
    return exit_code
