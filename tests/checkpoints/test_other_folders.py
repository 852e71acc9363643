"""A folder that is no checkpoint, or one whose template or config is odd: the true cause is named, or there is none."""

import codecs
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sfvqa.checkpoints.find import locate
from sfvqa.checkpoints.quantize import quantize
from sfvqa.errors import CheckpointError, ExitCode
from sfvqa.inference.prompt import Role, Turn, build_prompt
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import read_config
from tests.model.families.published import FAMILIES, LLAVA_TEMPLATE, save_whole

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
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "tiny"}')
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"an adapter \(LoRA\), not a model\. .*--model tiny --adapter"):
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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_is_the_one_that_transformers_takes(family: str, tmp_path: Path) -> None:
    """SmolVLM2's files name a class that does not split numbers as they say; transformers knows that by the model."""
    save_whole(family, tmp_path / "published")
    quantize(tmp_path / "published", tmp_path / "quantized", "8bit", device="cpu")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "published")
    texts = ["Frame from 00:00: 10 20 naïve  東京\n\n don't", "Frame from <|im_end|><image>00:00"]
    for folder in (tmp_path / "published", tmp_path / "quantized"):
        tokenizer = VideoQA.load(folder, device="cpu").checkpoint.tokenizer
        assert [tokenizer(text)["input_ids"] for text in texts] == [theirs(text)["input_ids"] for text in texts]
        if family == "llava_onevision":
            assert tokenizer.chat_template == LLAVA_TEMPLATE


def test_a_processor_s_template_goes_before_the_tokenizer_s(tmp_path: Path) -> None:
    """That of a language model knows no videos."""
    save_whole("llava_onevision", tmp_path / "published")
    (tmp_path / "published" / "chat_template.jinja").write_text("{{ messages[0]['content'] + '' }}")
    tokenizer = VideoQA.load(tmp_path / "published", device="cpu").checkpoint.tokenizer
    assert tokenizer.chat_template == LLAVA_TEMPLATE


@pytest.mark.parametrize(
    ("files", "mean"),
    [
        ({}, 0.5),
        ({"preprocessor_config.json": {"image_mean": [0.1] * 3}}, 0.1),
        ({"video_preprocessor_config.json": {"image_mean": [0.2] * 3}}, 0.2),
        ({"processor_config.json": {"video_processor": {"image_mean": [0.3] * 3}, "image_processor": {}}}, 0.3),
    ],
)
def test_pixels_are_described_where_transformers_looks(
    files: dict[str, dict[str, Any]], mean: float, tmp_path: Path
) -> None:
    """In one file alone: what the others say is of pictures, or left over."""
    save_whole("llava_onevision", tmp_path)
    for name, fields in files.items():
        (tmp_path / name).write_text(json.dumps(fields))
    assert read_config(tmp_path).vision.image_mean[0] == mean


def test_what_is_said_of_pictures_does_not_mix_with_what_is_said_of_videos(tmp_path: Path) -> None:
    save_whole("smolvlm", tmp_path)
    assert read_config(tmp_path).vision.longest_edge == 128
    sampling = {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": 100}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"video_sampling": sampling}))
    config = read_config(tmp_path)
    assert (config.vision.longest_edge, config.training_num_frames) == (100, 8)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"video_sampling": {"fps": 2, "max_frames": 64}}, "fps is 2"), ({"max_image_size": {"longest_edge": 32}}, "32")],
)
def test_frames_seen_otherwise_than_we_can_are_refused(fields: dict[str, Any], named: str, tmp_path: Path) -> None:
    save_whole("smolvlm", tmp_path)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=rf"{named}; only \d+ is supported .*config\.json"):
        read_config(tmp_path)
