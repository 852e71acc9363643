"""The frames are read while libraries are imported and the model is loaded: once, the right ones, and to an end."""

import json
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfvqa.checkpoints import known, plan
from sfvqa.cli import model, video
from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.screen import Notices
from sfvqa.cli.video import VideoFile
from sfvqa.errors import ExitCode, OutOfMemoryError, UnreadableVideoError
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit, FitSquare
from sfvqa.video.readers import isolated
from sfvqa.video.sampling import SamplingOptions
from tests.cli.conftest import RunCli

DEMO, QUESTION = load_demo_videos()[0].path, load_demo_videos()[0].questions[0][0]
ASK = ("ask", str(DEMO), QUESTION, "--model", "tiny", "--device", "cpu", "--json")
PATIENCE_SECONDS = 60


class Readings:
    """What was asked of readers: the fit of each time, and how many frames came in it; `processes` were started."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.fits: list[Fit] = []
        self.counts: list[int] = []
        self.processes: list[isolated.ReadingProcess] = []

    def wait_for(self, num_frames: int) -> None:
        """Until a reading has given so many frames."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while max(self.counts, default=0) < num_frames:
            assert time.monotonic() < deadline, self.counts
            time.sleep(0.01)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    watched = Readings()
    pictures, start = isolated.IsolatedReader.pictures, isolated.ReadingProcess._start

    def counting(
        self: isolated.IsolatedReader, indices: list[int], fit: Fit
    ) -> Generator[tuple[int, Pixels | str], None, None]:
        watched.fits.append(fit)
        watched.counts.append(0)
        place = len(watched.counts) - 1
        for picture in pictures(self, indices, fit):
            watched.counts[place] += 1
            yield picture

    def starting(self: isolated.ReadingProcess) -> None:
        watched.processes.append(self)
        start(self)

    monkeypatch.setattr(isolated.IsolatedReader, "pictures", counting)
    monkeypatch.setattr(isolated.ReadingProcess, "_start", starting)
    return watched


def before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, do: Callable[[], object]) -> None:
    """Have something done before a function is called."""
    function = getattr(module, name)

    def then(*args: object, **named: object) -> object:
        do()
        return function(*args, **named)

    monkeypatch.setattr(module, name, then)


def ask(run_cli: RunCli, *flags: str) -> dict[str, Any]:
    run = run_cli(*ASK, *flags)
    assert run.exit_code == 0, run.stdout + run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def nothing_goes_on(readings: Readings) -> bool:
    threads = {thread.name for thread in threading.enumerate()}
    return "sfvqa-reading" not in threads and all(process._running is None for process in readings.processes)


