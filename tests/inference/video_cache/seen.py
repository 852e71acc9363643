"""Keys and seen videos to keep: made of a number, so that one under the wrong key can be told."""

from pathlib import Path

import torch

from sfvqa.inference.encode import SeenVideo
from sfvqa.inference.video_cache.entry import EncodingKey
from sfvqa.video import CropMode, ReaderName, SamplingOptions, VideoInfo

VIDEO = Path("/videos/clip.mp4")


def key_of(number: int = 0, dtype: str = "float32") -> EncodingKey:
    """The key of the number-th video."""
    return EncodingKey(
        content=f"whole:{number}",
        sampling=SamplingOptions(num_frames=2),
        crop=CropMode.CENTER,
        reader=ReaderName.AUTO,
        checkpoint="tiny@0",
        dtype=dtype,
        device_kind="cpu",
    )


def seen_of(number: int = 0, dtype: str = "float32", *, width: int = 8, path: Path = VIDEO) -> SeenVideo:
    """The number-th video: two frames of 2 × 2 tokens of `width`, drawn with the number as seed."""
    tokens = torch.randn(2, 2, 2, width, generator=torch.Generator().manual_seed(number))
    return SeenVideo(
        visual_tokens=tokens.to(getattr(torch, dtype)),
        indices=(0, number + 1),
        timestamps_seconds=(0.0, 0.1 + 0.2),
        strategy="uniform",
        reader="pyav",
        crop=CropMode.CENTER,
        video=VideoInfo(path, number + 2, 30000 / 1001, 10.0, 64, 48, "h264", 90),
        num_missing=1,
        warnings=("The file ends early: “it”.",),
    )
