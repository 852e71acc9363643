"""`sfvqa demo`."""

import json
import shlex
from pathlib import Path

from sfvqa.cli.demo import load_demo_videos
from tests.cli.conftest import RunCli


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


def test_every_command_can_be_pasted(run_cli: RunCli) -> None:
    """A line that begins with sfvqa is a whole command, and nothing of the true answer is in it."""
    run = run_cli("demo")
    commands = [shlex.split(line) for line in run.stdout.splitlines() if line.startswith("sfvqa ")]
    expected = [
        ["sfvqa", "ask", video.path, question] for video in load_demo_videos() for question, _ in video.questions
    ]
    assert (run.exit_code, run.stderr, commands) == (0, "", expected)
    assert all(answer in run.stdout for video in load_demo_videos() for _, answer in video.questions)


def test_the_demo_as_json(run_cli: RunCli) -> None:
    """The same for programs."""
    document = json.loads(run_cli("demo", "--json").stdout)
    assert document["schema_version"] == 1
    assert [video["path"] for video in document["videos"]] == [video.path for video in load_demo_videos()]
    assert set(document["videos"][0]["questions"][0]) == {"question", "answer"}
