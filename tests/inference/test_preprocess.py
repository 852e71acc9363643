"""Pixel values equal the reference's (CLIPImageProcessor) on wide, tall and small frames."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPImageProcessorPil

from sfvqa.inference.encode import normalised, pixel_table, pixel_values
from sfvqa.model.families.llava_onevision import LlavaOnevisionVisionConfig
from sfvqa.model.families.slowfast import SlowFastVisionConfig
from sfvqa.model.families.smolvlm import SmolVLMVisionConfig
from sfvqa.video.fitting import FitSquare
from tests.golden_folder import GOLDEN

FIXTURE = GOLDEN / "preprocess.safetensors"
SMALL = SlowFastVisionConfig(image_size=48, depths=(1, 1, 1), dims=(8, 8, 8))


def golden_pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    tensors = load_file(FIXTURE)
    names = sorted(name.removeprefix("frame_") for name in tensors if name.startswith("frame_"))
    return [(tensors[f"frame_{name}"], tensors[f"pixel_values_{name}"]) for name in names]


@pytest.mark.skipif(not FIXTURE.exists(), reason="the golden folder has no preprocess.safetensors")
def test_pixel_values_equal_the_reference() -> None:
    pairs = golden_pairs()
    assert pairs
    for frame, expected in pairs:
        size = expected.shape[-1]
        config = SlowFastVisionConfig(image_size=size, depths=(1,), dims=(8,))
        ours = pixel_values(frame.numpy()[None], config)[0]
        deviation = torch.tensor(config.image_std)[:, None, None]
        # the tolerance asked for is 1/255 before normalisation; what is measured is equality
        torch.testing.assert_close(ours * deviation, expected * deviation, atol=1e-6, rtol=0)


@pytest.mark.parametrize("vision", [SlowFastVisionConfig, LlavaOnevisionVisionConfig, SmolVLMVisionConfig])
def test_every_byte_of_each_colour_becomes_what_the_reference_makes_of_it(vision: type) -> None:
    """To the bit, also where the model's dtype is rounded to before and not after the look into the table."""
    config = vision()
    bytes_ = np.stack([np.roll(np.arange(256, dtype=np.uint8), shift) for shift in (0, 85, 170)], axis=-1)
    frame = bytes_.reshape(16, 16, 3)
    processor = CLIPImageProcessorPil(
        do_resize=False, do_center_crop=False, image_mean=list(config.image_mean), image_std=list(config.image_std)
    )
    expected = torch.as_tensor(processor(frame, return_tensors="pt")["pixel_values"])
    table, frames = pixel_table(config), torch.from_numpy(frame[None])
    assert torch.equal(normalised(frames, table), expected)
    assert torch.equal(normalised(frames, table.bfloat16()), expected.bfloat16())


def test_frames_fitted_while_reading_give_the_same() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 160, 3), dtype=np.uint8)
    fitted = np.stack([FitSquare(48)(frame) for frame in frames])
    assert torch.equal(pixel_values(frames, SMALL), pixel_values(fitted, SMALL))


def test_the_crop_keeps_the_middle() -> None:
    frame = np.zeros((48, 100, 3), dtype=np.uint8)
    frame[:, 26:74] = 255
    assert torch.equal(pixel_values(frame[None], SMALL).amin(dim=(0, 2, 3)), white(SMALL))


def test_mean_and_deviation_are_the_configs() -> None:
    config = SlowFastVisionConfig(image_size=48, depths=(1,), dims=(8,), image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    values = pixel_values(np.array([0, 255], dtype=np.uint8).repeat(48 * 48 * 3).reshape(2, 48, 48, 3), config)
    assert values.unique().tolist() == [-1, 1]


@pytest.mark.parametrize(
    "frames",
    [np.zeros((48, 48, 3), np.uint8), np.zeros((1, 48, 48, 4), np.uint8), np.zeros((1, 48, 48, 3), np.float32)],
)
def test_other_arrays_are_refused_with_their_shape(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\], not"):
        pixel_values(frames, SMALL)


def white(config: SlowFastVisionConfig) -> torch.Tensor:
    return (1 - torch.tensor(config.image_mean)) / torch.tensor(config.image_std)
