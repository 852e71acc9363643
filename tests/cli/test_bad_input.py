"""Videos and checkpoints that are missing, broken or something else, through the real reader and a random model."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import RunCli
from tests.inference.small_checkpoint import write_checkpoint
from tests.video.videos import Recipe, constant_rate, write_sound, write_video
from tests.windows import needs_pipes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, and videos of all kinds."""
    folder = tmp_path_factory.mktemp("bad")
    write_checkpoint(folder / "model")
    whole = write_video(
        folder / "whole.mp4", Recipe(constant_rate(50), group=10, container_options={"movflags": "faststart"})
    )
    data = whole.read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) * 6 // 10])
    (folder / "headless.mp4").write_bytes(data[len(data) // 2 :])
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "playlist.mp4").write_text("#EXTM3U\nhttp://localhost:1/a.ts\n")
    (folder / "folder.mp4").mkdir()
    write_sound(folder / "sound.m4a")
    for name in ("no_weights", "no_config", "no_tokenizer", "corrupt_weights", "corrupt_config", "missing_tensor"):
        shutil.copytree(folder / "model", folder / name)
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "no_config" / "config.json").unlink()
    (folder / "no_tokenizer" / "tokenizer.json").unlink()
    (folder / "corrupt_weights" / "model.safetensors").write_bytes(b"\0" * 1000)
    (folder / "corrupt_config" / "config.json").write_text("{")
    _drop_a_tensor(folder / "missing_tensor" / "model.safetensors")
    return folder


