"""Runs on streams: the losses are those of the same rows in a file, and of a run that was not stopped."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import SequentialSampler

from sfvqa.errors import UnreadableVideoError, UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.training.annotations import Example, Source
from sfvqa.training.dry_run import dry_run
from sfvqa.training.finetune import _stream, fine_tune, main
from sfvqa.training.frozen_tower import _HEADER_BYTES
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import VideoDataset
from sfvqa.training.shards import Streamed
from sfvqa.training.trainer import VideoTrainer
from sfvqa.training.validation import refuse_held_out
from tests.training.flash_videos import NUM_FRAMES, write_flash_videos
from tests.training.shard_files import dataset_of, members_of, write_members, write_tar
from tests.training.test_finetuning import load, losses, make_converted

SHORT = FineTuning(
    num_frames=NUM_FRAMES, batch_size=2, num_steps=6, log_every=1, save_every=3, learning_rate=1e-2, device="cpu"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of eight rows, one of two questions, one without a video; and the same as shards."""
    folder = tmp_path_factory.mktemp("rows") / "v"
    annotations, entries = write_flash_videos(folder, 7, seed=0)
    entries[2]["conversations"] += [{"from": "human", "value": "And when?"}, {"from": "gpt", "value": "Early."}]
    entries.insert(4, {"id": "text", "conversations": entries[0]["conversations"]} | {"video": None})
    entries[4]["conversations"] = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]
    annotations.write_text(json.dumps(entries))
    for number, part in enumerate((entries[:5], entries[5:])):
        write_tar(folder / f"train-{number}.tar", part, folder)
        dataset_of(part, folder).to_parquet(folder / f"train-{number}.parquet")
    for video in folder.glob("*.mp4"):
        video.rename(folder / f"not-{video.name}")  # a stream needs none of them
    return folder


@pytest.fixture
def file(rows: Path, tmp_path: Path) -> Path:
    """The file, beside its videos."""
    folder = tmp_path / "file"
    folder.mkdir()
    for video in rows.glob("not-*.mp4"):
        shutil.copy(video, folder / video.name.removeprefix("not-"))
    shutil.copy(rows / "annotations.json", folder)
    return folder / "annotations.json"


def train(model: Path, run: Path, *names: str | Path, resume: bool = False, **options: Any) -> list[float]:
    sources = [Source.parse(str(name)) for name in names]
    folder = Path(names[0]).parent
    fine_tune(model, sources, folder, run, replace(SHORT, **options), resume=resume)
    assert not (run / "streamed-videos").exists()
    return losses(run)


