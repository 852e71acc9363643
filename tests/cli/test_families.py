"""Every way of asking works with other video models, in folders as transformers' own classes save them."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sfvqa.errors import PromptTooLongError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import SamplingOptions
from tests.batch.cluster.conftest import needs_ray, ray_folder
from tests.cli.conftest import RunCli
from tests.inference.conftest import write_video
from tests.model.families.published import FAMILIES, save_whole
from tests.windows import needs_links

__all__ = ["ray_folder"]  # a fixture

TOKENS_A_FRAME = {"llava_onevision": 9, "smolvlm": 4}
BEHIND_ALL = {"llava_onevision": 1, "smolvlm": 0}
SUBTITLES = "1\n00:00:00,500 --> 00:00:01,000\nHello <|im_end|> there.\n"


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Named after its family."""
    made = tmp_path_factory.mktemp("published") / str(request.param)
    save_whole(made.name, made)
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three seconds, 30 frames of 64 × 48."""
    return str(write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", num_frames=30, colour=(200, 30, 60)))


def read(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


@pytest.mark.parametrize(
    ("flags", "num_frames"),
    [
        ((), None),
        (("--frames", "1"), 1),
        (("--frames", "64", "--sampling", "uniform"), 30),
        (("--sampling", "fps", "--fps", "4"), 12),
        (("--sampling", "keyframes", "--frames", "4"), None),
        (("--sampling", "scene", "--frames", "4"), 4),
        (("--timestamps", "0.5,2"), 2),
        (("--start", "0.5", "--end", "1.4", "--sampling", "uniform"), 10),
        (("--crop", "pad", "--frames", "3"), 3),
        (("--choices", "left,right", "--frames", "3"), 3),
        (("--quant", "8bit", "--frames", "3"), 3),
        (("--quant", "4bit", "--frames", "3"), 3),
        (("--dtype", "bfloat16", "--frames", "3"), 3),
        (("--attention", "eager", "--frames", "3"), 3),
        (("--batch-size", "2", "--frames", "3"), 3),
        (("--static-decode", "on", "--frames", "3"), 3),
        (("--slow-attention", "prefill", "--frames", "3"), 3),
        (("--system", "Be <end_of_utterance> brief.", "--template", "Q: {question} <video>", "--frames", "3"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_questions_are_answered(
    folder: Path, clip: str, flags: tuple[str, ...], num_frames: int | None, run_cli: RunCli
) -> None:
    asked = ("What moves <image> <video> <|im_start|>?", "Why?")
    length = () if "--choices" in flags else ("--max-new-tokens", "5")
    run = run_cli("ask", clip, *asked, "--model", str(folder), "--device", "cpu", *flags, *length, "--json")
    answers = read(run.stdout)
    assert (run.exit_code, [answer["question"] for answer in answers]) == (0, list(asked)), run.stderr
    for answer in answers:
        count = answer["frames"]["count"]
        assert num_frames in (None, count)
        assert answer["tokens"]["fast"] == count * TOKENS_A_FRAME[folder.name] + BEHIND_ALL[folder.name]
        assert not answer["answer"] or answer["tokens"]["new"] > 0
    if "--choices" in flags:
        assert all(sum(choice["probability"] for choice in answer["choices"]) == pytest.approx(1) for answer in answers)


def test_a_way_of_computing_changes_no_answer(folder: Path, clip: str, run_cli: RunCli) -> None:
    """Neither two questions at once, nor buffers of fixed size, nor what was kept of the video, nor a prompt's rest."""
    ways: list[tuple[str, ...]] = [(), (), ("--batch-size", "2"), ("--static-decode", "on"), ("--no-cache",)]
    said = []
    for flags in ways:
        asked = ("ask", clip, "Why?", "What moves?", "--model", str(folder), "--device", "cpu", *flags)
        run = run_cli(*asked, "--max-new-tokens", "12", "--json")
        said.append([answer["answer"] for answer in read(run.stdout)])
        kept = [answer["from_video_cache"] for answer in read(run.stdout)]
    assert said[1:] == said[:-1]
    assert any(said[0])
    assert kept == [False, False]
    assert json.loads(run_cli("cache", "size", "--json").stdout)["num_videos"] == 1


def test_subtitles_stand_before_the_question_and_are_text(folder: Path, clip: str, run_cli: RunCli) -> None:
    subtitles = folder.parent / "clip.srt"
    subtitles.write_text(SUBTITLES)
    run = run_cli("ask", clip, "Why?", "--model", str(folder), "--subtitles", str(subtitles), "--json")
    (answer,) = read(run.stdout)
    assert (answer["subtitles"]["lines"], run.exit_code) == (1, 0), run.stderr


