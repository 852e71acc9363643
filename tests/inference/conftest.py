"""A small checkpoint with random weights in both formats, loaded once, and two short videos."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.video_qa import VideoQA
from tests.inference.small_checkpoint import write_checkpoint, write_reference_checkpoint


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "ours")


@pytest.fixture(scope="session")
def reference_folder(checkpoint_folder: Path) -> Path:
    return write_reference_checkpoint(checkpoint_folder.parent / "reference", checkpoint_folder)


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder: Path) -> LoadedCheckpoint:
    return load_checkpoint(ModelSettings(checkpoint_folder, device="cpu"))


@pytest.fixture(scope="session")
def qa(checkpoint: LoadedCheckpoint) -> VideoQA:
    return VideoQA(checkpoint)


@pytest.fixture(scope="session")
def video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 64×48, a bright bar that wanders over a coloured ground."""
    return write_video(tmp_path_factory.mktemp("videos") / "bar.mp4", num_frames=20, colour=(40, 80, 160))


@pytest.fixture(scope="session")
def short_video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "short.mp4", num_frames=3, colour=(200, 30, 30))


@pytest.fixture(scope="session")
def encoded(qa: VideoQA, video_path: Path) -> EncodedVideo:
    return qa.encode(video_path)


@pytest.fixture(scope="session")
def encoded_short(qa: VideoQA, short_video_path: Path) -> EncodedVideo:
    return qa.encode(short_video_path)


def write_video(path: Path, *, num_frames: int, colour: tuple[int, int, int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 10)
        for number in range(num_frames):
            picture = np.full((48, 64, 3), colour, dtype=np.uint8)
            picture[:, number * 3 : number * 3 + 6] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
