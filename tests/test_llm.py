"""`llm` itself asks about videos, and gets what `VideoQA.ask` answers."""

import importlib
import json
import os
import subprocess
import sys
import tomllib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

llm = pytest.importorskip("llm")

import sfvqa.llm as plugin  # noqa: E402
from sfvqa.inference.question import PromptOptions  # noqa: E402
from sfvqa.inference.video_qa import VideoQA  # noqa: E402
from sfvqa.registry import load_registry  # noqa: E402
from tests.readme import ROOT, commands  # noqa: E402

DEMO = ROOT / "sfvqa" / "assets" / "demo"
SHAPES, FLASH = DEMO / "shapes.mp4", DEMO / "flash.mp4"
COLOUR, DIGIT = "What colour does the screen flash?", "Which digit is shown?"


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The plugin is known to `llm`, installed or not, which has a folder of its own."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    llm.load_plugins()
    installed = llm.pm.get_plugin("sfvqa")
    if installed is None:
        llm.pm.register(plugin, "sfvqa")
    yield
    if installed is None:
        llm.pm.unregister(plugin)


@pytest.fixture(scope="module")
def qa() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


def ask(question: str, *videos: Any, model: str = "sfvqa/tiny", **more: Any) -> Any:
    attachments = [llm.Attachment(path=str(each)) if isinstance(each, Path) else each for each in videos]
    return llm.get_model(model).prompt(question, attachments=attachments, **more)


def error_of(response: Any) -> str:
    with pytest.raises(llm.ModelError) as caught:
        response.text()
    return str(caught.value)


def test_every_model_that_has_weights_can_be_named() -> None:
    found = [each for each in llm.get_models_with_aliases() if isinstance(each.model, plugin.VideoModel)]
    names = [spec.name for spec in load_registry() if spec.has_weights]
    assert [each.model.model_id for each in found] == ["sfvqa", *(f"sfvqa/{name}" for name in names)]
    assert llm.get_model("sfvqa/slowfast-7b").model_id == "sfvqa/slowfast-7b-64f"


def test_an_answer_streams_and_is_that_of_the_library(qa: VideoQA) -> None:
    response = ask(COLOUR, SHAPES)
    pieces, answer = list(response), qa.ask(SHAPES, COLOUR)
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == "The screen flashes green."
    assert (response.usage().input, response.usage().output) == (answer.tokens.prompt, answer.tokens.new)
    assert response.resolved_model == "tiny"
    assert response.json()["settings"]["crop"] == "center"


def test_where_no_model_is_named_the_one_that_is_here_answers(caplog: pytest.LogCaptureFixture) -> None:
    """And it is said that this one is for synthetic videos only."""
    plugin.load.cache_clear()
    response = ask(COLOUR, SHAPES, model="sfvqa")
    assert (response.text(), response.resolved_model) == ("The screen flashes green.", "tiny")
    assert "for synthetic videos only" in caplog.text


def test_one_model_makes_room_before_the_next_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfvqa.checkpoints.load import load_checkpoint

    before = weakref.ref(plugin.load("tiny", "cpu", "none"))
    were_there: list[bool] = []

    def noted(*settings: Any) -> Any:
        were_there.append(before() is not None)
        return load_checkpoint(*settings)

    monkeypatch.setattr("sfvqa.checkpoints.load.load_checkpoint", noted)
    after = plugin.load("tiny", "cpu", "auto")
    assert were_there == [False]
    assert plugin.load("tiny", "cpu", "auto") is after


def test_options_reach_the_model(caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"num_frames": 8, "start_seconds": 1, "end_seconds": 3, "crop": "pad", "max_tokens": 2}
    drawn: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": 3}
    found = ask(COLOUR, SHAPES, system="Be brief.", **options, **drawn).json()
    assert found["frames"]["count"] == 8
    assert 1 <= found["frames"]["timestamps_seconds"][0] <= found["frames"]["timestamps_seconds"][-1] <= 3
    assert {name: found["settings"][name] for name in (*drawn, "crop", "system", "max_new_tokens")} == {
        **drawn,
        "crop": "pad",
        "system": "Be brief.",
        "max_new_tokens": 2,
    }
    assert "The model was trained with 32 frames (here 8)" in caplog.text


def test_a_schema_is_kept() -> None:
    response = ask(COLOUR, SHAPES, schema={"enum": ["no colour"]})
    assert json.loads(response.text()) == "no colour"
    assert response.json()["settings"]["schema"] == '{"enum":["no colour"]}'


