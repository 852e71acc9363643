"""Small random checkpoints of other video models, saved by transformers' own classes as these are published."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, SmolVLMProcessor

from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.video_qa import VideoQA

FAMILIES = ("llava_onevision", "smolvlm")
VIDEO_TOKEN_ID = 291
"""Of both, where no tokenizer says another."""
VIDEO_TOKENS = {"llava_onevision": "<video>", "smolvlm": "<image>"}
"""What stands in transformers' prompts for a visual token."""
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 8192,
}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def make(family: str, *, tied: bool = False, video_token_id: int = VIDEO_TOKEN_ID) -> PreTrainedModel:
    """A small model of a family with random weights, of other random weights than their first values."""
    torch.manual_seed(0)
    model: PreTrainedModel
    if family == "llava_onevision":
        vision: dict[str, Any] = _VISION | {"patch_size": 14, "image_size": 70, "vision_use_head": False}
        model = LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=vision | {"model_type": "siglip_vision_model"},
                text_config=_TEXT | {"model_type": "qwen2", "tie_word_embeddings": tied},
                image_token_index=video_token_id - 1,
                video_token_index=video_token_id,
                tie_word_embeddings=tied,
            )
        )
    else:
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(
                vision_config=_VISION | {"patch_size": 16, "image_size": 64},
                text_config=_TEXT | {"model_type": "llama", "pad_token_id": 0, "tie_word_embeddings": tied},
                scale_factor=2,
                image_token_id=video_token_id,
                tie_word_embeddings=tied,
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def save(model: PreTrainedModel, folder: Path, *, sharded: bool = False, old_names: bool = True) -> Path:
    """Its folder, without a tokenizer."""
    size = "60KB" if sharded else "5GB"
    model.save_pretrained(folder, max_shard_size=size, save_original_format=old_names)
    return folder


SPECIAL = {
    "llava_onevision": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
    "smolvlm": (
        *("<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<image>", "<video>"),
        *("<fake_token_around_image>", "<global-img>"),
    ),
}
# In the words of LLaVA-OneVision's: the video before all texts of its turn, each of which begins a line.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}"
    "{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CORPUS = [
    "You are provided the following series of thirty-two frames from a 0:00:05 [H:MM:SS] video.",
    "User: What moves? Assistant: The circle moves left. Frame from 00:00: 10 20 system user assistant",
]


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE with merges, so that it matters which texts are tokenised together."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS * 20, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL[family]])
    if family == "smolvlm":  # whose file splits numbers into digits, which the class that it names would not
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    end = "<|im_end|>" if family == "llava_onevision" else "<end_of_utterance>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token="<|endoftext|>")


def save_whole(family: str, folder: Path, *, sharded: bool = False) -> PreTrainedModel:
    """Weights, tokenizer, template and processor files, as on the hub."""
    tokenizer = tokenizer_of(family)
    video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKENS[family])
    assert isinstance(video_token_id, int)
    model = make(family, video_token_id=video_token_id)
    save(model, folder, sharded=sharded)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": _TOKENIZERS[family]}))
    (folder / "added_tokens.json").write_text(json.dumps(tokenizer.get_added_vocab()))
    for name, fields in _PROCESSOR_FILES[family].items():
        (folder / name).write_text(json.dumps(fields))
    return model


_TOKENIZERS = {"llava_onevision": "Qwen2Tokenizer", "smolvlm": "GPT2Tokenizer"}
_NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "do_rescale": True}
_PROCESSOR_FILES: dict[str, dict[str, Any]] = {
    "llava_onevision": {
        "chat_template.json": {"chat_template": LLAVA_TEMPLATE},
        "preprocessor_config.json": _NORMAL | {"size": {"height": 70, "width": 70}, "resample": 3},
        "processor_config.json": {"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 25},
    },
    "smolvlm": {
        "chat_template.json": {"chat_template": "of pictures, which videos do without"},
        "preprocessor_config.json": _NORMAL
        | {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}, "resample": 1}
        | {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 64}}},
        "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
    },
}
NOT_WANTED = {
    "video_processor/preprocessor_config.json": b'{"image_mean": [0.1, 0.1, 0.1]}',
    "onnx/decoder_model_merged.onnx": b"\0" * 100_000,
    "onnx/model.safetensors": b"\0" * 100_000,
    "README.md": b"# A card",
    ".gitattributes": b"*.safetensors filter=lfs",
}
"""What else is in such a repository: transformers reads none of it."""


def processor_text(family: str, qa: VideoQA, encoded: EncodedVideo, question: str, *later: str) -> str:
    """The text that transformers' processor tokenises: its template, with its own text in place of the video.

    `later` are an answer and a question in turn.
    """
    turns: Any = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    for place, said in enumerate(later):
        turns.append({"role": "user" if place % 2 else "assistant", "content": [{"type": "text", "text": said}]})
    template = qa.checkpoint.tokenizer.chat_template if family == "llava_onevision" else DEFAULT_CHAT_TEMPLATE
    text: Any = qa.checkpoint.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, chat_template=template
    )
    assert isinstance(text, str)
    if family == "llava_onevision":
        return text.replace("<video>", "<video>" * len(encoded.visual_tokens.fast))
    times = encoded.timestamps_seconds
    own: Any = SimpleNamespace(
        image_seq_len=len(encoded.visual_tokens.fast) // len(times),
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    metadata = SimpleNamespace(fps=10.0, timestamps=times, duration=encoded.video.duration_seconds)
    inputs = {"pixel_values": torch.zeros(1, len(times)), "video_metadata": [metadata]}
    return text.replace("<video>", SmolVLMProcessor.replace_video_token(own, inputs, 0))


def logits_of(model: PreTrainedModel, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """What transformers computes of a prompt `[1, L]` with the pixels `[T, 3, S, S]` of its video."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, **_video(model, pixels)).logits
    return logits


def greedy_of(model: PreTrainedModel, ids: torch.Tensor, pixels: torch.Tensor, num_tokens: int) -> list[int]:
    """The tokens that transformers' `generate` writes after a prompt `[1, L]`."""
    written = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        eos_token_id=None,
        pad_token_id=0,
        **_video(model, pixels),
    )
    return list(map(int, written[0, ids.shape[1] :]))


def _video(model: PreTrainedModel, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    name = "pixel_values_videos" if isinstance(model, LlavaOnevisionForConditionalGeneration) else "pixel_values"
    return {name: pixels[None]}
