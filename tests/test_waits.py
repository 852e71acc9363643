"""Nothing waits for ever: whatever may wait has a bound, or stands here with the reason why what it waits for comes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfvqa

PACKAGE = Path(sfvqa.__file__).parent

_HELD_SHORTLY = "a lock that is held for a few instructions, in none of which anything is waited for"
_THE_DEVICE = "for what a device computes, as for every product on it"
_A_STEP = "the step's own process, which is killed at its limit"
_A_PERSON = "a person may stop it, and sees what it waits for"

REASONS = {
    "checkpoints/download.py: fetched.result()": "asked once it is done",
    "checkpoints/download.py: pool.shutdown(wait=False)": "waits for nothing",
    "batch/cluster/connection.py: ray.shutdown()": "Ray bounds it, and has killed what runs by then",
    "batch/journal.py: with self._mutex": "held while a line is written, for which a disk or a reader must make room",
    "batch/reading_pool.py: self._changed.wait_for(lambda: self._is_closed or ((course.attempts or self._courses) and "
    "len(self._ahead) < self._most_ahead))": "an idle thread's; work or the end of the batch wakes it",
    "batch/reading_pool.py: with self._changed": _HELD_SHORTLY,
    "batch/report/cards.py: waiting.popleft().result()": "reading has its own time-out, and is killed then",
    "batch/report/cards.py: executor.shutdown(cancel_futures=True)": "the same",
    "batch/watchdog.py: outcomes.get()": "who decided in favour of the outcome puts it there next",
    "batch/video_ahead.py: with self._changed": _HELD_SHORTLY,
    "batch/watchdog.py: with self._mutex": _HELD_SHORTLY,
    "inference/engine.py: chosen.wait()": _THE_DEVICE,
    "inference/reading_ahead.py: room.acquire()": "who takes the chunks makes room, and more of it when it leaves",
    "inference/video_cache/store.py: with self._lock()": "a FileLock with LOCK_SECONDS",
    "training/check.py: looks[row.video].result()": "reading has its own time-out, and is killed then",
    "training/check.py: pool.shutdown(cancel_futures=True)": "the same",
    "lab/fake_cuda/device.py: subprocess.run(command, check=True)": "a compiler's, of 15 lines",
    "lab/harness.py: subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)": _A_PERSON,
    "lab/measurements/cold_start.py: process.wait()": _A_PERSON,
    "lab/measurements/cold_start.py: watching.join()": "the process that it watches has ended",
    "lab/measurements/cpu.py: subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)": _A_PERSON,
    "lab/measurements/gpu.py: process.wait()": "asked once the process has been killed",
    "lab/measurements/gpu_steps.py: subprocess.run([sys.executable, '-m', 'pytest', '-m', 'cuda', '-p', "
    "'no:cacheprovider', '-p', 'no:xdist', '-rA', *files], cwd=root.parent, env=environment, capture_output=True, "
    "text=True)": _A_STEP,
    "lab/measurements/gpu_steps.py: subprocess.run([sys.executable, '-m', 'sfvqa', 'doctor', '--json'], "
    "capture_output=True, text=True)": _A_STEP,
    "lab/measurements/roofline.py: chooser.choose(step(chosen.ids)).wait()": _THE_DEVICE,
    "lab/measurements/readers.py: subprocess.run(command, capture_output=True, text=True, check=False)": _A_PERSON,
    "lab/measurements/seen_again.py: subprocess.run(command, capture_output=True, text=True, check=True, "
    "env=environment)": _A_PERSON,
    "lab/measurements/workers.py: running.communicate()": "asked once the process has ended",
    "model/decode_step.py: with self._mutex": "held while buffers are filled, by another answer of this process",
    "profiling/baselines.py: chosen.wait()": _THE_DEVICE,
    "serve/local.py: events.get()": "the service tells a last event, or the caller is gone",
    "serve/mcp.py: events.get()": "the service tells a last event, or the client cancels",
    "serve/status.py: with self._lock_path.open('rb')": "opens a file",
    "serve/status.py: with self._lock_path.open('xb')": "opens a file",
    "serve/local.py: wanted.get()": "the caller wants something, or is gone, or the server ends it",
    "serve/local.py: with self._mutex": _HELD_SHORTLY,
    "serve/model_thread.py: self._room.wait(is_busy=bool(self._turns))": "the same as what it calls, below",
    "serve/sight.py: with self._lock": _HELD_SHORTLY,
    "serve/sources.py: with self._mutex": _HELD_SHORTLY,
    "serve/waiting_room.py: self._changed.wait_for(lambda: self._to_read and self._num_ahead < most or not "
    "self._is_open)": "an idle thread's, which is in no way; work or the end of the service wakes it",
    "serve/waiting_room.py: self._changed.wait_for(lambda: is_busy or self._to_encode or self._to_answer or (not "
    "self._is_open))": "the same",
    "serve/waiting_room.py: with self._changed": _HELD_SHORTLY,
    "serve/wire.py: events.get()": "the service tells a last event, or the caller is gone",
    "video/readers/isolated.py: pickle.load(self._running.stdout)": "the process is killed at its time-out",
    "video/readers/isolated.py: pickle.load(source)": "the other end asks, or ends and closes the pipe",
    "video/readers/isolated.py: requests.get()": "the same, told by the thread that takes the requests",
    "video/readers/isolated.py: with self._mutex": "held while a process is started",
    "video/readers/opencv.py: with _ENVIRONMENT_LOCK": "held while OpenCV opens a file, in a process that is killed",
    "video/readers/tracks.py: with _LOG_LOCK": "held while FFmpeg describes a file that is open already",
    "video/readers/pyav.py: thread.join()": "stopped, it ends behind its next result; hanging, it is killed",
    "video/readers/pyav.py: waiting.get()": "each piece ends in _END or an error; hanging, it is killed",
}

# By how many arguments a call is bounded that has no `timeout`; None: by none.
_WAITS = {
    "acquire": 1, "communicate": 2, "get": 1, "join": 1, "recv": None, "result": 1, "select": 4, "shutdown": None,
    "wait": 1, "wait_for": 2,
}  # fmt: skip
_BOUNDS = {"timeout", "blocking", "block", "seconds"}
_LOCK = re.compile(r"lock|mutex|_changed", re.IGNORECASE)


def waits_in(source: str) -> Iterator[str]:
    """What may wait for ever, as it is written."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and not is_bounded(node):
            yield ast.unparse(node)
        elif isinstance(node, ast.With):
            for item in node.items:
                if _LOCK.search(ast.unparse(item.context_expr)) and not has_bound(item.context_expr):
                    yield f"with {ast.unparse(item.context_expr)}"


