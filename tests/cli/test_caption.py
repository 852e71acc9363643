"""`sfvqa caption`: a file of captions beside each video, and nothing of anybody else's lost."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest
import webvtt

from sfvqa.batch.item import Item
from sfvqa.cli.caption import CaptionOptions
from sfvqa.cli.windows import caption_of
from sfvqa.video.subtitles import SubtitleLine
from tests.batch.answerer import FakeAnswerer
from tests.cli.conftest import Outcome, RunCli, videos_opened_by
from tests.inference.conftest import write_video
from tests.video.readers.test_damaged import wipe_group
from tests.video.videos import Recipe, constant_rate
from tests.video.videos import write_video as write_numbered
from tests.windows import needs_signals

RunCaption = Callable[..., Outcome]
BROKEN = b"\0\0\0\x18ftypmp42 no more"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """one.mp4, two.mp4 and within/three.mp4."""
    (tmp_path / "videos" / "within").mkdir(parents=True)
    for number, name in enumerate(("one", "two", "within/three")):
        write_video(tmp_path / "videos" / f"{name}.mp4", num_frames=10, colour=(80 * number, 80, 160))
    return tmp_path / "videos"


@pytest.fixture
def answerer(monkeypatch: pytest.MonkeyPatch) -> FakeAnswerer:
    """A fake in place of every model."""
    fake = FakeAnswerer()
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: fake)
    return fake


@pytest.fixture
def caption(run_cli: RunCli, folder: Path, answerer: FakeAnswerer) -> RunCaption:
    """Caption the folder, or what is named, by the fake."""
    assert answerer.seen == []

    def run(*args: str, sources: tuple[str | Path, ...] = (folder,)) -> Outcome:
        return run_cli("caption", *map(str, sources), "--model", "tiny", *args)

    return run


def made(folder: Path, suffix: str) -> dict[str, str]:
    """The files of captions by their names, without the suffix."""
    return {
        str(file.relative_to(folder).with_suffix("")): file.read_text(encoding="utf-8")
        for file in folder.rglob(f"*{suffix}")
    }


def test_one_text_a_video(caption: RunCaption, folder: Path) -> None:
    done = caption("--whole", "--prompt", "What moves?")
    assert (done.exit_code, done.stdout) == (0, "")
    assert made(folder, ".txt") == {
        "one": "one.mp4: What moves? (10 frames)\n",
        "two": "two.mp4: What moves? (10 frames)\n",
        "within/three": "three.mp4: What moves? (10 frames)\n",
    }
    assert "Captions: 3 files beside the videos" in done.stderr


def test_captions_go_below_another_folder(caption: RunCaption, folder: Path, tmp_path: Path) -> None:
    assert caption("--whole", "--out", str(tmp_path / "new" / "out")).exit_code == 0
    assert made(tmp_path / "new" / "out", ".txt").keys() == {"one", "two", "within/three"}
    assert not made(folder, ".txt")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("within/a.mp4", "out/within/a.vtt"),
        ("D:/videos/a.mp4", "out/a.vtt"),
        ("/videos/a.mp4", "out/a.vtt"),
        ("D:a.mp4", "out/a.vtt"),
        ("//server/share/a.mp4", "out/a.vtt"),
        ("../a.mp4", "out/a.vtt"),
    ],
)
def test_captions_go_nowhere_else_on_windows_either(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a drive, or with a drive alone, is not absolute there, and leads away all the same."""
    monkeypatch.setattr("sfvqa.cli.caption.Path", PureWindowsPath)
    captions = CaptionOptions(out=PureWindowsPath("out"))  # type: ignore[arg-type]
    assert captions.place_of(Item(Path("a.mp4"), name, "?")).as_posix() == file


def test_what_is_there_is_not_made_again(caption: RunCaption, folder: Path, answerer: FakeAnswerer) -> None:
    (folder / "one.txt").write_text("mine", encoding="utf-8")
    done = caption("--whole")
    assert (done.exit_code, sorted(answerer.seen)) == (0, ["three.mp4", "two.mp4"])
    assert made(folder, ".txt")["one"] == "mine"
    assert "1 video captioned already" in done.stderr
    assert caption("--whole").exit_code == 0
    assert len(answerer.seen) == 2
    assert caption("--whole", "--overwrite").exit_code == 0
    assert made(folder, ".txt")["one"].startswith("one.mp4: ")


