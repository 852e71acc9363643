"""Whatever decides how a video is seen changes the name its entry is kept under."""

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import sfvqa
from sfvqa.inference.video_cache import entry as module
from sfvqa.inference.video_cache.entry import PREPROCESSING_VERSION, EncodingKey, library_versions
from sfvqa.video import CropMode, FitSquare, ReaderName, SamplingOptions, SamplingStrategy, read_clip
from tests.inference.video_cache.seen import key_of

OTHER: dict[str, Any] = {
    "content": "sampled:0",
    "crop": CropMode.PAD,
    "reader": ReaderName.PYAV,
    "checkpoint": "tiny@1",
    "dtype": "bfloat16",
    "device_kind": "cuda",
    "preprocessing_version": module.PREPROCESSING_VERSION + 1,
    "libraries": {**library_versions(), "av": "0"},
}
SAMPLING = {
    "num_frames": SamplingOptions(num_frames=3),
    "strategy": SamplingOptions(num_frames=2, strategy=SamplingStrategy.SCENE),
    "fps": SamplingOptions(num_frames=2, strategy=SamplingStrategy.FPS, fps=2.0),
    "timestamps_seconds": SamplingOptions(2, SamplingStrategy.TIMESTAMPS, timestamps_seconds=(1.0, 2.0)),
    "start_seconds": SamplingOptions(num_frames=2, start_seconds=1.0),
    "end_seconds": SamplingOptions(num_frames=2, end_seconds=1.0),
}
"""What is changed of the sampling, by name: some fields bring another strategy with them."""


@pytest.mark.parametrize("name", sorted({field.name for field in fields(EncodingKey)} - {"sampling"}))
def test_every_field_changes_the_digest(name: str) -> None:
    """A field that is added fails here until it has another value to try."""
    assert replace(key_of(), **{name: OTHER[name]}).digest != key_of().digest


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingOptions)])
def test_every_field_of_the_sampling_changes_the_digest(name: str) -> None:
    assert replace(key_of(), sampling=SAMPLING[name]).digest != key_of().digest


def test_rates_and_times_change_the_digest_among_themselves() -> None:
    rates = [SamplingOptions(2, SamplingStrategy.FPS, fps=fps) for fps in (1.0, 2.0)]
    times = [SamplingOptions(2, SamplingStrategy.TIMESTAMPS, timestamps_seconds=(1.0, end)) for end in (2.0, 3.0)]
    keys = [replace(key_of(), sampling=sampling) for sampling in (*rates, *times, *SAMPLING.values())]
    assert len({key.digest for key in keys}) == len(keys) - 2, "two of SAMPLING are among the others"


def test_equal_keys_have_one_digest_and_its_form_is_that_of_a_file_name() -> None:
    assert key_of().digest == key_of().digest
    assert len({key_of(), key_of()}) == 1
    assert len(key_of().digest) == 64
    assert set(key_of().digest) <= set("0123456789abcdef")


def test_the_order_of_libraries_does_not_matter() -> None:
    backwards = dict(reversed(library_versions().items()))
    assert replace(key_of(), libraries=backwards).digest == key_of().digest


def test_libraries_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import av
    import torch

    versions = library_versions()
    assert versions["torch"] in torch.__version__  # which names the build, too
    assert versions["av"] == av.__version__
    monkeypatch.setattr(module, "_LIBRARIES", ("no-such-library",))
    assert library_versions() == {"no-such-library": "none"}


def test_pixels_are_those_of_this_version_of_the_preprocessing() -> None:
    """Where this fails for any reason but another library, PREPROCESSING_VERSION has to be raised, and then this."""
    path = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
    clip = read_clip(path, SamplingOptions(num_frames=5), fit=FitSquare(64, CropMode.CENTER))
    digest = hashlib.sha256(clip.frames.tobytes()).hexdigest()[:16]
    assert (PREPROCESSING_VERSION, digest) == (2, "f9d9e0c7d5794862")
