"""A folder that is no checkpoint, or one whose template or config is odd: the true cause is named, or there is none."""

import codecs
import shutil
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import locate
from sfvqa.errors import CheckpointError, ExitCode
from sfvqa.inference.prompt import Role, Turn, build_prompt
from sfvqa.inference.video_qa import VideoQA

VIDEO = "sfvqa/assets/demo/shapes.mp4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of tiny that may be spoilt."""
    return Path(shutil.copytree(locate("tiny").folder, tmp_path / "ck"))


def test_a_folder_of_pickles_says_so(folder: Path) -> None:
    """It was "model.safetensors cannot be read: No such file", as if something were damaged."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"weights only as pickles \(pytorch_model\.bin\).* safetensors"):
        VideoQA.load(folder)


@pytest.mark.parametrize("has_config", [True, False])
def test_an_adapter_says_so(folder: Path, *, has_config: bool) -> None:
    """It was "There is no config.json", which is true of an adapter and explains nothing."""
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"an adapter \(LoRA\), not a model\. Merge it"):
        VideoQA.load(folder)


@pytest.mark.parametrize("template", ["{{ raise_exception('System role not supported') }}", "{{ 1 / 0 }}", "{% if %}"])
def test_a_template_that_raises_is_the_checkpoint_s_fault(folder: Path, template: str) -> None:
    """It was "Something went wrong inside sfvqa", with exit code 1."""
    (folder / "chat_template.jinja").write_text(template)
    qa = VideoQA.load(folder, device="cpu")
    asked = f"chat template of the checkpoint in {folder} refuses the conversation: "
    with pytest.raises(CheckpointError, match=asked) as caught:
        qa.ask(VIDEO, "What moves?")
    assert caught.value.exit_code is ExitCode.MODEL
    with pytest.raises(CheckpointError, match="Leave out the system message, or check"):
        build_prompt(qa.checkpoint.tokenizer, [Turn(Role.SYSTEM, "Be brief."), Turn(Role.USER, "Hi")])


def test_a_config_with_a_byte_order_mark_is_read(folder: Path) -> None:
    """Some editors write one in front of JSON; it was "Unexpected UTF-8 BOM", called damage."""
    config = folder / "config.json"
    config.write_bytes(codecs.BOM_UTF8 + config.read_bytes())
    assert VideoQA.load(folder, device="cpu").ask(VIDEO, "Which way does the circle move?").text
