"""transformers' Auto classes answer chat messages about videos with the very tokens of `VideoQA.ask`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline

import sfvqa
from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.answer import Answer
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.transformers import SlowFastProcessor
from sfvqa.video import SamplingOptions, SamplingStrategy
from tests.model.families.published import FAMILIES, save_whole

ASSETS = Path(sfvqa.__file__).parent / "assets"
TINY, SHAPES, FLASH = ASSETS / "tiny", ASSETS / "demo" / "shapes.mp4", ASSETS / "demo" / "flash.mp4"
COLOUR, DIGIT, DESCRIBE = "What colour does the screen flash?", "Which digit is shown?", "Describe the video."
ASKED = GenerationOptions(max_new_tokens=64, log_probabilities=True)


def about(video: Any, question: str, **more: Any) -> list[dict[str, Any]]:
    part = {"type": "video", "path": str(video)} if isinstance(video, Path) else {"type": "video", "video": video}
    return [{"role": "user", "content": [{**part, **more}, {"type": "text", "text": question}]}]


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(TINY)


@pytest.fixture(scope="module")
def qa() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


def written(processor: Any, model: Any, conversation: Any, **how: Any) -> list[list[int]]:
    """The new tokens of each conversation, up to and with its end token."""
    inputs = processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **how
    )
    output = model.generate(**inputs.to(model.device), max_new_tokens=64, do_sample=False)
    rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def tokens_of(answer: Answer) -> list[int]:
    assert answer.log_probabilities is not None
    return [token.token_id for token in answer.log_probabilities]


def test_the_auto_classes_know_a_slow_fast_checkpoint(processor: Any, model: Any) -> None:
    assert isinstance(AutoConfig.from_pretrained(TINY), SlowFastConfig)
    assert isinstance(model, SlowFastForConditionalGeneration)
    assert isinstance(processor, SlowFastProcessor)


def test_one_import_is_enough() -> None:
    code = f"""
import sfvqa.transformers
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained({str(TINY)!r})
model = AutoModelForImageTextToText.from_pretrained({str(TINY)!r})
inputs = processor.apply_chat_template({about(SHAPES, COLOUR)!r}, tokenize=True, return_dict=True)
print(processor.batch_decode(model.generate(**inputs, max_new_tokens=32), skip_special_tokens=True)[0])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("The screen flashes green.\n")


@pytest.mark.parametrize("question", [COLOUR, DIGIT, DESCRIBE, "What is the weather like?"])
def test_greedy_tokens_are_those_of_ask(processor: Any, model: Any, qa: VideoQA, question: str) -> None:
    assert written(processor, model, about(SHAPES, question)) == [tokens_of(qa.ask(SHAPES, question, ASKED))]


def test_a_batch_of_conversations_is_what_each_is_alone(processor: Any, model: Any, qa: VideoQA) -> None:
    """Of other lengths, about other videos and none."""
    text_alone = [{"role": "user", "content": "Which digit is shown?"}]
    conversations = [about(SHAPES, DESCRIBE), text_alone, about(FLASH, COLOUR, max_frames=None)]
    asked = [(SHAPES, DESCRIBE), (None, "Which digit is shown?"), (FLASH, COLOUR)]
    assert written(processor, model, conversations) == [tokens_of(answer) for answer in qa.answer_batch(asked, ASKED)]


def test_a_conversation_goes_on_as_a_chat_does(processor: Any, model: Any, qa: VideoQA) -> None:
    chat = qa.chat(SHAPES, ASKED, prompt=PromptOptions(system="Be brief."))
    first = chat.ask(COLOUR)
    said = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *about(SHAPES, COLOUR),
        {"role": "assistant", "content": [{"type": "text", "text": first.text}]},
        {"role": "user", "content": DIGIT},
    ]
    assert written(processor, model, said) == [tokens_of(chat.ask(DIGIT))]


