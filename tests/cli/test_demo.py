"""`sfvqa demo`."""

import json
import shlex
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.screen import wrap
from tests.cli.conftest import RunCli, RunOnTerminal


def test_the_bundled_videos_are_there() -> None:
    """Full paths, wherever the package is installed; a question and a true answer at least for each."""
    videos = load_demo_videos()
    assert videos
    for video in videos:
        path = Path(video.path)
        assert path.is_absolute()
        assert path.is_file()
        assert video.description
        assert all(question and answer for question, answer in video.questions)
        assert video.questions


def test_a_question_about_each_can_be_pasted_and_all_fit_on_a_screen(run_cli: RunCli) -> None:
    """A line that begins with sfvqa is a whole command, which works from any folder; the true answer stands below."""
    run = run_cli("demo")
    commands = [shlex.split(line) for line in run.stdout.splitlines() if line.startswith("sfvqa ")]
    firsts = [(Path(video.path).name, *video.questions[0]) for video in load_demo_videos()]
    assert (run.exit_code, run.stderr) == (0, "")
    assert commands == [["sfvqa", "ask", name, question] for name, question, _ in firsts]
    assert all(answer in run.stdout for _, _, answer in firsts)
    assert len(wrap(run.stdout, 80).splitlines()) <= 22


def test_a_terminal_is_offered_the_first_answer(run_on_terminal: RunOnTerminal) -> None:
    first = load_demo_videos()[0]
    _, sent = run_on_terminal("demo", typing=[("[Y/n]", "\n"), (first.questions[0][1], "")])
    assert "shapes.mp4 (bundled) · 32 frames" in sent
    exit_code, sent = run_on_terminal("demo", typing=[("[Y/n]", "n\n")])
    assert (exit_code, "32 frames" in sent) == (0, False)


def test_a_bundled_video_is_found_by_name_where_no_file_has_it(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_cli("frames", "shapes.mp4", "--json")
    assert json.loads(run.stdout)["video"] == load_demo_videos()[0].path
    (tmp_path / "shapes.mp4").write_text("a file of the user's, and no video")
    assert run_cli("frames", "shapes.mp4").exit_code == 3
    for other in ("./shapes.mp4x", "demo/shapes.mp4", "demo.json"):
        assert run_cli("frames", other).exit_code == 3


def test_the_demo_as_json(run_cli: RunCli) -> None:
    """The same for programs."""
    document = json.loads(run_cli("demo", "--json").stdout)
    assert document["schema_version"] == 1
    assert [video["path"] for video in document["videos"]] == [video.path for video in load_demo_videos()]
    assert set(document["videos"][0]["questions"][0]) == {"question", "answer"}