def test_a_conversation_is_that_of_the_library(qa: VideoQA) -> None:
    """Also where it goes on from what was stored, with the system message of its beginning."""
    chat = qa.chat(SHAPES, prompt=PromptOptions(system="Be brief."))
    known = [chat.ask(question) for question in (COLOUR, DIGIT)]
    conversation = llm.get_model("sfvqa/tiny").conversation()
    attached = llm.Attachment(path=str(SHAPES))
    first = conversation.prompt(COLOUR, attachments=[attached], system="Be brief.")
    assert first.text() == known[0].text
    second = conversation.prompt(DIGIT)
    assert (second.text(), second.usage().input) == (known[1].text, known[1].tokens.prompt)
    assert second.json()["settings"]["system"] == "Be brief."
    stored = llm.Response.from_dict(json.loads(json.dumps(first.to_dict())))
    again = stored.reply(DIGIT, attachments=[attached])
    assert (again.text(), again.usage().input) == (known[1].text, known[1].tokens.prompt)


def test_bytes_are_a_video_too() -> None:
    """And what is logged of the answer names no copy that is gone."""
    response = ask(COLOUR, llm.Attachment(type="video/mp4", content=FLASH.read_bytes()))
    assert response.text() == "The screen flashes purple."
    assert response.json()["video"] == "standard input"
    assert ask(COLOUR, FLASH).json()["video"] == str(FLASH)


@pytest.mark.parametrize(
    ("attachments", "says"),
    [
        ([], "There is no video to ask about. Attach one"),
        ([SHAPES, FLASH], "The conversation has 2 videos. Ask about one video"),
        ([llm.Attachment(type="video/mp4", url="https://example.org/clip.mp4")], "is a URL, and only local files"),
        ([llm.Attachment(type="video/mp4", path="/absent/clip.mp4")], "There is no file “/absent/clip.mp4”."),
        (
            [llm.Attachment(type="video/mp4", content=b"no video" * 99)],
            "The attachment cannot be read as a video: it is",
        ),
        ([llm.Attachment(type="video/mp4", path=str(ROOT / "README.md"))], "cannot be read as a video: it is text."),
        ([llm.Attachment(type="video/mp4", path=str(DEMO))], "is a folder and holds no images"),
    ],
)
def test_what_can_be_no_video_is_refused_before_a_model_is_loaded(
    attachments: list[Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "load", None)
    assert says in error_of(ask(COLOUR, *attachments))


def test_a_video_of_another_turn_is_refused() -> None:
    conversation = llm.get_model("sfvqa/tiny").conversation()
    assert conversation.prompt(COLOUR, attachments=[llm.Attachment(path=str(SHAPES))]).text()
    assert "2 videos" in error_of(conversation.prompt(DIGIT, attachments=[llm.Attachment(path=str(FLASH))]))


@pytest.mark.parametrize(
    ("question", "options", "says"),
    [
        (" ", {}, "A question is empty."),
        (COLOUR, {"max_tokens": 0}, "max_tokens is 0. It must be"),
        (COLOUR, {"num_frames": 0}, "0 frames were asked for."),
        (COLOUR, {"start_seconds": 90}, "lies beyond the last frame"),
        (COLOUR, {"max_tokens": 5000}, "new tokens (max_tokens=19"),
    ],
)
def test_errors_say_what_happened_and_what_to_do(question: str, options: dict[str, Any], says: str) -> None:
    assert says in error_of(ask(question, SHAPES, **options))


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "`sfvqa models pull smolvlm2-500m`" in error_of(ask(COLOUR, SHAPES, model="sfvqa/smolvlm2"))


def test_a_broken_file_of_the_users_own_models_breaks_no_other_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "models.toml"
    broken.write_text("[models.mine]\n")
    monkeypatch.setenv("SFVQA_MODELS", str(broken))
    plugin.load.cache_clear()
    assert [each.model.model_id for each in llm.get_models_with_aliases() if "sfvqa" in each.model.model_id] == [
        "sfvqa"
    ]
    assert f"[models.mine] of {broken}" in error_of(ask(COLOUR, SHAPES, model="sfvqa"))


def test_every_other_command_of_llm_waits_for_nothing_heavy() -> None:
    program = (
        "import sfvqa.llm, sys; print([name for name in ('torch', 'transformers', 'av', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = project["entry-points"]["llm"]
    return found


def test_the_plugin_is_declared() -> None:
    assert declared().keys() == {"sfvqa"}
    assert importlib.import_module(declared()["sfvqa"]) is plugin


@pytest.mark.slow
def test_the_command_asks_and_goes_on_with_a_conversation(tmp_path: Path) -> None:
    """As the README shows; in processes of their own, the plugin found as pip installs it."""
    metadata = tmp_path / "installed" / "sfvqa_plugin-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sfvqa-plugin\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[llm]\nsfvqa = {declared()['sfvqa']}\n")
    own = {"LLM_USER_PATH": str(tmp_path / "llm"), "PYTHONPATH": os.pathsep.join(map(str, (ROOT, metadata.parent)))}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "llm", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, check=False)

    shown = [command for command in commands() if command.words[0] == "llm"]
    assert len(shown) == 2
    for command in shown:
        done = run(*command.words[1:])
        assert (done.stdout, done.stderr) == (command.output.rstrip() + "\n", "")
    failed = run("-m", "sfvqa/tiny", COLOUR)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("Error: There is no video to ask about. Attach one")
