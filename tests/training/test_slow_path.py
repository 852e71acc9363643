"""Slow-fast on top of a video model: the same answers at once, and a slow path that learns by itself."""

import json
from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.known import read_trained_with
from sfvqa.errors import UsageError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastForConditionalGeneration
from sfvqa.training.annotations import check_videos, read_annotations
from sfvqa.training.convert import add_slow_path
from sfvqa.training.convert import main as convert_main
from sfvqa.training.finetune import fine_tune
from sfvqa.training.frozen_tower import Looking
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import IGNORED, DialogueWriter, VideoDataset
from sfvqa.video import SamplingOptions, SamplingStrategy
from sfvqa.video.readers import ReadOptions
from tests.inference.conftest import write_video
from tests.model.families.published import FAMILIES, VIDEO_TOKENS, processor_text, save_whole


@pytest.fixture(params=FAMILIES)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / str(request.param)
    save_whole(request.param, folder)
    return folder


def test_until_it_is_trained_it_computes_what_the_base_does(published: Path, tmp_path: Path) -> None:
    add_slow_path(published, tmp_path / "ours", num_fast_frames=4, num_slow_frames=16)
    base, ours = (SlowFastForConditionalGeneration.from_pretrained(folder) for folder in (published, tmp_path / "ours"))
    assert (base.config.hybrid_layers, ours.config.hybrid_layers) == ([], [0])
    size = ours.config.vision.image_size
    pixels = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        few, many = base.encode_video(pixels[::4]), ours.encode_video(pixels)
        assert torch.equal(few.fast, many.fast)
        assert len(many.slow) == 4 * len(few.slow)
        prompt = torch.tensor([[1, 2, *[-200] * len(few.fast), 3, 4]])
        one, other = (model(prompt, visual_tokens=[tokens]).logits for model, tokens in ((base, few), (ours, many)))
    assert torch.equal(one, other)