def test_a_broken_video_does_not_end_the_rest(caption: RunCaption, folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(BROKEN)
    done = caption("--whole")
    assert done.exit_code == 6
    assert made(folder, ".txt").keys() == {"one", "two", "within/three"}
    assert "Failed: bad.mp4: " in done.stderr
    (folder / "bad.mp4").write_bytes((folder / "one.mp4").read_bytes())
    assert caption("--whole").exit_code == 0
    assert "bad" in made(folder, ".txt")


def test_a_file_that_came_meanwhile_stays(caption: RunCaption, folder: Path, answerer: FakeAnswerer) -> None:
    def come(_name: str, _num_wanted: int) -> None:
        (folder / "one.txt").write_text("yours", encoding="utf-8")

    answerer.on_chunk = come
    done = caption("--whole", sources=(folder / "one.mp4",))
    assert (done.exit_code, made(folder, ".txt")) == (1, {"one": "yours"})


def test_no_two_videos_share_a_file(caption: RunCaption, folder: Path, tmp_path: Path) -> None:
    same = folder / "one.mkv"
    same.write_bytes((folder / "one.mp4").read_bytes())
    done = caption("--whole")
    assert (done.exit_code, made(folder, ".txt")) == (2, {})
    assert "would both be" in done.stderr
    done = caption("--whole", "--out", str(tmp_path / "out"), sources=(folder, folder / "within" / "three.mp4"))
    assert done.exit_code == 2


def test_a_video_named_twice_is_captioned_once(caption: RunCaption, folder: Path, answerer: FakeAnswerer) -> None:
    assert caption("--whole", sources=(folder, folder / "one.mp4")).exit_code == 0
    assert sorted(answerer.seen) == ["one.mp4", "three.mp4", "two.mp4"]


@pytest.mark.parametrize("flags", [("--overwrite",), ()])
def test_no_captions_replace_a_video(caption: RunCaption, folder: Path, flags: tuple[str, ...]) -> None:
    """Videos are known by how they begin, whatever they are called; such a one is not captioned already."""
    content = (folder / "one.mp4").read_bytes()
    (folder / "clip.txt").write_bytes(content)
    done = caption("--whole", *flags)
    assert (done.exit_code, (folder / "clip.txt").read_bytes()) == (2, content)


@pytest.mark.parametrize("flags", [[], ["--out", "captions/here"]], ids=["beside", "out"])
def test_a_folder_that_cannot_be_written_to_is_known_before_the_work(
    caption: RunCaption, folder: Path, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    """Also one in which folders are to be made, which was known only after the first video."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    done = caption("--whole", *flags, "--no-cache", sources=("one.mp4",))
    assert (done.exit_code, answerer.seen) == (1, [])
    assert "cannot be written to" in done.stderr


def test_no_folder_is_made_in_a_file(caption: RunCaption, tmp_path: Path, answerer: FakeAnswerer) -> None:
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    done = caption("--whole", "--out", str(tmp_path / "taken" / "out"))
    assert (done.exit_code, answerer.seen) == (2, [])


def test_a_dry_run_writes_nothing(caption: RunCaption, folder: Path, tmp_path: Path) -> None:
    done = caption("--whole", "--dry-run", "--json", "--out", str(tmp_path / "out"))
    assert (done.exit_code, json.loads(done.stdout)["left"]) == (0, 3)
    assert not made(folder, ".txt")
    assert not (tmp_path / "out").exists()


def test_a_whole_video_may_be_one_subtitle(caption: RunCaption, folder: Path) -> None:
    assert caption("--whole", "--format", "srt", sources=(folder / "one.mp4",)).exit_code == 0
    assert made(folder, ".srt")["one"].startswith("1\n00:00:00,000 --> ")


def test_a_caption_a_window(caption: RunCaption, folder: Path) -> None:
    """Ten frames at ten a second; a rest of 0.2 s is longer than half a window."""
    done = caption("--window", "0.3s", sources=(folder / "one.mp4",))
    assert done.exit_code == 0
    assert "1 item asked in windows: 3." in done.stderr
    cues = webvtt.from_string(made(folder, ".vtt")["one"]).captions
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [
        ("00:00:00.000", "00:00:00.300", "one.mp4: Describe the video. (4 frames)"),
        ("00:00:00.300", "00:00:00.600", "one.mp4: Describe the video. (4 frames)"),
        ("00:00:00.600", "00:00:01.000", "one.mp4: Describe the video. (4 frames)"),
    ]
    again = caption("--window", "0.3s", sources=(folder / "one.mp4",))
    assert "1 video captioned already" in again.stderr
    assert "asked in windows" not in again.stderr


def test_windows_keep_to_the_range_and_overlap(caption: RunCaption, folder: Path) -> None:
    flags = ("--window", "0.4", "--overlap", "0.2", "--start", "0.2", "--end", "0.8", "--format", "jsonl")
    assert caption(*flags, sources=(folder / "one.mp4",)).exit_code == 0
    lines = [json.loads(row) for row in made(folder, ".jsonl")["one"].splitlines()]
    assert [(line["start_seconds"], line["end_seconds"]) for line in lines] == [(0.2, 0.6), (0.4, 0.8)]


def test_a_window_without_an_answer_is_left_out_and_told(
    caption: RunCaption, folder: Path, answerer: FakeAnswerer
) -> None:
    num_asked = 0

    def fail(_questions: list[str], _stop: object) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 2:
            raise ValueError("a window that cannot be")

    answerer.on_answer = fail
    done = caption("--window", "0.3", "--batch-size", "1", sources=(folder / "one.mp4",))
    assert done.exit_code == 6
    assert made(folder, ".vtt")["one"].count("-->") == 2
    assert "one.vtt lacks 1 window" in done.stderr


def test_a_video_that_is_not_done_has_no_file(caption: RunCaption, folder: Path, answerer: FakeAnswerer) -> None:
    """What ends a run between two windows leaves nothing that looks like captions."""
    num_asked = 0

    def interrupt(_questions: list[str], _stop: object) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 5:
            raise KeyboardInterrupt

    answerer.on_answer = interrupt
    done = caption("--window", "0.3", "--batch-size", "1", "--readers", "1")
    assert (done.exit_code, list(made(folder, ".vtt"))) == (130, ["one"])
    assert caption("--window", "0.3").exit_code == 0
    assert made(folder, ".vtt").keys() == {"one", "two", "within/three"}


def test_captions_of_a_variable_rate_are_of_the_frames_shown_in_their_time(
    caption: RunCaption, tmp_path: Path, answerer: FakeAnswerer
) -> None:
    """At what second a frame is shown says only the file; one that is shown for long belongs to every window."""
    recipe = Recipe([0, 10, 20, 400, 410, 700, 1990, 2000, 2010, 2020, 2400, 2990], group=4)
    write_numbered(tmp_path / "variable.mkv", recipe)
    flags = ("--window", "0.5", "--format", "jsonl", "--no-cache")
    assert caption(*flags, sources=(tmp_path / "variable.mkv",)).exit_code == 0
    lines = [json.loads(row) for row in made(tmp_path, ".jsonl")["variable"].splitlines()]
    assert [line["start_seconds"] for line in lines] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert [line["end_seconds"] for line in lines[:-1]] == [0.5, 1, 1.5, 2, 2.5]
    assert lines[-1]["end_seconds"] >= 2.99
    for line in lines:
        ends = [*recipe.seconds[1:], math.inf]
        num_shown = sum(
            start <= line["end_seconds"] and end > line["start_seconds"]
            for start, end in zip(recipe.seconds, ends, strict=True)
        )
        assert f"({num_shown} frame" in line["text"]
    assert len(answerer.seen) == 6


def test_a_damaged_part_costs_only_its_own_captions(caption: RunCaption, tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", Recipe(constant_rate(150), group=30))
    clip = wipe_group(whole, tmp_path / "damaged.mp4", 2, first=1, count=29)
    done = caption("--start", "2", "--end", "4", "--window", "0.4", "--no-cache", sources=(clip,))
    cues = webvtt.from_string(made(tmp_path, ".vtt")["damaged"]).captions
    assert [cue.start for cue in cues] == [f"00:00:0{second}" for second in ("2.000", "2.400", "3.200", "3.600")]
    assert done.exit_code == 6
    assert "damaged.vtt lacks 1 window" in done.stderr


def test_each_file_is_opened_once_to_be_read(
    caption: RunCaption, answerer: FakeAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window at a time, the file was opened and looked through for each."""
    opened = videos_opened_by("sfvqa.batch.reading_pool", monkeypatch)
    assert caption("--window", "0.25", "--no-cache").exit_code == 0
    assert (sorted(opened), len(answerer.seen)) == (["one.mp4", "three.mp4", "two.mp4"], 12)


def test_a_caption_a_scene(caption: RunCaption, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.video.windows.find_cuts_in", lambda *_: (4,))
    assert caption("--window", "scenes", "--format", "jsonl", sources=(folder / "one.mp4",)).exit_code == 0
    lines = [json.loads(row) for row in made(folder, ".jsonl")["one"].splitlines()]
    assert [(line["start_seconds"], line["end_seconds"]) for line in lines] == [(0.0, 0.399), (0.4, 1.0)]


_KILLED = """
import os, signal, sys
from sfvqa.__main__ import main
from sfvqa.cli import model
from sfvqa.video.captions import CaptionWriter
from tests.batch.answerer import FakeAnswerer

left = {sys.argv[1]: int(sys.argv[2])}

def step(what):
    left[what] = left.get(what, 0) - 1
    if not left[what]:
        os.kill(os.getpid(), signal.SIGKILL)

write = CaptionWriter.write

def stepping(writer, line):
    write(writer, line)
    step("line")

CaptionWriter.write = stepping
model.load = lambda *_: FakeAnswerer(on_answer=lambda *_: step("answer"))
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.slow
@needs_signals
def test_killed_between_windows_or_within_a_file_no_half_file_stands_there(folder: Path) -> None:
    """Each video is captioned once: what is whole stays as it is, whatever it was that killed the process."""
    for number in range(4, 8):
        write_video(folder / f"{number}.mp4", num_frames=10, colour=(30 * number, 80, 160))
    command = ["caption", str(folder), "--model", "tiny", "--window", "0.25", "--readers", "1", "--no-cache"]
    command += ["--batch-size", "1"]
    whole: dict[Path, tuple[int, int]] = {}
    for what, number, exit_code in (("answer", 7, -9), ("line", 6, -9), ("line", 0, 0)):
        run = subprocess.run(
            [sys.executable, "-c", _KILLED, what, str(number), *command], capture_output=True, text=True, check=False
        )
        assert run.returncode == exit_code, run.stderr
        there = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*.vtt")}
        assert all(len(webvtt.read(str(file)).captions) == 4 for file in there)
        assert whole.items() <= there.items()
        assert len(there) > len(whole)
        whole = there
    assert len(whole) == 7


@pytest.mark.parametrize(
    "flags", [("--window", "5", "--overlap", "5"), ("--window", "0"), ("--whole", "--window", "5")]
)
def test_windows_that_are_none(caption: RunCaption, folder: Path, flags: tuple[str, ...]) -> None:
    assert (caption(*flags).exit_code, made(folder, ".vtt")) == (2, {})


def test_a_caption_has_the_times_of_its_window_or_else_of_the_frames() -> None:
    record = {"frames": {"timestamps_seconds": [31.0, 59.5]}, "answer": " A boat.\n", "window": None}
    assert caption_of(record) == SubtitleLine(31.0, 59.5, "A boat.")
    windowed = {**record, "window": {"start_seconds": 30.0, "end_seconds": 60.0}}
    assert caption_of(windowed) == SubtitleLine(30.0, 60.0, "A boat.")
