"""`sfvqa find` on the bundled videos, with tiny: a list, JSON, a picture, clips, and what is refused."""

import io
import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.find_figure import draw
from sfvqa.errors import UnreadableVideoError
from sfvqa.inference.find import Found
from sfvqa.inference.moments import Calibration, FindOptions, Look, Moment
from sfvqa.video.clip import VideoInfo
from sfvqa.video.readers.isolated import IsolatedReader
from tests.cli.conftest import RunCli
from tests.windows import as_on_windows, needs_links, needs_names

SHAPES = next(video.path for video in load_demo_videos() if video.path.endswith("shapes.mp4"))
FIND = ("find", SHAPES, "--model", "tiny")


def test_moments_are_on_stdout_and_what_was_looked_at_on_stderr(run_cli: RunCli) -> None:
    run = run_cli(*FIND, "a red circle", "-v")
    assert run.exit_code == 0
    (line,) = run.stdout.splitlines()
    assert line.split()[1:3] == [">", "99"]
    assert line.split()[-1].startswith("0:00–")
    assert "shapes.mp4 · 1 window of 8 s, " in run.stderr
    assert "frames looked at · tiny" in run.stderr


def test_nothing_found_is_said_and_is_no_failure(run_cli: RunCli) -> None:
    run = run_cli(*FIND, "a purple heart", "-q")
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout == "Nothing found. The likeliest part is 0:00–0:05, at < 1 %.\n"
    run = run_cli(*FIND, "a purple heart", "--json")
    assert (run.exit_code, json.loads(run.stdout)["moments"]) == (0, [])


def test_what_is_there_all_along_is_no_moment_and_that_is_said(run_cli: RunCli) -> None:
    run = run_cli(*FIND, "a red circle", "--every", "2")
    assert run.exit_code == 0
    assert run.stdout.startswith("Nothing found that stands out: the model says yes of half of the video or more.")


def test_the_number_of_frames_is_that_of_a_window(run_cli: RunCli) -> None:
    found = json.loads(run_cli(*FIND, "a red circle", "--json", "--every", "2", "--frames", "3").stdout)
    assert found["windows"]["frames"] == 3 * found["windows"]["count"]
    help_text = " ".join(run_cli("find", "--help").stdout.replace("│", " ").split())
    assert "How many frames of each window to look at (default: two a second" in help_text


def test_json_has_every_figure(run_cli: RunCli) -> None:
    found = json.loads(run_cli(*FIND, "Is there a red circle?", "--json", "--every", "0:08", "--top", "1").stdout)
    assert (found["schema_version"], found["video"], found["model"]) == (1, SHAPES, "tiny")
    assert found["question"] == "Is there a red circle?"
    (moment,) = found["moments"]
    assert 0.0 <= moment["start_seconds"] <= moment["best_seconds"] <= moment["end_seconds"] <= 5.1
    assert moment["is_looked_at"] is True
    assert 0.5 <= moment["probability"] <= 1.0
    assert found["windows"]["count"] == 5  # all of it, and four closer
    assert found["settings"]["every_seconds"] == 8.0


