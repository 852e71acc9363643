"""A folder of another video model, as published, is asked about a real file as transformers itself would be asked."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfvqa.errors import UsageError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID
from sfvqa.registry import find_model
from sfvqa.video import SamplingOptions, read_clip
from sfvqa.video.subtitles import SubtitleLine, Subtitles
from tests.inference.conftest import write_video
from tests.model.families.published import FAMILIES, SPECIAL, VIDEO_TOKENS, greedy_of, processor_text, save_whole

Published = tuple[str, VideoQA, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The family, our model and theirs, of the same folder."""
    folder = tmp_path_factory.mktemp("published") / request.param
    theirs = save_whole(request.param, folder)
    return request.param, VideoQA.load(folder, device="cpu"), theirs


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "five_seconds.mp4"
    write_video(path, num_frames=50, colour=(200, 30, 60))
    return path


@pytest.mark.parametrize("num_frames", [1, 5, 33])
def test_the_prompt_is_that_of_transformers_processor(published: Published, video: Path, num_frames: int) -> None:
    family, qa, _ = published
    encoded = qa.encode(video, SamplingOptions(num_frames=num_frames))
    prompt = prompt_for(
        qa.checkpoint.tokenizer, encoded, "What moves?", PromptOptions(), config=qa.checkpoint.model.config,
        num_new_tokens=8,
    ).token_ids  # fmt: skip
    tokenizer = qa.checkpoint.tokenizer
    expected = tokenizer(processor_text(family, qa, encoded, "What moves?"), add_special_tokens=False)["input_ids"]
    own = tokenizer.convert_tokens_to_ids(VIDEO_TOKENS[family])
    assert [own if token == IMAGE_TOKEN_ID else token for token in prompt] == expected


def test_the_answer_is_transformers_own(published: Published, video: Path) -> None:
    """The same pixels go into both: how ours come about is tested beside."""
    family, qa, theirs = published
    sampling, crop = SamplingOptions(num_frames=5), qa.default_crop
    encoded = qa.encode(video, sampling)
    clip = read_clip(video, sampling, fit=qa.fit(crop))
    pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 255 * 2 - 1
    tokenizer = qa.checkpoint.tokenizer
    ids = torch.tensor([tokenizer(processor_text(family, qa, encoded, "Why?"), add_special_tokens=False)["input_ids"]])
    expected = greedy_of(theirs, ids, pixels, 64)
    answer = qa.ask(encoded, "Why?", GenerationOptions(max_new_tokens=64))
    ends = [place for place, token in enumerate(expected) if token in qa.checkpoint.end_token_ids]
    assert answer.text == tokenizer.decode(expected[: ends[0]] if ends else expected, skip_special_tokens=True)


def test_a_second_turn_is_transformers_own_of_the_whole_conversation(published: Published, video: Path) -> None:
    family, qa, theirs = published
    encoded = qa.encode(video, SamplingOptions(num_frames=5))
    chat = qa.chat(encoded, GenerationOptions(max_new_tokens=16))
    first, second = chat.ask("What moves?"), chat.ask("Where to?")
    assert second.tokens.reused > 0
    pixels = torch.from_numpy(read_clip(video, SamplingOptions(num_frames=5), fit=qa.fit(qa.default_crop)).frames)
    text = processor_text(family, qa, encoded, "What moves?", first.text, "Where to?")
    ids = torch.tensor([qa.checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]])
    expected = greedy_of(theirs, ids, pixels.permute(0, 3, 1, 2) / 255 * 2 - 1, 16)
    ends = [place for place, token in enumerate(expected) if token in qa.checkpoint.end_token_ids]
    whole = expected[: ends[0]] if ends else expected
    assert second.text == qa.checkpoint.tokenizer.decode(whole, skip_special_tokens=True)