def has_bound(node: ast.AST) -> bool:
    return any(keyword.arg in _BOUNDS for keyword in ast.walk(node) if isinstance(keyword, ast.keyword))


def is_bounded(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    owner, _, last = name.rpartition(".")
    if any(keyword.arg in _BOUNDS for keyword in call.keywords):
        return True
    if owner == "subprocess":
        return last in ("Popen", "TimeoutExpired")
    if name in ("pickle.load", "urlopen", "FileLock", "WeakFileLock", "socket.create_connection"):
        return False
    if owner in ("ray", "self._ray", "self._ray.util"):
        return last not in ("get", "wait", "shutdown")
    if not owner or last not in _WAITS:
        return True
    enough = _WAITS[last]
    return enough is not None and len(call.args) >= enough


def all_waits() -> set[str]:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        found |= {f"{path.relative_to(PACKAGE).as_posix()}: {wait}" for wait in waits_in(path.read_text("utf-8"))}
    return found


def test_what_may_wait_has_a_bound_or_a_reason() -> None:
    assert sorted(all_waits() - REASONS.keys()) == []


def test_no_reason_is_left_for_what_is_gone() -> None:
    assert sorted(REASONS.keys() - all_waits()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("queue.get()", 1), ("queue.get(timeout=1)", 0), ("mapping.get(key)", 0), ("ray.get(reference)", 1),
        ("ray.get(reference, timeout=1)", 0), ("thread.join()", 1), ("', '.join(words)", 0), ("event.wait(1)", 0),
        ("changed.wait_for(lambda: done)", 1), ("lock.acquire(blocking=False)", 0), ("subprocess.run(command)", 1),
        ("with self._mutex:\n    pass", 1), ("with FileLock(path, timeout=1):\n    pass", 0),
        ("select.select([source], [], [])", 1), ("select.select([source], [], [], 1)", 0), ("pickle.load(pipe)", 1),
    ],
)  # fmt: skip
def test_a_wait_is_known_by_its_bound(source: str, found: int) -> None:
    assert len(list(waits_in(source))) == found