def test_an_open_gate_shows_what_only_slow_frames_have(published: Path, tmp_path: Path) -> None:
    add_slow_path(published, tmp_path / "ours", num_fast_frames=4, num_slow_frames=16)
    ours = SlowFastForConditionalGeneration.from_pretrained(tmp_path / "ours")
    size = ours.config.vision.image_size
    pixels = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
    other = pixels.clone()
    other[1] += 1  # no fast frame
    with torch.inference_mode():
        ours.language_model.layers[0].self_attn.slow_attention.warm_up_gate.fill_(1.0)
        logits = []
        for frames in (pixels, other):
            tokens = ours.encode_video(frames)
            prompt = torch.tensor([[1, 2, *[-200] * len(tokens.fast), 3, 4]])
            logits.append(ours(prompt, visual_tokens=[tokens]).logits[:, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_the_command_makes_a_model_that_ask_takes(published: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    write_video(video, num_frames=40, colour=(200, 30, 60))
    out = tmp_path / "ours"
    assert convert_main([str(published), "--out", str(out), "--fast-frames", "4", "--slow-frames", "32"]) == 0
    base, ours = VideoQA.load(published, device="cpu"), VideoQA.load(out, device="cpu")
    assert (ours.default_sampling.num_frames, ours.default_crop) == (32, base.default_crop)
    options = GenerationOptions(max_new_tokens=12)
    seen = ours.encode(video, SamplingOptions(num_frames=32))
    places = [seen.timestamps_seconds[place] for place in range(0, 32, 8)]
    at_places = SamplingOptions(strategy=SamplingStrategy.TIMESTAMPS, timestamps_seconds=tuple(places))
    few = base.encode(video, at_places)
    assert torch.equal(few.visual_tokens.fast, seen.visual_tokens.fast)
    assert ours.ask(seen, "Why?", options).text == base.ask(few, "Why?", options).text


@pytest.mark.parametrize(("fast", "slow"), [(16, 8), (3, 16), (0, 16)])
def test_frames_that_do_not_divide_are_refused(published: Path, tmp_path: Path, fast: int, slow: int) -> None:
    with pytest.raises(UsageError, match="evenly"):
        add_slow_path(published, tmp_path / "ours", num_fast_frames=fast, num_slow_frames=slow)


def test_a_slow_fast_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        add_slow_path("tiny", tmp_path / "ours", num_fast_frames=4, num_slow_frames=16)


TALK = (("What moves?", "The circle moves left."), ("Where to?", "Left, and then up."))


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A conversation about a video of two seconds."""
    write_video(tmp_path / "video.mp4", num_frames=20, colour=(200, 30, 60))
    said = [{"from": who, "value": text} for both in TALK for who, text in zip(("human", "gpt"), both, strict=True)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{"id": "1", "video": "video.mp4", "conversations": said}]))
    return path


def test_stage_1_trains_the_slow_path_alone(published: Path, annotated: Path, tmp_path: Path) -> None:
    add_slow_path(published, tmp_path / "ours", num_fast_frames=2, num_slow_frames=4)
    options = FineTuning(stage=Stage.BRIDGE, num_steps=3, batch_size=1, learning_rate=0.05, device="cpu")
    trained = fine_tune(tmp_path / "ours", annotated, tmp_path, tmp_path / "run", options)
    before, after = (
        SlowFastForConditionalGeneration.from_pretrained(folder).state_dict() for folder in (tmp_path / "ours", trained)
    )
    changed = {name for name, values in before.items() if not torch.equal(values, after[name])}
    assert changed
    assert all(".slow_attention." in name for name in changed)
    assert read_trained_with(trained) == read_trained_with(tmp_path / "ours")


def test_stage_1_has_nothing_to_train_in_a_model_without_a_slow_path(
    published: Path, annotated: Path, tmp_path: Path
) -> None:
    options = FineTuning(stage=Stage.BRIDGE, num_steps=1, device="cpu")
    with pytest.raises(UsageError, match="no slow path"):
        fine_tune(published, annotated, tmp_path, tmp_path / "run", options)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_rows_are_what_ask_asks_and_the_model_should_write(published: Path, annotated: Path, num_frames: int) -> None:
    """Where the template repeats an answer as it was asked for, they are the processor's text of the conversation."""
    qa, family = VideoQA.load(published, device="cpu"), published.name
    checkpoint, config = qa.checkpoint, qa.checkpoint.model.config
    looking = Looking(SamplingOptions(num_frames), qa.default_crop, ReadOptions(isolated=False))
    examples = read_annotations(annotated, annotated.parent)
    examples = check_videos(examples, looking.sampling, looking.reading, skip_unreadable=False)
    writer = DialogueWriter(checkpoint.tokenizer, checkpoint.end_token_ids, config.family)
    dataset = VideoDataset(examples, writer, config, looking)
    rows = [dataset[number] for number in range(len(dataset))]
    assert len(rows) == {"llava_onevision": 2, "smolvlm": 1}[family]  # LLaVA's template adds a space to what was said
    seen = qa.encode(annotated.parent / "video.mp4", looking.sampling)
    ids = rows[-1]["input_ids"]
    for row, history in zip(rows, ((), TALK[:1]), strict=False):
        question = TALK[len(history)][0]
        asked = prompt_for(
            checkpoint.tokenizer, seen, question, PromptOptions(), config=config, num_new_tokens=8, history=history
        ).token_ids
        assert list(row["input_ids"][: len(asked)]) == asked
        assert row["labels"][len(asked)] != IGNORED
        assert torch.equal(row["pixel_values"], rows[0]["pixel_values"])
    if family == "smolvlm":
        text = processor_text(family, qa, seen, TALK[0][0], TALK[0][1], TALK[1][0], TALK[1][1])
        whole = checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
        own = checkpoint.tokenizer.convert_tokens_to_ids(VIDEO_TOKENS[family])
        assert [own if token == IMAGE_TOKEN_ID else token for token in ids] == whole[: len(ids)]
        learned = [token for token in rows[0]["labels"] if token != IGNORED]
        said = "".join(f" {answer}<end_of_utterance>" for _, answer in TALK)
        assert learned == checkpoint.tokenizer(said, add_special_tokens=False)["input_ids"]


def test_a_row_that_names_every_time_is_measured_before_anything_is_learned(annotated: Path, tmp_path: Path) -> None:
    save_whole("smolvlm", tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    fields = json.loads(config.read_text())
    fields["text_config"]["max_position_embeddings"] = 100
    config.write_text(json.dumps(fields))
    options = FineTuning(num_frames=2, num_steps=1, device="cpu")
    with pytest.raises(
        UsageError, match=r"Entry 1 \(1\) of \S+ takes \d+ tokens, but the model has only 100 positions"
    ):
        fine_tune(tmp_path / "base", annotated, tmp_path, tmp_path / "run", options)
    assert not list((tmp_path / "run").iterdir())
