"""A config that contradicts itself cannot be built, and survives being saved."""

import json
from pathlib import Path

import pytest

from sfvqa.errors import CheckpointError
from sfvqa.model import Gating, SlowAttentionScope, SlowFastConfig
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingStrategy
from tests.model.conftest import small_config


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"temporal_stride": 0}, "temporal_stride must be at least 1"),
        ({"min_fast_frames": 0}, "min_fast_frames"),
        ({"hybrid_layers": [0, 3]}, r"hybrid_layers \[3\] lie outside the decoder's 3 layers"),
        ({"slow_attention_scope": "sometimes"}, "text_after_video"),
        ({"gating": "open"}, "dynamic_warm_up"),
        ({"vision_config": {"image_size": 30, "depths": [1], "dims": [8]}}, "no multiple of 4"),
        ({"vision_config": {"image_size": 32, "depths": [1, 1], "dims": [8]}}, "differ in length"),
        ({"vision_config": {"image_size": 32, "depths": [1, 0], "dims": [8, 8]}}, "every stage needs a block"),
        ({"video_pooling_stride": 5}, "exceeds the 4 cells"),
        ({"text_config": {"model_type": "nothing"}}, "'nothing' is unknown"),
        ({"vision_config": {"image_mean": [1]}}, "image_mean needs a number a colour"),
        ({"vision_config": {"image_std": [1, 1, 0]}}, "image_std must be above 0"),
        ({"training_sampling": "often"}, "training_sampling 'often' is unknown"),
        ({"training_sampling": "fps"}, "by fps knowing the number of frames alone"),
        ({"training_crop": "round"}, "training_crop 'round' is unknown"),
        ({"dtype": "float99"}, "float99"),
        ({"dtype": "nn"}, "dtype 'nn'"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_contradictions_are_errors(overrides: dict[str, object], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        small_config(**overrides)


def test_saved_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    training = {"training_num_frames": 32, "training_max_length": 100, "training_crop": "pad"}
    config = small_config(slow_attention_scope="all", training_sampling="keyframes", **training)
    config.save_pretrained(tmp_path)
    again = SlowFastConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.slow_attention_scope is SlowAttentionScope.ALL
    assert again.gating is Gating.DYNAMIC_WARM_UP
    assert (again.training_sampling, again.training_crop) == (SamplingStrategy.KEYFRAMES, CropMode.PAD)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "slow_fast"


def test_visual_tokens_of_the_published_size() -> None:
    """The reference pools those of several frames only."""
    config = SlowFastConfig(text_config={"num_hidden_layers": 28})
    assert [config.grid_side(num_frames) ** 2 for num_frames in (1, 2, 64)] == [324, 81, 81]
