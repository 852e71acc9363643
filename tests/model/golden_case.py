"""Reads one golden case: what went into the reference, in the form our model takes it, and what came out."""

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sfvqa.inference.encode import encode_progressively
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.families.slowfast import read_published
from sfvqa.video import SamplingOptions
from tests.golden_folder import GOLDEN
from tests.inference.steps import run

OVERRIDES = {
    "temporal_stride": "fast_token_temporal_stride",
    "sampling_stride": "fast_token_temporal_sampling_stride",
    "spatial_stride": "fast_token_spatial_stride",
    "min_fast": "min_fast_frames",
    "impl": "cross_attn_implementation",
    "side": "tokenizer_padding_side",
}
IGNORED_LABEL = -100
PADDING_TYPE = 4


def cases() -> dict[str, Any]:
    """The cases of `cases.json` whose tensors are in the folder."""
    path = GOLDEN / "cases.json"
    listed = json.loads(path.read_text()) if path.exists() else {}
    return {name: case for name, case in listed.items() if (GOLDEN / f"case_{name}.safetensors").exists()}


def has_frames() -> bool:
    """Whether the folder holds the pixels the cases were computed from."""
    return (GOLDEN / "frames.safetensors").exists()


@functools.cache
def pixel_values() -> Tensor:
    """`frames.safetensors`, normalised as the reference does: `[T, 3, H, W]`."""
    config = read_published(GOLDEN, json.loads((GOLDEN / "config.json").read_text())).vision
    frames = load_file(GOLDEN / "frames.safetensors")["frames"].permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    return (frames - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One case, ready to run: `input_ids` hold one placeholder a fast token and are padded as the case asks."""

    model: SlowFastForConditionalGeneration
    expected: dict[str, Tensor]
    samples: list[VisualTokens]
    visual_tokens: list[VisualTokens | None]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None
    padding_side: str

    @property
    def is_padded_left(self) -> bool:
        return self.padding_side == "left" and not bool(self.attention_mask.all())

    @property
    def is_valid(self) -> Tensor:
        """Positions whose numbers mean something, `[B, L]`."""
        return self.expected["token_type"] != PADDING_TYPE

    @classmethod
    def load(cls, name: str) -> "GoldenCase":
        case = cases()[name]
        fields = json.loads((GOLDEN / "config.json").read_text())
        fields.update({OVERRIDES[short]: value for short, value in case["config_overrides"].items()})
        model = SlowFastForConditionalGeneration.from_pretrained(
            GOLDEN, config=read_published(GOLDEN, fields), dtype=torch.float32
        )
        expected = load_file(GOLDEN / f"case_{name}.safetensors")
        if has_frames():
            with torch.inference_mode():
                samples = [_encode(model, frames) for frames in case["frames"]]
        else:  # the decoder can still be tested, on the reference's own tokens
            rows = range(len(case["frames"]))
            samples = [VisualTokens(slow=expected[f"slow_{row}"], fast=expected[f"fast_{row}"]) for row in rows]
        mask = expected.get("attention_mask", torch.ones_like(expected["input_ids"])).bool()
        prompts = [ids[kept].tolist() for ids, kept in zip(expected["input_ids"], mask, strict=True)]
        in_prompt = [
            sample if IMAGE_TOKEN_ID in prompt else None for sample, prompt in zip(samples, prompts, strict=True)
        ]
        expand = functools.partial(_expand, prompts, in_prompt)
        side = fields.get("tokenizer_padding_side", "right")
        labels = None
        if "labels" in expected:
            kept_labels = [row[kept].tolist() for row, kept in zip(expected["labels"], mask, strict=True)]
            labels = _pad(expand(kept_labels, IGNORED_LABEL), IGNORED_LABEL, side)
        expanded = expand(prompts, IMAGE_TOKEN_ID)
        return cls(
            model=model,
            expected=expected,
            samples=samples,
            visual_tokens=in_prompt,
            input_ids=_pad(expanded, 0, side),
            attention_mask=_pad([[1] * len(row) for row in expanded], 0, side),
            labels=labels,
            padding_side=side,
        )


def _encode(model: SlowFastForConditionalGeneration, frames: list[int] | None) -> VisualTokens:
    """By what the commands do with a file: pictures on the disk are read, fitted, seen in chunks and split."""
    if frames is None:  # the reference's stand-in for no video, zeros after normalisation, is no picture
        return model.encode_video(torch.zeros_like(pixel_values()[:1]))
    with tempfile.TemporaryDirectory() as folder:
        return see(model, write_frames(Path(folder), frames), SamplingOptions(num_frames=len(frames)))


def see(model: SlowFastForConditionalGeneration, video: Path, sampling: SamplingOptions) -> VisualTokens:
    """What the commands would see of a video."""
    return run(encode_progressively(model, video, sampling))[1].visual_tokens


def write_frames(folder: Path, frames: list[int]) -> Path:
    """Some of `frames.safetensors` as a folder of pictures."""
    pixels = load_file(GOLDEN / "frames.safetensors")["frames"].numpy()
    for place, frame in enumerate(frames):
        Image.fromarray(pixels[frame]).save(folder / f"{place:02}.png")
    return folder


def _expand(
    prompts: list[list[int]], samples: list[VisualTokens | None], rows: list[list[int]], fill: int
) -> list[list[int]]:
    """Each row with `fill`, once a fast token, in place of the entry where its prompt has the placeholder."""
    expanded = []
    for prompt, sample, row in zip(prompts, samples, rows, strict=True):
        counts = [len(sample.fast) if sample and token == IMAGE_TOKEN_ID else 1 for token in prompt]
        values = [fill if token == IMAGE_TOKEN_ID else value for token, value in zip(prompt, row, strict=True)]
        expanded.append([value for value, count in zip(values, counts, strict=True) for _ in range(count)])
    return expanded


def _pad(rows: list[list[int]], fill: int, side: str) -> Tensor:
    longest = max(map(len, rows))
    blanks = [[fill] * (longest - len(row)) for row in rows]
    pairs = zip(rows, blanks, strict=True)
    return torch.tensor([blank + row if side == "left" else row + blank for row, blank in pairs])