def test_a_picture_and_clips_are_made(run_cli: RunCli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, clips = tmp_path / "found.svg", tmp_path / "clips"
    run = run_cli(*FIND, "a red circle", "--out", str(out), "--clips", str(clips))
    assert run.exit_code == 0, run.stderr
    picture = out.read_text(encoding="utf-8")
    assert "a red circle" in picture
    assert picture.count("<image") == 1  # the frame of the only moment
    (clip,) = clips.iterdir()
    assert clip.name == "1-shapes-0.00.mp4"
    with av.open(str(clip)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 24


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "is empty"),
        (("a star", "--timestamps", "1,2"), "given times"),
        (("a star", "--out", "found.txt"), "picture format"),
        (("a star", "--clips", SHAPES), "not a folder"),
        (("a star", "--clips", f"{SHAPES}/clips"), "not a folder"),
        (("a star", "--every", "0"), "--every"),
        (("a star", "--threshold", "0"), "threshold"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    run_cli: RunCli, arguments: tuple[str, ...], said: str
) -> None:
    run = run_cli(*FIND, *arguments)
    assert (run.exit_code, run.stdout) == (2, "")
    assert said in run.stderr


def test_a_clip_is_copied_to_what_nobody_has_locked(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that reads the video writes it, and on Windows could not: the file was locked by this one."""
    as_on_windows(monkeypatch)
    copy_part, tried = IsolatedReader.copy_part, []

    def copied(reader: IsolatedReader, target: Path, *rest: Any) -> float:
        tried.append(target.read_bytes())
        return copy_part(reader, target, *rest)

    monkeypatch.setattr(IsolatedReader, "copy_part", copied)
    assert run_cli(*FIND, "a red circle", "--clips", str(tmp_path / "clips")).exit_code == 0
    assert tried == [b""]
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["1-shapes-0.00.mp4"]


@needs_links
@needs_names
def test_a_clip_never_takes_the_place_of_the_video_and_comes_whole_or_not_at_all(
    run_cli: RunCli, tmp_path: Path
) -> None:
    video = tmp_path / "http:shapes%d.mp4"
    shutil.copy(SHAPES, video)
    clips = tmp_path / "clips"
    clips.mkdir()
    clip = clips / f"1-{video.stem}-0.00.mp4"
    clip.symlink_to(video)
    find = ("find", str(video), "a red circle", "--model", "tiny", "--clips", str(clips), "--no-cache")
    run = run_cli(*find)
    assert run.exit_code == 2
    assert "is also an input file" in run.stderr
    assert video.read_bytes() == Path(SHAPES).read_bytes()
    clip.unlink()
    assert run_cli(*find).exit_code == 0
    assert [path.name for path in clips.iterdir()] == [clip.name]


def test_a_clip_that_cannot_be_copied_does_not_end_the_others(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[float] = []
    copy = IsolatedReader.copy_part

    def sometimes(reader: IsolatedReader, target: Path, form: str, start: float, end: float) -> float:
        copied.append(start)
        if len(copied) == 1:
            raise UnreadableVideoError("No clip can be copied out of it.", "Leave it out.")
        return copy(reader, target, form, start, end)

    def twice(*_: object, **__: object) -> Generator[None, None, Found]:
        yield from ()
        looks = (Look(0.0, 2.0, 5.0, 1.0, 24, is_looked_at=True), Look(2.0, 4.0, 5.0, 3.0, 72, is_looked_at=True))
        moments = tuple(Moment(at, at + 1.0, 0.9, at, int(24 * at), is_looked_at=True) for at in (0.0, 2.0, 3.0))
        video = VideoInfo(Path(SHAPES), 120, 24.0, 5.0, 320, 240, "h264", 0)
        return Found("it", "it?", "tiny", video, FindOptions(), moments, looks, Calibration.of(looks), 2, 48)

    monkeypatch.setattr(IsolatedReader, "copy_part", sometimes)
    monkeypatch.setattr("sfvqa.inference.find.find_progressively", twice)
    run = run_cli(*FIND, "it", "--clips", str(tmp_path))
    assert run.exit_code == 3
    assert len(run.stdout.splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-shapes-0.02.mp4", "3-shapes-0.03.mp4"]
    said = " ".join(run.stderr.split())
    assert "Warning: There is no" in said
    assert "No clip can be copied out of it. Leave it out." in said


def test_clips_of_what_is_no_video_file_are_refused_before_anything_is_looked_at(
    run_cli: RunCli, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "still.png")
    run = run_cli("find", str(tmp_path / "still.png"), "a star", "--model", "tiny", "--clips", str(tmp_path / "clips"))
    assert (run.exit_code, run.stdout) == (2, "")
    assert "--clips" in run.stderr


def test_a_picture_of_any_text_and_any_number_of_moments_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    looks = tuple(Look(float(at), at + 1.0, -9.0, at + 0.5, at, is_looked_at=True) for at in range(1200))
    moments = tuple(Moment(at, at + 1.0, 0.9, at + 0.5, int(at), is_looked_at=True) for at in range(0, 1200, 2))
    video = VideoInfo(tmp_path / f"{'long-' * 40}.mp4", 1200, 1.0, 1200.0, 64, 64, "h264", 0)
    text = f"it costs $5_{{ and\n\x1b[31m $6^ {'and more ' * 40}"
    found = Found(text, text, "tiny", video, FindOptions(), moments, looks, Calibration.of(looks), 1200, 1200)
    file = io.BytesIO()
    draw(found, {}, file, "svg")
    picture = file.getvalue().decode()
    assert "costs $5_{ and" in picture
    assert "600 found by tiny, the 40 likeliest below" in picture
    assert "\x1b" not in picture
    assert picture.count("90 %</text>") == 40
    assert ">10:00</text>" in picture  # whole minutes