def _drop_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["projector.fc1.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


@needs_pipes
@pytest.mark.parametrize(
    ("video", "options", "exit_code", "says"),
    [
        ("absent.mp4", [], 3, "absent.mp4"),
        ("zero.mp4", [], 3, "zero"),
        ("text.mp4", [], 3, "text.mp4"),
        ("headless.mp4", [], 3, "headless.mp4"),
        ("playlist.mp4", [], 3, "playlist"),
        ("folder.mp4", [], 3, "folder"),
        ("sound.m4a", [], 3, "sound"),
        ("/dev/null", [], 3, "/dev/null"),
        ("", [], 2, "path is empty"),
        ("https://example.org//clip.mp4?a=b", [], 3, "“https://example.org//clip.mp4?a=b” is a URL"),
        ("whole.mp4", ["--start", "3"], 3, "beyond"),
        ("whole.mp4", ["--start", "3", "--end", "4"], 3, "beyond"),
        ("whole.mp4", ["--max-new-tokens", "5000"], 2, "positions"),
        ("whole.mp4", ["--device", "cuda:7"], 2, "cuda"),
        ("whole.mp4", ["--attention", "flash_attention_2"], 2, "flash-attn"),
        ("whole.mp4", ["-m", "no_weights"], 4, "model.safetensors"),
        ("whole.mp4", ["-m", "no_config"], 4, "config.json"),
        ("whole.mp4", ["-m", "no_tokenizer"], 4, "tokenizer"),
        ("whole.mp4", ["-m", "corrupt_weights"], 4, "model.safetensors"),
        ("whole.mp4", ["-m", "corrupt_config"], 4, "config.json"),
        ("whole.mp4", ["-m", "missing_tensor"], 4, "projector.fc1.weight"),
        ("whole.mp4", ["-m", "whole.mp4"], 4, "whole.mp4"),
    ],
)
def test_bad_input_is_two_sentences_and_a_code(
    video: str,
    options: list[str],
    exit_code: int,
    says: str,
    folder: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never a traceback, never an answer."""
    monkeypatch.chdir(folder)
    run = run_cli("ask", video, "What is shown?", "-q", "-m", "./model", *options)
    assert (run.exit_code, run.stdout) == (exit_code, ""), run.stderr
    message, remedy = run.stderr.splitlines()
    assert message.startswith("Error: ")
    assert says in run.stderr
    assert remedy
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("exit_code", "command"),
    [
        *((3, f"{name} absent.mp4") for name in ("frames", "transcribe", "profile", "caption")),
        (3, "ask absent.mp4 Q?"),
        (3, "chat absent.mp4"),
        (3, "find absent.mp4 star"),
        (2, "ask whole.mp4 Q? --subtitles absent"),
        (2, "ask whole.mp4 --questions absent"),
        (2, "ask whole.mp4 Q? --json-schema absent"),
        (2, "batch absent --question Q? -o out.jsonl"),
        (2, "batch absent.csv -o out.jsonl"),
        (2, "batch . --question Q? --json-schema absent -o out.jsonl"),
        (2, "caption absent"),
        (2, "report absent"),
        (2, "report out.jsonl --against absent"),
        (2, "report out.jsonl --html out.html --videos absent"),
        (2, "merge all.jsonl absent"),
        (2, "profile whole.mp4 --compare absent"),
        (2, "serve --folder absent"),
        (2, "mcp --folder absent"),
        (4, "ask whole.mp4 Q? --adapter absent"),
        (4, "ask whole.mp4 Q? -m ./absent"),
    ],
)
def test_a_missing_file_has_one_code_by_what_it_is(
    exit_code: int, command: str, folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video 3, a model 4, any other 2: subtitles had 3, records 1."""
    monkeypatch.chdir(folder)
    (folder / "out.jsonl").touch()
    run = run_cli(*command.split())
    assert (run.exit_code, run.stdout) == (exit_code, ""), run.stderr
    assert "absent" in run.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("report", "URL"),
        ("report", "out.jsonl", "--against", "URL"),
        ("report", "out.jsonl", "--csv", "URL"),
        ("report", "out.jsonl", "--html", "URL"),
        ("report", "out.jsonl", "--videos", "URL"),
        ("merge", "all.jsonl", "URL"),
        ("merge", "URL", "out.jsonl"),
        ("batch", ".", "--question", "Q?", "-o", "URL"),
        ("ask", "whole.mp4", "Q?", "--subtitles", "URL"),
        ("ask", "whole.mp4", "Q?", "--evidence-out", "URL"),
        ("frames", "whole.mp4", "--out", "URL"),
        ("profile", "whole.mp4", "--compare", "URL"),
        ("profile", "whole.mp4", "--csv", "URL"),
        ("profile", "whole.mp4", "--plot", "URL"),
        ("profile", "whole.mp4", "--trace", "URL"),
    ],
)
def test_an_address_is_no_file_and_is_shown_as_it_was_given(
    command: tuple[str, ...], folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Path of it has one slash: “https:/example.org/read/a.jsonl cannot be read: No such file or directory”."""
    monkeypatch.chdir(folder)
    address = "https://example.org//read/a.jsonl"
    run = run_cli(*(address if each == "URL" else each for each in command))
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr == f"Error: “{address}” is a URL, not a local file.\nDownload it first, or name a file.\n"


@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_a_truncated_video_is_answered_with_a_warning(reader: str, folder: Path, run_cli: RunCli) -> None:
    """What can be read is answered from; the warning says how much is missing; nothing else is printed."""
    arguments = ("ask", str(folder / "truncated.mp4"), "Q?", "-m", str(folder / "model"), "--max-new-tokens", "3")
    run = run_cli(*arguments, "--json", "--reader", reader)
    document = json.loads(run.stdout)
    assert run.exit_code == 0
    assert "of them can be read" in document["warnings"][0]
    assert document["frames"]["timestamps_seconds"][-1] < 1.6
    assert f"Warning: {document['warnings'][0]}" in run.stderr
    assert all(line.startswith(("truncated.mp4: ", "Warning: ", "Timings: ")) for line in run.stderr.splitlines())


@pytest.mark.parametrize("reader", ["pyav", "opencv"])
def test_a_short_video_gives_each_frame_once(reader: str, folder: Path, run_cli: RunCli) -> None:
    """Fewer frames than asked for is no error; third parties print nothing."""
    options = ("-m", str(folder / "model"), "--max-new-tokens", "3", "--frames", "8", "--end", "0.1", "--json")
    run = run_cli("ask", str(folder / "whole.mp4"), "Q?", *options, "--reader", reader)
    document = json.loads(run.stdout)
    assert document["frames"]["indices"] == [0, 1, 2]
    assert document["settings"]["reader"] == reader
    assert all(line.startswith(("whole.mp4: ", "Warning: ", "Timings: ")) for line in run.stderr.splitlines())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(folder: Path, run_cli: RunCli, tmp_path: Path) -> None:
    """Permissions are an error about the video, not a traceback."""
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"secret")
    path.chmod(0)
    assert run_cli("ask", str(path), "Q?", "-m", str(folder / "model")).exit_code == 3
