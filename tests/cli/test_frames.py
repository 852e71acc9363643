"""`sfvqa frames`: a table, an object or a sheet of what a model would see, and what is wrong with it."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfvqa.cli.demo import load_demo_videos
from sfvqa.video import FitWithin, ReadProgress
from sfvqa.video.clip import Clip, MissingFrame, VideoInfo
from tests.cli.conftest import RunCli, RunOnTerminal
from tests.windows import needs_links

SHAPES = next(video.path for video in load_demo_videos() if video.path.endswith("shapes.mp4"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 16:9 at 20 fps."""
    return _write_video(tmp_path_factory.mktemp("wide") / "wide.mp4", 320, 180)


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch, video: Path) -> Path:
    """A video of which one frame of three cannot be read, and its name moves the cursor."""

    def read(path: Path, *_args: object, **_options: object) -> Generator[ReadProgress, None, Clip]:
        yield ReadProgress(2, 3)
        info, grey = VideoInfo(path, 100, 25.0, 4.0, 64, 36, "vp9", 0), np.full((2, 9, 16, 3), 200, np.uint8)
        return Clip(
            (0.0, 2.0), (0, 50), info, "uniform", "pyav",
            ("The file ends early.",), (MissingFrame(25, 1.0, "its group is\x1b[2J damaged"),), frames=grey,
        )  # fmt: skip

    monkeypatch.setattr("sfvqa.video.reading.read_clip_progressively", read)
    return video


def test_the_table_is_on_stdout_and_the_summary_on_stderr(run_cli: RunCli) -> None:
    """As many frames as the model that `ask` would use was trained with, each with its time."""
    run = run_cli("frames", SHAPES, "-v")
    assert run.exit_code == 0
    head, *rows = run.stdout.splitlines()
    assert head.split() == ["index", "time"]
    assert (len(rows), rows[0].split(), rows[-1].split()) == (32, ["0", "0:00"], ["119", "0:04.958"])
    assert "bundled tiny" in run.stderr
    summary = "shapes.mp4: 0:05 long, 288×288, h264, 24 fps; 32 frames from 0:00 to 0:04.958 (uniform); "
    assert summary + "the centre crop cuts off nothing\n" in run.stderr


def test_quiet_leaves_the_table_alone(run_cli: RunCli) -> None:
    loud, quiet = run_cli("frames", SHAPES), run_cli("frames", SHAPES, "-q")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, loud.stdout, "")


def test_fewer_frames_than_asked_for_are_said(run_cli: RunCli) -> None:
    """`--frames 500` of 120 frames gave 120 without a word."""
    run = run_cli("frames", SHAPES, "--frames", "500", "--json", "-q")
    document = json.loads(run.stdout)
    assert len(document["frames"]) == 120
    assert document["warnings"] == [
        "The model was trained with 32 frames (here 120).",
        "500 frames were asked for, but there are only 120 to choose by uniform sampling.",
    ]
    assert run.stderr == "".join(f"Warning: {warning}\n" for warning in document["warnings"])


def test_json_says_all_of_it(run_cli: RunCli, wide: Path) -> None:
    """Video, frames, settings and warnings in one object; nothing else on stdout."""
    run = run_cli("frames", str(wide), "--json", "-q", "--timestamps", "1,0:00.5", "--read-timeout", "60")
    document = json.loads(run.stdout)
    assert (run.exit_code, document["schema_version"], document["video"]) == (0, 1, str(wide))
    assert run.stderr == "".join(f"Warning: {warning}\n" for warning in document["warnings"])
    assert document["frames"] == [
        {"index": 10, "timestamp_seconds": 0.5},
        {"index": 20, "timestamp_seconds": 1.0},
    ]
    info = document["info"]
    assert (info["path"], info["num_frames"], info["width"], info["height"]) == (str(wide), 40, 320, 180)
    assert document["missing"] == []
    (warning,) = document["warnings"]
    assert warning == "The model was trained with 32 frames (here 2), uniform sampling (here timestamps)."
    settings = document["settings"]
    assert (settings["model"], settings["strategy"], settings["timestamps_seconds"]) == (
        "tiny",
        "timestamps",
        [1.0, 0.5],
    )
    assert (settings["crop"], settings["lost_share"], settings["reader"]) == ("center", 0.4375, "pyav")
    assert settings["read_timeout_seconds"] == 60.0


@pytest.mark.parametrize(
    ("crop", "says", "lost"),
    [
        ("center", "the centre crop cuts off 44 % of the picture", 0.4375),
        ("pad", "padded to a square, nothing is cut off", 0.0),
        ("squash", "squashed to a square, nothing is cut off", 0.0),
    ],
)
def test_the_crop_and_what_it_costs(crop: str, says: str, lost: float, run_cli: RunCli, wide: Path) -> None:
    run = run_cli("frames", str(wide), "--crop", crop, "--json", "-v")
    assert says in run.stderr
    assert json.loads(run.stdout)["settings"]["lost_share"] == lost
    assert ("trained with the centre crop" in run.stderr) == (crop != "center")


