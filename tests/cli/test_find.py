"""`sfvqa find` on the bundled videos, with tiny: a list, JSON, a picture, clips, and what is refused."""

import json
import shutil
from pathlib import Path

import av
import pytest
from PIL import Image

from sfvqa.cli.demo import load_demo_videos
from tests.cli.conftest import RunCli

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


def test_clips_of_what_is_no_video_file_are_refused_before_anything_is_looked_at(
    run_cli: RunCli, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "still.png")
    run = run_cli("find", str(tmp_path / "still.png"), "a star", "--model", "tiny", "--clips", str(tmp_path / "clips"))
    assert (run.exit_code, run.stdout) == (2, "")
    assert "--clips" in run.stderr
