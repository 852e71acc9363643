"""`sfvqa ask --evidence` and `--evidence-out`: what is said and drawn, with a scripted model and the bundled one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.cli.demo import load_demo_videos
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.cli.fake import ScriptedVideoQA

STRONGEST = (255, 132, 92)
FLASH = next(video.path for video in load_demo_videos() if video.path.endswith("flash.mp4"))
QUESTION = "What colour does the screen flash?"


def test_the_moments_that_stand_out_come_after_the_answer(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    """Two of 32 do, the strongest first; stdout stays the answer's alone."""
    run = run_cli("ask", str(video), "Q?", "--evidence")
    assert (run.exit_code, run.stdout) == (0, "The circle moves left.\n")
    assert model.asked[0][1].evidence
    lines = run.stderr.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("Evidence:"))
    assert "a hint, not proof); evenly spread, 3.1 % a frame" in lines[place]
    bars = [line.split() for line in lines[place + 1 : place + 3]]
    assert [(words[0], words[-1]) for words in bars] == [("50.0", "0:00.75"), ("25.0", "0:00.25")]
    assert [len(words[2]) for words in bars] == [24, 12]
    assert "%" not in "".join(lines[place + 3 :])
    assert "\x1b" not in run.stderr


def test_nothing_of_it_unless_asked_for(run_cli: RunCli, video: Path, model: ScriptedVideoQA) -> None:
    run = run_cli("ask", str(video), "Q?")
    assert "Evidence" not in run.stderr
    assert not model.asked[0][1].evidence


def test_a_terminal_gets_the_bars(run_on_terminal: RunOnTerminal, video: Path, model: ScriptedVideoQA) -> None:
    code, screen = run_on_terminal("ask", str(video), "Q?", "--evidence")
    assert (code, len(model.asked)) == (0, 1)
    assert "█" * 24 in screen
    assert "█" * 25 not in screen


@pytest.mark.usefixtures("model")
def test_json_has_every_frame_and_quiet_none(run_cli: RunCli, video: Path) -> None:
    evidence = json.loads(run_cli("ask", str(video), "Q?", "--evidence", "--json").stdout)["evidence"]
    assert len(evidence) == 32
    assert evidence[3] == {"timestamp_seconds": 0.75, "index": 3, "weight": 0.5}


@pytest.mark.usefixtures("model")
def test_quiet_says_nothing_of_it(run_cli: RunCli, video: Path) -> None:
    run = run_cli("ask", str(video), "Q?", "--evidence", "--quiet")
    assert (run.stdout, run.stderr) == ("The circle moves left.\n", "")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--evidence", "--static-decode", "on"], "--static-decode on"),
        (["--evidence-out", "strip.gif"], "names a picture format"),
        (["--evidence-out", "{video}.png"], "no folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    flags: list[str], says: str, run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is loaded")

    monkeypatch.setattr("sfvqa.cli.model.load", never)
    run = run_cli("ask", str(video), "Q?", *[flag.replace("{video}", f"{video}/no/such") for flag in flags])
    assert run.exit_code == 2
    assert says in " ".join(run.stderr.split())


def test_evidence_overrules_static_decode_that_was_set_for_good(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFVQA_STATIC_DECODE", "on")
    assert run_cli("ask", str(video), "Q?", "--evidence").exit_code == 0
    assert (str(model.asked[0][1].static_decode), model.asked[0][1].evidence) == ("auto", True)


def marked_frames(path: Path) -> int:
    """How many bars have the strongest's colour over their whole width of 120 pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    full = (pixels == STRONGEST).all(axis=-1).sum(axis=1)
    return int(full.max()) // 120


@pytest.mark.slow
def test_the_filmstrip_of_the_bundled_model_marks_one_frame(run_cli: RunCli, tmp_path: Path) -> None:
    """Drawn from a file that is read again, from the video cache's too, and one picture a question."""
    strip = tmp_path / "strip.png"
    run = run_cli("ask", FLASH, QUESTION, "--evidence-out", str(strip))
    assert (run.exit_code, run.stdout) == (0, "The screen flashes purple.\n")
    assert "0:02.083" in run.stderr
    assert f"is drawn in {strip}" in "".join(run.stderr.splitlines())
    assert marked_frames(strip) == 1
    again = run_cli("ask", FLASH, QUESTION, "--evidence-out", str(strip.with_suffix(".webp")), "-v")
    assert "taken from the video cache" in again.stderr
    assert Image.open(strip.with_suffix(".webp")).size == Image.open(strip).size
    several = run_cli("ask", FLASH, QUESTION, "Is there a circle?", "--evidence-out", str(tmp_path / "many.jpg"), "-q")
    assert (several.exit_code, several.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.glob("many*")) == ["many-1.jpg", "many-2.jpg"]


@pytest.mark.slow
def test_a_video_from_standard_input_is_read_again_too(tmp_path: Path) -> None:
    """Its copy is there until the picture is drawn."""
    strip = tmp_path / "strip.png"
    command = [sys.executable, "-m", "sfvqa", "ask", "-", QUESTION, "--evidence-out", str(strip)]
    with Path(FLASH).open("rb") as file:
        run = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "The screen flashes purple.\n"), run.stderr
    assert marked_frames(strip) == 1
