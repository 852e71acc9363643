"""What the vision tower made of a video's frames, before it is split into slow and fast tokens. Data only."""

from dataclasses import dataclass

from torch import Tensor

from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import CropMode


@dataclass(frozen=True, eq=False)
class SeenVideo:
    """The visual tokens `[T, h, w, D]` of a video's frames, and where these came from: no question changes it.

    `num_missing` frames were chosen and could not be read; `warnings` are about the file and its frames alone.
    """

    visual_tokens: Tensor
    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    strategy: str
    reader: str
    crop: CropMode
    video: VideoInfo
    num_missing: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.visual_tokens.shape)
        if len(shape) != 4 or not shape[0] == len(self.indices) == len(self.timestamps_seconds):
            raise ValueError(
                f"visual tokens are [T, h, w, D] with an index and a timestamp a frame, got {shape}, "
                f"{len(self.indices)} indices and {len(self.timestamps_seconds)} timestamps"
            )