def test_another_model_looks_otherwise_without_being_here(run_cli: RunCli, wide: Path, tmp_path: Path) -> None:
    """By name, downloaded or not, and by folder, of which config.json is enough."""
    by_name = json.loads(run_cli("frames", str(wide), "--model", "slowfast-7b-96f", "--json").stdout)
    assert (by_name["settings"]["model"], by_name["settings"]["num_frames"]) == ("slowfast-7b-96f", 96)
    assert len(by_name["frames"]) == 40
    fields = {"training_num_frames": 5, "training_sampling": "reference-demo", "training_crop": "pad"}
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    by_folder = json.loads(run_cli("frames", str(wide), "--model", str(tmp_path), "--json").stdout)
    assert len(by_folder["frames"]) == 5
    assert (by_folder["settings"]["strategy"], by_folder["settings"]["crop"]) == ("reference-demo", "pad")


def test_the_config_file_holds_for_frames_too(
    run_cli: RunCli, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would show other frames than `ask` sees; what only `ask` knows is no mistake."""
    config = tmp_path / "config.toml"
    config.write_text('frames = 5\ncrop = "pad"\nseed = 2\n', encoding="utf-8")
    monkeypatch.setenv("SFVQA_CONFIG", str(config))
    document = json.loads(run_cli("frames", str(wide), "--json").stdout)
    assert (len(document["frames"]), document["settings"]["crop"]) == (5, "pad")


def test_an_unknown_model_is_told_before_reading(run_cli: RunCli, wide: Path) -> None:
    run = run_cli("frames", str(wide), "--model", "tny")
    assert run.exit_code == 4
    assert "Did you mean tiny?" in run.stderr


def test_standard_input_is_read_and_named_as_it_was_given(wide: Path) -> None:
    """In a process of its own: there is only one standard input."""
    command = [sys.executable, "-m", "sfvqa", "frames", "-", "--frames", "2", "--json", "-v"]
    with wide.open("rb") as file:
        run = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
    document = json.loads(run.stdout)
    assert (document["video"], document["info"]["path"], len(document["frames"])) == ("-", "-", 2)
    assert "standard input: 0:02 long" in run.stderr


def test_missing_frames_are_in_the_table_with_the_reason(damaged: Path, run_cli: RunCli) -> None:
    """In their places, and nothing in a file reaches the terminal raw."""
    run = run_cli("frames", str(damaged), "-v")
    assert [line.split(maxsplit=2) for line in run.stdout.splitlines()] == [
        ["index", "time"],
        ["0", "0:00"],
        ["25", "0:01", "missing: its group is\\x1b[2J damaged"],
        ["50", "0:02"],
    ]
    assert "2 frames from 0:00 to 0:02 (uniform), 1 missing" in run.stderr
    assert "Warning: The file ends early." in run.stderr


def test_missing_frames_are_in_the_object_and_on_the_sheet(damaged: Path, run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("frames", str(damaged), "--json", "--out", str(tmp_path / "sheet.png"))
    document = json.loads(run.stdout)
    assert document["missing"] == [{"index": 25, "timestamp_seconds": 1.0, "reason": "its group is\x1b[2J damaged"}]
    assert document["warnings"][0] == "The file ends early."
    assert Image.open(tmp_path / "sheet.png").width >= 16


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("JPG", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_sheet_is_written_whole(suffix: str, kind: str, run_cli: RunCli, tmp_path: Path, wide: Path) -> None:
    """What was there is replaced, nothing else is left, and others may read it as far as the umask lets them."""
    sheet = tmp_path / f"sheet.{suffix}"
    sheet.write_bytes(b"old")
    umask = os.umask(0o022)
    try:
        run = run_cli("frames", str(wide), "--frames", "3", "--out", str(sheet))
    finally:
        os.umask(umask)
    assert run.exit_code == 0
    assert f"drawn in {sheet}" in run.stderr
    with Image.open(sheet) as picture:
        assert picture.format == kind
        picture.load()
    assert list(tmp_path.iterdir()) == [sheet]
    assert os.name == "nt" or stat.S_IMODE(sheet.stat().st_mode) == 0o644


def test_without_a_sheet_frames_are_read_small(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, wide: Path) -> None:
    """Nobody looks at them: memory is for the sheet only."""
    from sfvqa.video import reading

    read, fits = reading.read_clip_progressively, []

    def watched(*args: object, fit: FitWithin, **options: object) -> Generator[ReadProgress, None, Clip]:
        fits.append(fit)
        return read(*args, fit=fit, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "read_clip_progressively", watched)
    assert run_cli("frames", str(wide)).exit_code == 0
    assert fits == [FitWithin(64, 64)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sheet", "End it in .png"),
        ("sheet.gif", "End it in .png"),
        ("absent/sheet.png", "There is no folder"),
        ("folder.png", "is a folder"),
    ],
)
def test_a_sheet_that_cannot_be_written_is_told_before_reading(
    name: str, says: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wide: Path
) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr("sfvqa.video.reading.read_clip_progressively", _never)
    run = run_cli("frames", str(wide), "--out", str(tmp_path / name))
    assert run.exit_code == 2
    assert says in run.stderr


def test_a_folder_without_permission_is_told_before_reading(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wide: Path
) -> None:
    """Root may write anywhere, so it is the system's answer that is made up."""
    monkeypatch.setattr("os.access", lambda _path, mode, **_options: mode != os.W_OK)
    monkeypatch.setattr("sfvqa.video.reading.read_clip_progressively", _never)
    run = run_cli("frames", str(wide), "--out", str(tmp_path / "sheet.png"))
    assert run.exit_code == 1
    assert f"The folder {tmp_path} cannot be written to." in run.stderr


def test_a_disk_that_is_full_leaves_no_half_sheet(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wide: Path
) -> None:
    """What was there before is still there."""
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"old")

    def fill(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill)
    run = run_cli("frames", str(wide), "--out", str(sheet))
    assert (run.exit_code, run.stdout) == (1, "")
    assert "No space left on device" in run.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@needs_links
