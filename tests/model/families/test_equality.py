"""What is plugged in computes what transformers' own classes do, from folders that these have written."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastForConditionalGeneration
from tests.model.families.published import FAMILIES, VIDEO_TOKEN_ID, greedy_of, logits_of, make, save

STORED = [
    pytest.param(tied, sharded, old, id=f"{'tied' if tied else 'untied'}-{sharded=}-{old=}")
    for tied, sharded, old in [(False, False, True), (True, True, True), (False, True, False), (True, False, False)]
]


def both(prompt: list[int]) -> tuple[torch.Tensor, list[int]]:
    """A prompt with a placeholder for every visual token, as transformers and as we write it."""
    ours = [IMAGE_TOKEN_ID if token == VIDEO_TOKEN_ID else token for token in prompt]
    return torch.tensor([prompt]), ours


@pytest.mark.parametrize(("tied", "sharded", "old_names"), STORED)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_as_published_is_loaded_and_answers_alike(
    family: str, tied: bool, sharded: bool, old_names: bool, tmp_path: Path
) -> None:
    theirs = make(family, tied=tied)
    ours = SlowFastForConditionalGeneration.from_pretrained(
        save(theirs, tmp_path / "published", sharded=sharded, old_names=old_names)
    )
    size = ours.config.vision.image_size
    for num_frames in (1, 5, 33):
        pixels = torch.randn(num_frames, 3, size, size, generator=torch.Generator().manual_seed(num_frames))
        with torch.inference_mode():
            tokens = ours.encode_video(pixels)
        ids, prompt = both([1, 2, 3, *[VIDEO_TOKEN_ID] * len(tokens.fast), 4, 5, 6])
        expected = logits_of(theirs, ids, pixels)
        with torch.inference_mode():
            logits = ours(torch.tensor([prompt]), visual_tokens=[tokens]).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_transformers_own(family: str, tmp_path: Path) -> None:
    theirs = make(family)
    ours = SlowFastForConditionalGeneration.from_pretrained(save(theirs, tmp_path / "published"))
    size = ours.config.vision.image_size
    pixels = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tokens = ours.encode_video(pixels)
    ids, prompt = both([7, *[VIDEO_TOKEN_ID] * len(tokens.fast), 8, 9])
    state = prefill(ours, [prompt], [tokens])
    steps = generate_tokens(ours, state, GenerationOptions(max_new_tokens=64), frozenset())
    written = [token.token_id for (token,) in steps if token]
    assert written == greedy_of(theirs, ids, pixels, 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_of_an_older_transformers_means_what_it_meant(family: str, tmp_path: Path) -> None:
    """The published files say rope_theta and torch_dtype; a rotation by the default base answers nonsense, silently."""
    folder = save(make(family), tmp_path / "published")
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    text = fields["text_config"]
    del text["rope_parameters"]
    text |= {"rope_theta": 250.0, "_attn_implementation_autoset": False, "qk_layer_norms_perceiver": False}
    fields["torch_dtype"] = fields.pop("dtype", "float32")
    path.write_text(json.dumps(fields))
    theirs = AutoModelForImageTextToText.from_pretrained(folder).eval()
    ours = SlowFastForConditionalGeneration.from_pretrained(folder)
    assert ours.config.decoder_config.rope_parameters["rope_theta"] == 250.0
    size = ours.config.vision.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        tokens = ours.encode_video(pixels)
        ids, prompt = both([1, 2, 3, *[VIDEO_TOKEN_ID] * len(tokens.fast), 4, 5, 6])
        logits = ours(torch.tensor([prompt]), visual_tokens=[tokens]).logits
    torch.testing.assert_close(logits, logits_of(theirs, ids, pixels), rtol=0, atol=1e-5)
