"""How runs end: exit codes, errors as two sentences or as JSON, Ctrl-C, closed pipes."""

import contextlib
import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfvqa import errors
from sfvqa.cli import exits
from sfvqa.cli.exits import explain, safe_streams
from tests.cli.conftest import RunCli
from tests.cli.fake import ScriptedVideoQA
from tests.windows import named_windows, needs_signals


def _all_errors(kind: type[errors.SfvqaError]) -> Iterator[type[errors.SfvqaError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


@pytest.mark.parametrize("kind", list(_all_errors(errors.SfvqaError)))
def test_every_error_of_ours_is_told_with_its_code(
    kind: type[errors.SfvqaError], run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    """One sentence, a remedy, the class's exit code; with --json the same as an object; never a traceback."""
    model.script = [[kind("It broke.", "Mend it.")]] * 2
    run = run_cli("ask", str(video), "Q?")
    assert (run.exit_code, run.stderr.splitlines()[-2:]) == (kind.exit_code, ["Error: It broke.", "Mend it."])
    model.asked.clear()
    run = run_cli("ask", str(video), "Q?", "--json")
    expected = {"type": kind.__name__, "message": "It broke. Mend it."}
    assert run.exit_code == kind.exit_code
    assert json.loads(run.stdout) == {"schema_version": 1, "status": "error", "error": expected}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        ([], 2, "Missing argument"),
        (["clip.mp4"], 2, "No question was given"),
        (["absent.mp4", "Q?"], 3, "absent.mp4"),
        (["folder", "Q?"], 3, "folder"),
        (["empty.mp4", "Q?"], 3, "empty"),
        (["clip.mp4", ""], 2, "A question is empty."),
        (["clip.mp4", "Q?", " \n"], 2, "A question is empty."),
        (["clip.mp4", "What is \udce9?"], 2, "not valid UTF-8"),
        (["clip.mp4", "Q?", "--frames", "0"], 2, "--frames"),
        (["clip.mp4", "Q?", "--frames", "many"], 2, "--frames: 'many' is neither"),
        (["clip.mp4", "Q?", "--frames", "-1"], 2, "--frames: '-1' is neither"),
        (["-dash.mp4", "Q?"], 2, "write -- before a file or a question that begins with a dash"),
        (["clip.mp4", "-5 or 5?"], 2, "write -- before"),
        (["clip.mp4", "Q?", "--start", "5", "--end", "3"], 2, "start"),
        (["clip.mp4", "Q?", "--start", "5", "--end", "5"], 2, "start"),
        (["clip.mp4", "Q?", "--start", "1:75"], 2, "--start: “1:75” is not a time"),
        (["clip.mp4", "Q?", "--temperature", "-1"], 2, "--temperature"),
        (["clip.mp4", "Q?", "--temperature", "nan"], 2, "--temperature"),
        (["clip.mp4", "Q?", "--top-p", "0"], 2, "--top-p"),
        (["clip.mp4", "Q?", "--top-p", "1.1"], 2, "--top-p"),
        (["clip.mp4", "Q?", "--repetition-penalty", "0"], 2, "--repetition-penalty"),
        (["clip.mp4", "Q?", "--max-new-tokens", "0"], 2, "--max-new-tokens"),
        (["clip.mp4", "Q?", "--seed", "-1"], 2, "--seed: -1 is not between"),
        (["clip.mp4", "Q?", "--device", "toaster"], 2, "toaster"),
        (["clip.mp4", "Q?", "--dtype", "int3"], 2, "--dtype: 'int3' is not one of 'auto', "),
        (["clip.mp4", "Q?", "--reader", "decord"], 2, "--reader"),
        (["clip.mp4", "Q?", "--slow-attention", "never"], 2, "--slow-attention"),
        (["clip.mp4", "Q?", "--attention", "flash"], 2, "--attention"),
        (["clip.mp4", "Q?", "--no-such-option"], 2, "--no-such-option"),
        (["clip.mp4", "Q?", "--model", "tinny"], 4, "tiny"),
        (["clip.mp4", "Q?", "--model", "./no-such-folder"], 4, "no-such-folder"),
        (["clip.mp4", "Q?", "--model", "slowfast-7b"], 4, "sfvqa models pull slowfast-7b-64f"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    arguments: list[str],
    exit_code: int,
    says: str,
    flags: list[str],
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input costs a moment, not the loading of a model; every usage error has its JSON form."""

    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("sfvqa.cli.model.load", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"not looked at\0")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    run = run_cli("ask", *arguments, *flags)
    assert run.exit_code == exit_code
    if flags:
        document = json.loads(run.stdout)
        assert (document["schema_version"], document["status"]) == (1, "error")
        assert says in document["error"]["message"]
    else:
        assert run.stderr.startswith("Error: ")
        assert says in run.stderr
        assert (run.stdout, len(run.stderr.splitlines())) == ("", 2)


def test_a_surprise_is_one_sentence_unless_debugging(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours costs a sentence and code 1; SFVQA_DEBUG=1 shows where."""
    model.script = [[ZeroDivisionError("division by\x1b[31m zero")]] * 2
    run = run_cli("ask", str(video), "Q?")
    assert (run.exit_code, "Traceback" in run.stderr, "\x1b" in run.stderr) == (1, False, False)
    assert "ZeroDivisionError: division by\\x1b[31m zero" in run.stderr
    assert "SFVQA_DEBUG=1" in run.stderr
    model.asked.clear()
    monkeypatch.setenv("SFVQA_DEBUG", "1")
    run = run_cli("ask", str(video), "Q?")
    assert run.exit_code == 1
    assert "Traceback (most recent call last)" in run.stderr


def test_memory_that_runs_out_anywhere_is_code_5() -> None:
    """Python's own MemoryError comes from places inference does not watch."""
    assert explain(MemoryError()).exit_code == 5


def test_ctrl_c_counts_even_when_a_library_turns_it_into_an_error(
    run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import interrupted half-way may surface as ImportError: the user pressed Ctrl-C all the same."""

    def interrupted_import(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("torch cannot be imported") from error

    monkeypatch.setattr("sfvqa.cli.video.VideoFile", interrupted_import)
    run = run_cli("ask", str(video), "Q?")
    assert (run.exit_code, run.stdout, run.stderr) == (130, "", "\n")


def test_a_second_ctrl_c_ends_it_at_once(run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that does not come back must not hold the user's terminal."""

    def stuck(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    left: list[int] = []
    monkeypatch.setattr("sfvqa.cli.video.VideoFile", stuck)
    monkeypatch.setattr(os, "_exit", left.append)
    assert run_cli("ask", str(video), "Q?").exit_code == 130
    assert left == [130]


def test_a_file_name_cannot_fake_a_line_of_ours(run_cli: RunCli) -> None:
    """A newline in a name stays inside the sentence about it."""
    run = run_cli("ask", "clip\nError: all is lost.mp4", "Q?")
    assert run.exit_code == 3
    assert len(run.stderr.splitlines()) == 2
    assert "clip\\nError" in run.stderr


def test_a_question_may_be_called_json(run_cli: RunCli) -> None:
    """What stands behind `--` is no option; errors of parsing are JSON if --json is one."""
    run = run_cli("ask", "absent.mp4", "--", "--json")
    assert (run.exit_code, run.stdout) == (3, "")
    assert json.loads(run_cli("ask", "--json").stdout)["status"] == "error"


def _sfvqa(*args: str, **settings: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sfvqa", *args]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_is_silent() -> None:
    """`sfvqa models list | head -0`: no traceback, no "Exception ignored"."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = _sfvqa("models", "list", stdout=theirs)
    os.close(theirs)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, "")


@needs_signals
def test_closed_streams_are_no_reason_to_fail() -> None:
    """`sfvqa models list >&- 2>&-` says nothing, and does not crash on having nobody to say it to."""
    command = f"{shlex.quote(sys.executable)} -m sfvqa models list >&-"
    run = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert subprocess.run(["sh", "-c", f"{command} 2>&-"], check=False).returncode == 0


def test_what_windows_redirects_is_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every other system; its own choice would escape what a French keyboard has not, in subtitles too."""
    named_windows(monkeypatch, exits)
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, file in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding="cp1252"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("犬は?".encode()), encoding="cp1252"))
    with safe_streams():
        assert sys.stdin.read() == "犬は?"
        for stream in (sys.stdout, sys.stderr):
            stream.write("犬 \udcff")
            stream.flush()
            assert stream.encoding == "utf-8"
    assert {file.getvalue() for file in written.values()} == {"犬 \\udcff".encode()}


class _PipeOfWindows(io.FileIO):
    """A pipe that calls its reader's absence what Windows does."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_closed_pipe_is_silent_on_windows_too(
    flags: tuple[str, ...],
    video: Path,
    model: ScriptedVideoQA,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`sfvqa ask … | more`: there it was an error, that of an invalid argument."""
    named_windows(monkeypatch, exits)
    ours, theirs = os.pipe()
    os.close(ours)
    with io.TextIOWrapper(io.BufferedWriter(_PipeOfWindows(theirs, "wb"))) as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        assert exits.run(["ask", str(video), "Q?", "-q", *flags]) == 1
    assert len(model.asked) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_full_disk_is_said(flags: tuple[str, ...]) -> None:
    """`sfvqa models list > file` on a full disk must not look like success; an error as JSON finds no room either."""
    with Path("/dev/full").open("w") as full:
        process = _sfvqa("models", "list", *flags, stdout=full)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.count("No space left on device") == 1
    assert "Traceback" not in stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stderr_that_cannot_be_written_costs_no_answer(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sfvqa ask … 2>/dev/full` failed at its first notice, and with it the answer was lost."""
    model.warnings = ("Mind the gap.",)
    with Path("/dev/full").open("w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        run = run_cli("ask", str(video), "Q?")
    assert (run.exit_code, run.stdout) == (0, "The circle moves left.\n")


def test_a_reader_of_stderr_that_has_gone_costs_no_answer(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`2> >(head -1)`: on a broken pipe rich closes stdout and leaves."""
    model.warnings = ("Mind the gap.",)
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w", buffering=1) as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", gone)
        run = run_cli("ask", str(video), "Q?")
    assert (run.exit_code, run.stdout) == (0, "The circle moves left.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_that_cannot_be_told_keeps_its_exit_code() -> None:
    """Python itself exits with 120 when what is left of stderr cannot be written."""
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([sys.executable, "-m", "sfvqa", "ask", "absent.mp4", "Q?"], stderr=full, check=False)
    assert run.returncode == 3


@needs_signals
def test_ctrl_c_while_starting_is_130(video: Path) -> None:
    """Interrupted during imports: always 130, never a traceback. Before it hands over, Python writes its own."""
    for seconds in (0.15, 0.3, 0.6):
        process = _sfvqa("ask", str(video), "Q?", "-m", "tiny", stdout=subprocess.PIPE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        # -SIGINT: Python itself had not started yet. 3 and 4: it was quick enough to find what is wrong.
        assert process.returncode in (130, -signal.SIGINT, 3, 4)
        ours = "sfvqa/cli" if process.returncode == -signal.SIGINT else "Traceback"
        assert (stdout, ours in stderr) == ("", False)


@needs_signals
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_ending_a_command_leaves_no_copy_of_standard_input(tmp_path: Path, name: str) -> None:
    """The copy may be a whole film, in a folder for temporary files that nobody tidies up."""
    number = getattr(signal, name)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and so by every command")
    command = [sys.executable, "-m", "sfvqa", "frames", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert process.stdin is not None
    process.stdin.write(b"begun")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.glob("*/*"))
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert list(tmp_path.iterdir()) == []


@needs_signals
def test_ctrl_c_while_python_ends_changes_no_exit_code() -> None:
    """Python drops the handlers before it is done: pressed then, Ctrl-C ended the process by its signal."""
    program = f"""
import sys; sys.path[:] = {sys.path!r}
import os, signal
from sfvqa.cli.exits import Interrupt

class Last:
    def __del__(self):
        kill(pid, 2)

kill, pid = os.kill, os.getpid()
signal.signal(signal.SIGINT, Interrupt())
last = Last()
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 130


WRITES_IN_A_THREAD = """
import os, signal, sys, threading, time
from sfvqa.cli.exits import safe_streams
signal.signal(signal.SIGINT, lambda *_: os._exit(130))
with safe_streams():
    threading.Thread(target=lambda: sys.stderr.write("." * 1_000_000), daemon=True).start()
    time.sleep(1)
    print("waits", flush=True)
    print("also waits", file=sys.stderr)
"""


@needs_signals
def test_ctrl_c_is_heard_while_a_thread_writes_where_nobody_reads() -> None:
    """As the thread of a live display on a stopped terminal: it held the stream's lock, and for locks of that kind
    Python waits without looking at signals, so that only `kill -9` ended a batch.
    """
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_IN_A_THREAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"waits\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(20) == 130
        finally:
            running.kill()