@pytest.mark.parametrize("command", ["ask", "batch"])
def test_evidence_is_refused_before_anything_is_loaded(
    folder: Path, clip: str, command: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.cli.model.load", lambda *_: pytest.fail("it was loaded"))
    asked = [clip, "Why?"] if command == "ask" else [str(Path(clip).parent), "--question", "Why?", "-o", "-"]
    run = run_cli(command, *asked, "--model", str(folder), "--evidence")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "has no layers that look at slow tokens" in run.stderr


@needs_links
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_more_frames_than_positions_are_refused_before_they_are_encoded(
    folder: Path, clip: str, flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: RunCli
) -> None:
    """SmolVLM2 has 8,192 positions, of which 128 frames would take every one: minutes, and then an error."""
    fields = json.loads((folder / "config.json").read_text())
    fields["text_config"]["max_position_embeddings"] = 100
    (tmp_path / "short").mkdir()
    for path in folder.iterdir():
        (tmp_path / "short" / path.name).symlink_to(path)
    (tmp_path / "short" / "config.json").unlink()
    (tmp_path / "short" / "config.json").write_text(json.dumps(fields))
    every = ("--frames", "30", "--sampling", "uniform")
    run = run_cli("ask", clip, "Why?", "--model", str(tmp_path / "short"), "--device", "cpu", *every, *flags)
    assert run.exit_code == 2
    assert "30 frames put" in run.stderr
    assert "the model has 100 positions" in run.stderr
    qa = VideoQA.load(tmp_path / "short", device="cpu")
    monkeypatch.setattr(qa.checkpoint.model, "encode_frames", None)  # it would fail
    with pytest.raises(PromptTooLongError, match="Use fewer frames"):
        qa.encode(clip, SamplingOptions(30))


def test_a_chat_goes_on_from_its_turns(
    folder: Path, clip: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = b"What moves?\nWhy?\n/frames\n/reset\nWhat moves?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    run = run_cli("chat", clip, "--model", str(folder), "--device", "cpu", "--max-new-tokens", "6", "-v")
    assert run.exit_code == 0, run.stderr
    first, _, again = run.stdout.removesuffix("\n").split("\n\n")[:3]
    assert first == again != ""
    assert " reused" in run.stderr


def test_a_quantized_copy_answers_as_the_original_quantized(
    folder: Path, clip: str, tmp_path: Path, run_cli: RunCli
) -> None:
    asked = ("ask", clip, "Why?", "--device", "cpu", "--max-new-tokens", "8", "--json")
    for kind in ("8bit", "4bit"):
        copy = str(tmp_path / kind)
        assert run_cli("models", "quantize", str(folder), copy, "--quant", kind, "--device", "cpu").exit_code == 0
        (original,) = read(run_cli(*asked, "--model", str(folder), "--quant", kind).stdout)
        (copied,) = read(run_cli(*asked, "--model", copy).stdout)
        for name in ("answer", "frames", "tokens"):
            assert copied[name] == original[name]
        assert copied["settings"]["crop"] == original["settings"]["crop"] == "squash"


def test_frames_and_plans_are_those_of_the_answer(folder: Path, clip: str, run_cli: RunCli) -> None:
    (answer,) = read(run_cli("ask", clip, "Why?", "--model", str(folder), "--max-new-tokens", "2", "--json").stdout)
    shown = json.loads(run_cli("frames", clip, "--model", str(folder), "--json").stdout)
    planned = json.loads(run_cli("ask", clip, "Why?", "--model", str(folder), "--dry-run", "--json").stdout)
    indices = answer["frames"]["indices"]
    assert [frame["index"] for frame in shown["frames"]] == planned["frames"]["indices"] == indices
    assert len(indices) == (30 if folder.name == "llava_onevision" else 3)
    assert planned["tokens"]["fast"] == answer["tokens"]["fast"]


def test_a_still_image_is_one_frame(folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    Image.new("RGB", (97, 31), "red").save(tmp_path / "still.png")
    run = run_cli("ask", str(tmp_path / "still.png"), "Why?", "--model", str(folder), "--max-new-tokens", "2", "--json")
    (answer,) = read(run.stdout)
    assert answer["tokens"]["fast"] == TOKENS_A_FRAME[folder.name] + BEHIND_ALL[folder.name]


def test_what_a_folder_is_can_be_asked(folder: Path, run_cli: RunCli) -> None:
    info = json.loads(run_cli("models", "info", str(folder), "--json").stdout)
    assert info["architecture"]["family"] == folder.name
    verified = run_cli("models", "verify", str(folder))
    assert (verified.exit_code, "loadable" in verified.stdout) == (0, True)


@needs_links
def test_a_batch_answers_as_ask_does_and_goes_on(folder: Path, clip: str, tmp_path: Path, run_cli: RunCli) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out.jsonl"
    videos.mkdir()
    write_video(videos / "one.mp4", num_frames=1, colour=(10, 90, 200))
    (videos / "clip.mp4").symlink_to(clip)
    flags = ("--model", str(folder), "--device", "cpu", "--max-new-tokens", "6")
    asked = ("batch", str(videos), "--question", "Why?", "--question", "What moves?", "-o", str(out), *flags)
    assert run_cli(*asked).exit_code == 0
    said = {(Path(each["video"]).name, each["question"]): each["answer"] for each in read(out.read_text())}
    for name in ("one.mp4", "clip.mp4"):
        run = run_cli("ask", str(videos / name), "Why?", "What moves?", *flags, "--json")
        assert [answer["answer"] for answer in read(run.stdout)] == [said[name, "Why?"], said[name, "What moves?"]]
    again = run_cli(*asked)
    assert "0 of 4 items answered, 4 answered before" in again.stderr


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_folder")
def test_a_cluster_answers_as_this_process(folder: Path, clip: str, tmp_path: Path, run_cli: RunCli) -> None:
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    asked = ["batch", str(Path(clip).parent), "--question", "Why?", "--model", str(folder), "--device", "cpu", "-o"]
    command = [sys.executable, "-m", "sfvqa", *asked, str(there), "--ray", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run_cli(*asked, str(here)).exit_code == 0
    one, other = (read(path.read_text()) for path in (there, here))
    assert [(each["item_id"], each["answer"]) for each in one] == [(each["item_id"], each["answer"]) for each in other]