def test_all_frames_are_there_before_the_model_is_chosen(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By models.toml, whose model is only checked later; and they are not read again."""
    expected = ask(run_cli, "--no-cache", "--crop", "center")
    readings.forget()
    before(monkeypatch, model.ModelOptions, "choose", lambda: readings.wait_for(32))
    answer = ask(run_cli, "--no-cache")
    assert (answer["answer"], answer["frames"]) == (expected["answer"], expected["frames"])
    assert (readings.fits, readings.counts) == ([FitSquare(64)], [32])
    assert nothing_goes_on(readings)


def test_other_frames_than_expected_are_read_again(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan may find room for fewer, say; what is wrong with the first ones is nobody's concern."""
    expected = ask(run_cli, "--no-cache", "--frames", "16")
    readings.forget()
    make_plan = plan.make_plan

    def smaller(*args: Any, **named: Any) -> plan.Plan:
        readings.wait_for(32)
        made = make_plan(*args, **named)
        return replace(made, fit=replace(made.fit, run=replace(made.run, num_frames=16)))

    monkeypatch.setattr(plan, "make_plan", smaller)
    answer = ask(run_cli, "--no-cache")
    assert (answer["answer"], answer["frames"]) == (expected["answer"], expected["frames"])
    assert readings.counts == [32, 16]
    assert nothing_goes_on(readings)


@pytest.mark.parametrize("expected", [None, FitSquare(32)], ids=["unknown", "another"])
def test_frames_are_fitted_as_the_model_has_it(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch, expected: Fit | None
) -> None:
    """Where models.toml does not say, or is wrong, the config does, and that is before the weights are loaded."""
    monkeypatch.setattr(known, "expected_fit", lambda *_: expected)
    before(monkeypatch, model, "load", lambda: readings.wait_for(1))
    ask(run_cli, "--no-cache")
    assert readings.fits[-1] == FitSquare(64)
    assert len(readings.fits) == 1 + (expected is not None)


def test_a_dry_run_reads_nothing(run_cli: RunCli, readings: Readings) -> None:
    ask(run_cli, "--dry-run")
    assert readings.fits == []
    assert nothing_goes_on(readings)


def test_what_may_be_kept_is_read_when_it_turns_out_not_to_be(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(run_cli)
    before(monkeypatch, model.ModelOptions, "choose", lambda: seen.append(len(readings.fits)))
    before(monkeypatch, model, "load", lambda: seen.append(len(readings.fits)))
    seen: list[int] = []
    assert ask(run_cli)["from_video_cache"] is True
    assert seen == [1, 1]
    before(monkeypatch, model, "load", lambda: readings.wait_for(1))
    assert ask(run_cli, "--frames", "16")["from_video_cache"] is False
    assert seen == [1, 1, 1, 2], "not before it was looked for, and before the model was loaded"


def test_what_goes_wrong_meanwhile_is_told_as_ever(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Generator[tuple[int, Pixels | str], None, None]:
        raise UnreadableVideoError("The file broke.", "Mend it.")
        yield

    monkeypatch.setattr(isolated.IsolatedReader, "pictures", broken)
    run = run_cli(*ASK, "--no-cache")
    assert run.exit_code == ExitCode.VIDEO
    assert "The file broke." in run.stdout
    assert nothing_goes_on(readings)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutOfMemoryError("No room.", "Free some.")])
@pytest.mark.parametrize(("module", "name"), [(model.ModelOptions, "choose"), (model, "load")])
def test_leaving_ends_reading(
    run_cli: RunCli,
    readings: Readings,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    module: Any,
    name: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)
    code = run_cli(*ASK, "--no-cache").exit_code
    assert code == (ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.OUT_OF_MEMORY)
    assert nothing_goes_on(readings)


def test_ctrl_c_while_torch_is_imported_ends_the_process_that_opens_the_video(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        assert len(readings.processes) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "import_once", interrupted)
    assert run_cli(*ASK, "--no-cache").exit_code == ExitCode.INTERRUPTED
    assert nothing_goes_on(readings)


def test_what_loading_hides_counts_for_no_time() -> None:
    with VideoFile(Path(DEMO), FrameOptions(), None, Notices(quiet=True)) as file:
        file.read_ahead(SamplingOptions(8), FitSquare(64))
        thread = next(thread for thread in threading.enumerate() if thread.name == "sfvqa-reading")
        thread.join(PATIENCE_SECONDS)
        assert file._ahead is not None
        assert file._ahead.watch.seconds > 0
        file.count_from_now()
        assert file._ahead.watch.seconds == 0


def test_a_chat_reads_ahead_too(
    run_cli: RunCli, readings: Readings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before(monkeypatch, model.ModelOptions, "choose", lambda: readings.wait_for(32))
    questions = tmp_path / "questions.txt"
    questions.write_text(QUESTION + "\n")
    with questions.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run_cli("chat", str(DEMO), "--model", "tiny", "--device", "cpu", "--no-cache").exit_code == 0
    assert readings.counts == [32]


def test_no_garbage_is_looked_for_while_something_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    (tmp_path / "whole_library.py").write_text("import gc\nwas_enabled = gc.isenabled()\n")
    (tmp_path / "broken_library.py").write_text("raise ImportError\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # what other tests left is still to be collected
    model.import_once("whole_library", Notices(quiet=True))
    assert sys.modules.pop("whole_library").was_enabled is False
    assert gc.isenabled()
    with pytest.raises(ImportError):
        model.import_once("broken_library", Notices(quiet=True))
    assert gc.isenabled()