def test_the_video_is_never_overwritten(run_cli: RunCli, tmp_path: Path, wide: Path) -> None:
    """A still picture or an animated one can be both."""
    picture = tmp_path / "video.webp"
    picture.write_bytes(wide.read_bytes())
    (tmp_path / "link.webp").symlink_to(picture)
    for name in ("video.webp", "link.webp"):
        assert run_cli("frames", str(picture), "--out", str(tmp_path / name)).exit_code == 2
    assert picture.read_bytes() == wide.read_bytes()


def test_a_sheet_holds_so_many_frames(run_cli: RunCli, tmp_path: Path, wide: Path) -> None:
    run = run_cli("frames", str(wide), "--frames", "5000", "--out", str(tmp_path / "sheet.png"))
    assert run.exit_code == 2
    assert "a sheet holds 4,096" in run.stderr


def test_a_missing_video_and_a_range_outside_it_are_video_errors(run_cli: RunCli, wide: Path) -> None:
    assert run_cli("frames", str(wide.with_name("absent.mp4"))).exit_code == 3
    run = run_cli("frames", str(wide), "--start", "1:00", "--json")
    assert run.exit_code == 3
    assert json.loads(run.stdout)["error"]["type"] == "RangeOutsideVideoError"


def test_a_sliver_is_refused_where_the_model_would_refuse_it(run_cli: RunCli, tmp_path: Path) -> None:
    """`ask` would end with the same sentence."""
    sliver = _write_video(tmp_path / "sliver.mp4", 640, 16, num_frames=2)
    run = run_cli("frames", str(sliver))
    assert (run.exit_code, run.stdout) == (3, "")
    assert "more than 16 times" in run.stderr
    assert run_cli("frames", str(sliver), "--crop", "pad", "--out", str(tmp_path / "s.png")).exit_code == 0


def test_a_terminal_sees_the_table_last_but_for_the_summary(run_on_terminal: RunOnTerminal, wide: Path) -> None:
    """A long table must not carry the summary off the screen."""
    exit_code, sent = run_on_terminal("frames", str(wide), "--frames", "3")
    assert exit_code == 0
    assert sent.index("Reading frames") < sent.index("index  time") < sent.index("wide.mp4: 0:02 long")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_memory_is_that_of_the_small_frames(tmp_path: Path) -> None:
    """An hour of 720p: with all its processes below 400 MB, which 64 full frames of it would nearly take alone."""
    hour = _write_video(tmp_path / "hour.mp4", 1280, 720, num_frames=3600, rate=1)
    command = [sys.executable, "-m", "sfvqa", "frames", str(hour), "--frames", "64", "--out", str(tmp_path / "s.png")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        peak_bytes = 0
        while running.poll() is None:
            peak_bytes = max(peak_bytes, _memory_bytes(running.pid))
            time.sleep(0.02)
    assert running.returncode == 0
    assert 20_000_000 < peak_bytes < 400_000_000


def _memory_bytes(pid: int) -> int:
    """What a process and those it started hold, what they share counted once; 0 for one that has ended."""
    process = Path(f"/proc/{pid}")
    try:
        own = next(line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        children = (process / "task" / str(pid) / "children").read_text().split()
    except (OSError, StopIteration):
        return 0
    return int(own.split()[1]) * 1024 + sum(_memory_bytes(int(child)) for child in children)


def _never(*_args: object, **_options: object) -> None:
    raise AssertionError("the video was opened")


def _write_video(path: Path, width: int, height: int, num_frames: int = 40, rate: int = 20) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            picture = np.full((height, width, 3), number * 5 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
