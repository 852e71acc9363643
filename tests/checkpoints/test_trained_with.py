"""How a model looked at videos in training: found without weights, and what departs from it is said."""

import json
import shutil
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import find
from sfvqa.checkpoints.known import DEFAULT_NUM_FRAMES, TrainedWith, expected_fit, read_trained_with
from sfvqa.checkpoints.plan import config_of
from sfvqa.errors import CheckpointError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import load_registry
from sfvqa.video import CropMode, SamplingOptions, SamplingStrategy

TRAINED = TrainedWith(32)
UNIFORM = SamplingOptions(32)


def test_a_registered_model_need_not_be_downloaded() -> None:
    assert read_trained_with(find("slowfast-7b-96f")).sampling == SamplingOptions(96)


def test_every_registered_model_names_a_strategy_and_a_crop_that_exist() -> None:
    for spec in load_registry():
        assert read_trained_with(spec).num_frames == spec.num_frames


@pytest.mark.parametrize(
    ("fields", "num_frames"),
    [({"training_num_frames": 8}, 8), ({"mm_training_video_frames": 96}, 96), ({}, None), ([], None)],
)
def test_a_folder_is_asked_for_its_config_alone(fields: object, num_frames: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    trained = read_trained_with(tmp_path)
    assert trained == TrainedWith(num_frames)
    assert trained.sampling.num_frames == (num_frames or DEFAULT_NUM_FRAMES)


def test_a_folder_says_the_same_loaded_and_unloaded(qa: VideoQA, tmp_path: Path) -> None:
    """All of it: a model fine-tuned on padded keyframes was once asked about a uniform centre crop, without a word."""
    assert read_trained_with(qa.checkpoint.location.folder) == qa.trained_with
    shutil.copytree(qa.checkpoint.location.folder, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(fields | {"training_sampling": "keyframes", "training_crop": "pad"}), encoding="utf-8")
    other = VideoQA.load(tmp_path / "other", device="cpu")
    assert read_trained_with(tmp_path / "other") == other.trained_with
    assert other.trained_with == TrainedWith(qa.trained_with.num_frames, SamplingStrategy.KEYFRAMES, CropMode.PAD)
    assert (other.default_sampling.strategy, other.default_crop) == (SamplingStrategy.KEYFRAMES, CropMode.PAD)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[" * 100_000,
        '{"training_num_frames": 0}',
        '{"training_num_frames": "many"}',
        '{"training_sampling": "often"}',
        '{"training_sampling": "fps"}',
        '{"training_sampling": []}',
        '{"training_crop": "round"}',
    ],
)
def test_a_folder_that_does_not_say_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_trained_with(tmp_path)


@pytest.mark.parametrize(
    ("asked", "num_chosen", "crop", "says"),
    [
        (UNIFORM, 32, CropMode.CENTER, None),
        (UNIFORM, 5, CropMode.CENTER, None),
        (SamplingOptions(64), 20, CropMode.CENTER, None),
        (SamplingOptions(64), 64, CropMode.CENTER, "32 frames (here 64)."),
        (SamplingOptions(8), 8, CropMode.CENTER, "32 frames (here 8)."),
        (UNIFORM, 32, CropMode.SQUASH, "the centre crop (here squashing)."),
        (
            SamplingOptions(32, SamplingStrategy.KEYFRAMES),
            9,
            CropMode.CENTER,
            "32 frames (here 9), uniform sampling (here keyframes).",
        ),
        (SamplingOptions(32, SamplingStrategy.REFERENCE_DEMO), 32, CropMode.CENTER, None),
        (
            SamplingOptions(64, SamplingStrategy.TIMESTAMPS, timestamps_seconds=(1.0, 2.0)),
            2,
            CropMode.PAD,
            "32 frames (here 2), uniform sampling (here timestamps), the centre crop (here padding).",
        ),
    ],
)
def test_departures(asked: SamplingOptions, num_chosen: int, crop: CropMode, says: str | None) -> None:
    departure = TRAINED.departure(asked, num_chosen, crop)
    assert departure == (says and f"The model was trained with {says}")


def test_nothing_departs_from_what_nobody_wrote_down() -> None:
    assert TrainedWith(None).departure(SamplingOptions(500), 500, CropMode.CENTER) is None


def test_models_toml_says_what_is_done_to_frames_as_the_config_does() -> None:
    """Or nothing: frames that are read while torch is imported would be read for nothing."""
    for spec in load_registry():
        config = config_of(spec)
        for crop in CropMode:
            expected = expected_fit(spec, crop)
            assert expected in (None, config.family.fit(config.vision, crop)), (spec.name, crop)
            assert (expected is None) == (config.family.name == "smolvlm" and crop is CropMode.SQUASH)