def test_frames_in_memory_and_pictures_are_seen_as_encode_frames_sees_them(
    processor: Any, model: Any, qa: VideoQA, tmp_path: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 40, 60), np.uint8)
    times = [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    expected = tokens_of(qa.ask(qa.encode_frames(frames, times), DESCRIBE, ASKED))
    assert written(processor, model, about(torch.from_numpy(frames), DESCRIBE, timestamps_seconds=times)) == [expected]
    picture = Image.fromarray(frames[0].transpose(1, 2, 0))
    picture.save(tmp_path / "still.png")
    for image in ({"image": picture}, {"path": tmp_path / "still.png"}, {"image": str(tmp_path / "still.png")}):
        said = [{"role": "user", "content": [{"type": "image", **image}, {"type": "text", "text": DIGIT}]}]
        assert written(processor, model, said) == [tokens_of(qa.ask(tmp_path / "still.png", DIGIT, ASKED))]


@pytest.mark.parametrize(
    ("how", "sampling"),
    [
        ({"num_frames": 9}, SamplingOptions(9)),
        ({"processor_kwargs": {"fps": 2}}, SamplingOptions(32, SamplingStrategy.FPS, 2)),
        ({"fps": 4, "num_frames": 7}, SamplingOptions(7, SamplingStrategy.FPS, 4)),
    ],
)
def test_other_frames_can_be_asked_for(
    processor: Any, model: Any, qa: VideoQA, how: dict[str, Any], sampling: SamplingOptions
) -> None:
    expected = tokens_of(qa.ask(qa.encode(SHAPES, sampling), DESCRIBE, ASKED))
    assert written(processor, model, about(SHAPES, DESCRIBE), **how) == [expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_in_our_form_are_asked_as_their_own_prompts_want(family: str, tmp_path: Path) -> None:
    save_whole(family, tmp_path / "published")
    checkpoint = VideoQA.load(tmp_path / "published", device="cpu").checkpoint
    checkpoint.model.save_pretrained(tmp_path / "ours")
    checkpoint.tokenizer.save_pretrained(tmp_path / "ours")
    qa = VideoQA.load(tmp_path / "ours", device="cpu")
    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours")
    answer = qa.ask(SHAPES, "What moves?", ASKED)
    (row,) = written(processor, model, about(SHAPES, "What moves?"))
    assert row[: answer.tokens.new] == tokens_of(answer)


def test_text_comes_back_without_the_places_of_frames(processor: Any, model: Any, qa: VideoQA) -> None:
    inputs = processor.apply_chat_template(about(SHAPES, COLOUR), tokenize=True, return_dict=True)
    output = model.generate(**inputs, max_new_tokens=32)
    answer = qa.ask(SHAPES, COLOUR).text
    assert torch.equal(output[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    (whole,) = processor.batch_decode(output, skip_special_tokens=True)
    assert whole.startswith("system")
    assert COLOUR in whole
    assert whole.endswith(answer)
    new = output[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(new, skip_special_tokens=True) == [answer]
    assert processor.decode(new[0], skip_special_tokens=True) == answer
    assert processor.decode(new[0]).endswith("<|im_end|>")
    beams = model.generate(
        **inputs, max_new_tokens=4, num_beams=3, num_return_sequences=2, return_dict_in_generate=True
    )
    assert beams.sequences.shape == (2, inputs["input_ids"].shape[1] + 4)


def test_a_pipeline_of_transformers_answers(processor: Any, model: Any) -> None:
    ask: Any = pipeline("image-text-to-text", model=model, processor=processor)
    (said,) = ask(text=about(SHAPES, COLOUR), max_new_tokens=32, return_full_text=False)
    assert said["generated_text"] == "The screen flashes green."


def test_a_saved_processor_is_loaded_again(processor: Any, model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    one, other = (each.apply_chat_template(about(SHAPES, COLOUR)) for each in (processor, again))
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(one["pixel_values"][0], other["pixel_values"][0])
    with pytest.raises(CheckpointError, match=r"config\.json"):
        SlowFastProcessor.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "end with a question"),
        ([{"role": "assistant", "content": "Hello."}], "end with a question"),
        ([{"role": "tool", "content": "Hello."}], "role 'tool'"),
        ([{"role": "user", "content": ""}], "question is empty"),
        ([{"role": "user", "content": [{"type": "audio", "path": "a.wav"}]}], "type 'audio'"),
        ([*about(SHAPES, "?"), {"role": "assistant", "content": "Hm."}, *about(SHAPES, "?")], "2 videos"),
        ([{**about(SHAPES, "?")[0], "role": "system"}, *about(SHAPES, "?")], "system shows a video"),
        (about("https://a.org/a.mp4", "?"), "Nothing is fetched"),
        (about(np.zeros((2, 8, 8, 3), np.uint8), "?"), "2 frames and 0 times"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_about_a_video_is_refused(processor: Any, conversation: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        processor.apply_chat_template(conversation)
    assert message in str(caught.value)


def test_what_the_processor_cannot_do_is_refused(processor: Any) -> None:
    for wrong in ({"tokenize": False}, {"add_generation_prompt": False}, {"return_tensors": "np"}):
        with pytest.raises(UsageError, match="Leave out"):
            processor.apply_chat_template(about(SHAPES, COLOUR), **wrong)
    with pytest.raises(UsageError, match="begun for the model"):
        processor.apply_chat_template(about(SHAPES, COLOUR), continue_final_message=True)
    with pytest.raises(TypeError, match="num_frame'"):
        processor.apply_chat_template(about(SHAPES, COLOUR), num_frame=3)
    with pytest.raises(UsageError, match="apply_chat_template"):
        processor(text="Hello.", videos=[SHAPES])