def test_a_stream_has_the_losses_of_a_file(
    model: Path, rows: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the shards, for one epoch and a half, whatever their form is and whoever reads the videos."""
    tar, parquet = rows / "train-{0..1}.tar", rows / "train-*.parquet"
    streamed = train(model, tmp_path / "tar", tar, shuffle_rows=1)
    assert train(model, tmp_path / "parquet", parquet, shuffle_rows=1) == streamed
    assert train(model, tmp_path / "workers", tar, shuffle_rows=1, num_workers=2) == streamed
    monkeypatch.setattr(VideoTrainer, "order", SequentialSampler(range(8)))
    assert train(model, tmp_path / "file-run", file) == streamed
    assert len(streamed) == 6
    ours, same = (load(tmp_path / name / "checkpoint").state_dict() for name in ("tar", "file-run"))
    assert all(torch.equal(ours[name], same[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"freeze_vision": True}], ids=["looking", "frozen eyes"])
def test_who_reads_the_videos_need_not_be_forked(
    model: Path, rows: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """No process began on macOS and Windows, nor on Linux from Python 3.14 on: a function could not be sent to it."""
    streamed = train(model, tmp_path / "alone", rows / "train-0.tar", num_steps=2, **options)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = train(model, tmp_path / "spawned", rows / "train-0.tar", num_steps=2, num_workers=1, **options)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert spawned == streamed


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"accumulation": 2, "num_workers": 2, "shuffle_rows": 3}],
)
def test_a_stopped_run_goes_on_to_the_very_same_losses_and_weights(
    model: Path, rows: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """From the middle of an epoch other than the first: two sources of which one comes twice have eleven rows."""
    names = (rows / "train-0.tar", rows / "train-1.parquet:2")
    options |= {"num_steps": 9, "save_every": 7}
    whole = train(model, tmp_path / "whole", *names, **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for name in ("checkpoint", "checkpoint-9"):
        shutil.rmtree(tmp_path / "stopped" / name)
    assert not list((tmp_path / "whole").glob("checkpoint-*/*.partial"))
    assert train(model, tmp_path / "stopped", *names, resume=True, **options | {"num_workers": 1}) == whole
    assert len(set(whole)) == 9
    ours, same = (load(tmp_path / name / "checkpoint").state_dict() for name in ("stopped", "whole"))
    assert all(torch.equal(ours[name], same[name]) for name in ours)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(model: Path, rows: Path, tmp_path: Path) -> None:
    """With videos on disk that are not learned from yet, which the run that goes on deletes."""
    arguments = [str(rows / "train-*.tar"), "--videos", str(rows), "--model", str(model), "--num-frames", "4"]
    arguments += ["--num-steps", "60", "--save-every", "4", "--log-every", "1", "--batch-size", "2", "--device", "cpu"]
    arguments += ["--num-workers", "2", "--shuffle-rows", "4", "--num-kept", "20"]
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    run = [*arguments, "--output", str(tmp_path / "killed")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # with another number, sums are rounded otherwise
    process = subprocess.Popen([sys.executable, "-m", "sfvqa.training.finetune", *run], env=os.environ | threads)
    while not (tmp_path / "killed" / "checkpoint-8").exists():  # then the one before is whole
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "checkpoint").exists()
    assert list((tmp_path / "killed" / "streamed-videos" / "0").iterdir())
    assert main([*run, "--resume"]) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert not (tmp_path / "killed" / "streamed-videos").exists()


def test_only_the_same_stream_goes_on(model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"num_steps": 1, "save_every": 1}
    train(model, tmp_path / "run", rows / "train-0.tar", **options)
    with pytest.raises(UsageError, match=r"has annotations .*train-0\.tar"):
        train(model, tmp_path / "run", rows / "train-1.tar", resume=True, **options)
    with pytest.raises(UsageError, match="has shuffle_rows 100"):
        train(model, tmp_path / "run", rows / "train-0.tar", resume=True, shuffle_rows=1, **options)
    (tmp_path / "run" / "checkpoint-1" / "stream_0.json").unlink()
    with pytest.raises(UsageError, match=r"stream_0\.json cannot be read"):
        train(model, tmp_path / "run", rows / "train-0.tar", resume=True, **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="has num_processes '1'"):
        train(model, tmp_path / "run", rows / "train-0.tar", resume=True, **options)


@pytest.fixture
def broken(rows: Path, tmp_path: Path) -> Path:
    """A shard whose third sample has a video that is none."""
    entries = [one for one in json.loads((rows / "annotations.json").read_text()) if one["video"]][:4]
    videos = tmp_path / "broken"
    videos.mkdir()
    for one in entries:
        shutil.copy(rows / f"not-{one['video']}", videos / one["video"])
    (videos / "2.mp4").write_bytes(b"\x00\x01\x02 no video" * 100)
    return write_tar(videos / "broken.tar", entries, videos)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_video_that_is_none_is_named_by_shard_and_key(
    model: Path, broken: Path, tmp_path: Path, num_workers: int
) -> None:
    with pytest.raises(UnreadableVideoError, match=rf"Sample 3 \(2\) of {broken}: “.*2\.mp4”"):
        train(model, tmp_path / "run", broken, num_workers=num_workers)
    assert not (tmp_path / "run" / "streamed-videos").exists()


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_videos_that_are_none_are_skipped_and_counted(
    model: Path, broken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    """Two epochs of three rows that can be read, a row a step, of which the second run sees the last two only."""
    options: dict[str, Any] = {
        "skip_unreadable": True,
        "batch_size": 1,
        "num_steps": 6,
        "save_every": 4,
        "num_workers": num_workers,
    }
    whole = train(model, tmp_path / "run", broken, **options)
    assert "Sample 3 (2) of" in caplog.text
    num_skipped = re.findall(r"(\d) rows? could not be read", caplog.text)
    caplog.clear()
    for name in ("checkpoint", "checkpoint-6"):
        shutil.rmtree(tmp_path / "run" / name)
    assert train(model, tmp_path / "run", broken, resume=True, **options) == whole
    assert re.findall(r"(\d) rows? could not be read", caplog.text) == num_skipped
    assert num_skipped in (["1"], ["2"])  # of eight rows, the last of which may be one that no step reaches
    assert len(whole) == 6


def test_a_stream_of_nothing_that_can_be_read_ends(model: Path, tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]}
    write_members(tmp_path / "a.tar", [("a.mp4", b"\x00 none"), ("a.json", json.dumps(row).encode())])
    with pytest.raises(UsageError, match="In a whole epoch of the stream no video can be read"):
        train(model, tmp_path / "run", tmp_path / "a.tar", skip_unreadable=True)


def test_a_row_that_is_too_long_is_named(model: Path, tmp_path: Path) -> None:
    said = [{"from": "human", "value": "What? " * 2000}, {"from": "gpt", "value": "This."}]
    write_members(tmp_path / "a.tar", [("deep/a.json", json.dumps({"conversations": said}).encode())])
    with pytest.raises(UsageError, match=r"Sample 1 \(deep/a\) of .*a\.tar takes \d+ tokens"):
        train(model, tmp_path / "run", tmp_path / "a.tar")


def test_validation_changes_no_loss_of_a_stream_and_must_not_be_in_it(model: Path, rows: Path, tmp_path: Path) -> None:
    held_out, _ = write_flash_videos(tmp_path / "held-out", 2, seed=5)
    entries = json.loads(held_out.read_text())
    plain = train(model, tmp_path / "plain", rows / "train-0.tar")
    options: dict[str, Any] = {"validation": str(held_out), "num_workers": 1}
    sources = [Source(rows / "train-0.tar")]
    fine_tune(model, sources, held_out.parent, tmp_path / "run", replace(SHORT, **options))
    assert losses(tmp_path / "run") == plain
    assert "trained" in json.loads((tmp_path / "run" / "validation.json").read_text())
    inside = write_tar(tmp_path / "inside.tar", entries[1:], held_out.parent)
    with pytest.raises(UsageError, match=r"Sample 1 \(1\) of .*inside\.tar is about what is validated on"):
        fine_tune(model, [*sources, Source(inside)], held_out.parent, tmp_path / "other", replace(SHORT, **options))


def test_a_row_of_text_is_refused_where_processes_share_weights(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process would leave the others waiting; of a stream that is known when it comes."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    sources, cache = [Streamed.of(Source(rows / "train-0.tar"))], VideoCache(tmp_path, 0)
    with pytest.raises(UsageError, match="Some rows have no video"):
        next(_stream(sources, [], rows, tmp_path, SHORT, cache, None).draw(lambda _: 1))
    next(_stream(sources, [], rows, tmp_path, replace(SHORT, stage=Stage.BRIDGE), cache, None).draw(lambda _: 1))


def test_a_video_that_is_gone_is_left_to_those_who_read_it(tmp_path: Path) -> None:
    """With --validation the row ended the run, with --skip-unreadable too."""
    held_out, gone = (Example(name, tmp_path / f"{name}.mp4", (("Q", "A"),)) for name in ("held-out", "gone"))
    (tmp_path / "held-out.mp4").write_bytes(b"\x00film")
    refuse = refuse_held_out([held_out], VideoCache(tmp_path, 0))
    refuse(gone)
    with pytest.raises(UsageError, match="is about what is validated on"):
        refuse(held_out)


def test_a_frozen_tower_looks_once_at_a_video_that_comes_again(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the video holds: its file is another each time. A cache that it filled keeps what it has.

    A cache that another run filled kept nothing of this one, without a word.
    """
    looked, read = list[Path](), VideoDataset._read

    def counted(self: VideoDataset, video: Path) -> Any:
        looked.append(video)
        return read(self, video)

    monkeypatch.setattr(VideoDataset, "_read", counted)

    def run(name: str, gigabytes: float) -> tuple[list[float], int]:
        """Three epochs and more, of seven videos."""
        looked.clear()
        chosen: dict[str, Any] = {"stage": Stage.BRIDGE, "num_steps": 12}
        chosen |= {"cache": tmp_path / name / "cache"} if gigabytes else {}
        found = train(model, tmp_path / name / "run", rows / "train-*.tar", cache_gigabytes=gigabytes, **chosen)
        return found, len(looked)

    plain, num_anew = run("anew", 0.0)
    assert run("all", 1.0) == (plain, 7)
    kept = sorted((tmp_path / "all" / "cache").glob("*.safetensors"))
    assert len(kept) == 7
    entry_bytes = kept[0].stat().st_size
    (tmp_path / "some" / "cache").mkdir(parents=True)
    for number in range(4):
        shutil.copy(kept[0], tmp_path / "some" / "cache" / f"{number:016x}-{'0' * 48}.v1.safetensors")
    some, num_looked = run("some", (4 * entry_bytes + _HEADER_BYTES) / 1e9)
    assert some == plain
    assert len(list((tmp_path / "some" / "cache").glob("*.safetensors"))) == 4
    assert not list((tmp_path / "some" / "cache").glob("0000*"))
    assert 7 < num_looked < num_anew


def test_check_reads_a_stream_once(rows: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [*members_of(json.loads((rows / "annotations.json").read_text())[4:5], rows), ("x.mp4", b"film")]
    write_members(broken.with_name("more.tar"), members)
    (broken.with_name("cut.tar")).write_bytes((rows / "train-0.tar").read_bytes()[:-20000])
    assert main([str(broken.parent / "*.tar"), "--videos", str(rows), "--model", "tiny", "--check"]) == 2
    said = capsys.readouterr()
    lines = sorted(line.replace(str(broken.parent), "…") for line in said.out.splitlines())
    assert [line.partition(": ")[0] for line in lines] == [
        "Sample 2 (x) of …/more.tar",
        "Sample 3 (2) of …/broken.tar",
        "…/cut.tar",
    ]
    assert "1 source checked: 3 errors, 0 warnings." in said.err
    assert main([str(rows / "train-*.parquet"), "--videos", str(rows), "--check", "--json"]) == 0


def test_check_knows_what_is_streamed_and_validated_on(
    rows: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files it said so; the run ends when the first of them comes."""
    arguments = [str(rows / "train-1.tar"), "--videos", str(file.parent), "--check"]
    assert main([*arguments, "--validation", str(file)]) == 2
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all("is learned from too: Sample" in line for line in said)
    assert main([*arguments, "--validation", str(rows / "train-0.tar")]) == 2  # it is read as a file, as in the run
    assert "is not UTF-8" in capsys.readouterr().out


def test_the_memory_of_a_run_is_that_of_the_same_rows_in_a_file(rows: Path, file: Path) -> None:
    options = replace(SHORT, num_frames=4)
    streamed = dry_run("tiny", [Source(rows / "train-*.tar")], rows, options)
    assert streamed.memory == dry_run("tiny", file, file.parent, options).memory


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-{0..1}.tar", "train-0.tar"], ids=["a shard each", "a shard for both"])
def test_two_processes_share_a_stream(model: Path, rows: Path, tmp_path: Path, name: str) -> None:
    """And go on after they were stopped."""
    arguments = [str(rows / name), "--videos", str(rows), "--model", str(model), "--num-frames", str(NUM_FRAMES)]
    arguments += ["--num-steps", "8", "--save-every", "6", "--log-every", "1", "--device", "cpu", "--shuffle-rows", "3"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sfvqa.training.finetune"]

    def run(folder: str, *more: str) -> list[float]:
        command = [*launch, *arguments, "--batch-size", "1", "--output", str(tmp_path / folder), *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return losses(tmp_path / folder)

    whole = run("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for gone in ("checkpoint", "checkpoint-8"):
        shutil.rmtree(tmp_path / "stopped" / gone)
    resumed = run("stopped", "--resume")
    assert len(resumed) == len(whole) == 8
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(whole), rtol=1e-4, atol=1e-4)
    assert not (tmp_path / "stopped" / "streamed-videos").exists()