def test_a_batch_and_a_chat_answer_as_alone(published: Published, video: Path, tmp_path: Path) -> None:
    _, qa, _ = published
    short, options = tmp_path / "short.mp4", GenerationOptions(max_new_tokens=12)
    write_video(short, num_frames=20, colour=(10, 90, 200))
    videos = [qa.encode(path, SamplingOptions(num_frames=n)) for path, n in ((video, 7), (short, 3), (video, 2))]
    together = qa.answer_batch([(encoded, "What moves?") for encoded in videos], options)
    assert [answer.text for answer in together] == [qa.ask(each, "What moves?", options).text for each in videos]
    chat = qa.chat(videos[0], options)
    chat.ask("What moves?")
    chat.ask("Why?")
    assert chat.turns[1].answer.tokens.reused > 0


def test_frames_are_squashed_as_transformers_does(published: Published, video: Path) -> None:
    """Within a step of 255 of torch's own resampling, which torchvision calls."""
    family, qa, _ = published
    size = qa.checkpoint.model.config.vision.image_size
    mode, through = ("bicubic", []) if family == "llava_onevision" else ("lanczos", [(96, 128)])
    for frame in read_clip(video, SamplingOptions(num_frames=5)).frames:
        expected = torch.from_numpy(frame).permute(2, 0, 1)[None]
        for height, width in [*through, (size, size)]:
            expected = torch.nn.functional.interpolate(expected, (height, width), mode=mode, antialias=True)
        ours = qa.fit(qa.default_crop)(frame).astype(int)
        assert np.abs(ours - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_evidence_is_refused_where_nothing_looks(published: Published, video: Path) -> None:
    _, qa, _ = published
    for asked in (qa.encode(video), "absent.mp4"):  # before a file is read
        with pytest.raises(UsageError, match="evidence"):
            qa.ask(asked, "Why?", GenerationOptions(evidence=True))


def test_special_tokens_that_are_typed_are_text(published: Published, video: Path) -> None:
    """They could end the turn, or stand in for a frame; in a question, a system message, subtitles or an answer."""
    family, qa, _ = published
    encoded, tokenizer = qa.encode(video, SamplingOptions(num_frames=2)), qa.checkpoint.tokenizer
    typed = "".join(SPECIAL[family])
    prompts = []
    for text in ("Why?", typed):
        subtitles = Subtitles((SubtitleLine(0.0, 5.0, text),), "clip.srt")
        options = PromptOptions(system=text, template=f"{text} {{question}}", subtitles=subtitles)
        prompt = prompt_for(
            tokenizer, encoded, text, options, config=qa.checkpoint.model.config, num_new_tokens=8,
            history=[(text, text)],
        )  # fmt: skip
        prompts.append(prompt.token_ids)
    special = set(tokenizer.get_added_vocab().values()) | {IMAGE_TOKEN_ID}
    plain, odd = ([token for token in prompt if token in special] for prompt in prompts)
    assert odd == plain
    assert tokenizer.decode([token for token in prompts[1] if token != IMAGE_TOKEN_ID]).count(typed) == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_models_toml_answer_with_random_weights(
    family: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled tokenizer stands in, whose template is of another family."""
    name = {"llava_onevision": "bench-llava-0.5b", "smolvlm": "bench-smolvlm2-500m"}[family]
    spec = find_model(name)
    small = {"image_size": 64, "vision_layers": 1, "vision_width": 32, "vision_intermediate_size": 32, "num_layers": 1}
    small |= {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    sizes = dataclasses.replace(spec.architecture, **small, head_dim=0)  # type: ignore[arg-type]
    monkeypatch.setattr(
        "sfvqa.checkpoints.load.find_for_random_weights", lambda _: dataclasses.replace(spec, architecture=sizes)
    )
    qa = VideoQA.load(name, device="cpu", random_weights=True)
    answer = qa.ask(qa.encode(video, SamplingOptions(num_frames=3)), "Why?", GenerationOptions(max_new_tokens=4))
    assert answer.tokens.new == 4
