"""A slow path learns what no fast frame shows, for each family, in small; and the parts of that experiment."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfvqa.inference import VideoQA
from sfvqa.inference.prompt import layout_of
from sfvqa.lab import slow_path
from sfvqa.lab.comparison.items import render
from sfvqa.lab.slow_path import BETWEEN, SHOWN, Settings, draw_scene, main, measure
from sfvqa.model.visual_tokens import fast_frame_places
from sfvqa.video.readers import ReadOptions

FAMILIES = ("llava_onevision", "smolvlm")
SMALLEST = Settings(
    "", still_steps=1, base_steps=2, scenes_per_step=2, num_videos=2, num_steps=2, rows_per_step=2, num_tests=2
)
SMALL = Settings(
    "", still_steps=150, base_steps=220, hybrid_layers=(0, 1, 2, 3), num_videos=100, num_steps=60, num_tests=30
)
MORE: dict[str, dict[str, Any]] = {"llava_onevision": {}, "smolvlm": {"base_steps": 450, "num_steps": 100}}
"""What the family takes to learn the flash: that of SmolVLM reads frames through the words between them, too."""


def test_fast_frames_show_nothing_of_a_flash_between_them() -> None:
    scene = draw_scene(np.random.default_rng(0), BETWEEN)
    without = replace(scene, flash=None)
    times = scene.timeline.seconds
    is_other = (render(scene, 32, times) != render(without, 32, times)).any(axis=(1, 2, 3))
    assert is_other.sum() == 1
    assert not is_other[list(SHOWN)].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_is_asked_as_it_was_taught_and_every_moment_is_seen(family: str, tmp_path: Path) -> None:
    outcome = measure(replace(SMALLEST, family=family), tmp_path)
    assert (outcome.num_videos, outcome.num_others, outcome.changed_elsewhere) == (2, 6, [])
    assert outcome.num_learned > 0
    qa = VideoQA.load(tmp_path / "run-0-2" / "checkpoint", device="cpu")
    seen, config = (
        qa.encode(tmp_path / "testing" / "0.mp4", reading=ReadOptions(isolated=False)),
        qa.checkpoint.model.config,
    )
    assert seen.indices == tuple(range(slow_path.SLOW_FRAMES))
    assert fast_frame_places(len(seen.indices), config) == list(SHOWN)
    num_fast = slow_path.FAST_FRAMES * slow_path.TOKENS_PER_FRAME + config.family.num_behind_video
    assert len(seen.visual_tokens.fast) == num_fast
    asked = layout_of(num_fast, seen.timestamps_seconds, seen.video.duration_seconds, config)
    assert asked == config.family.lay_out(num_fast, tuple(SHOWN), slow_path.SLOW_FRAMES)


def test_the_command_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slow_path, "Settings", lambda family: replace(SMALLEST, family=family))
    arguments = ["--family", "llava_onevision", "--run", str(tmp_path / "run"), "--json", str(tmp_path / "it.json")]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(slow_path, "are_right", stop)
        with pytest.raises(KeyboardInterrupt):
            main(arguments)
    monkeypatch.setattr(slow_path, "fine_tune", stop)  # is done already
    main(arguments)
    assert "| llava_onevision |" in capsys.readouterr().out
    assert json.loads((tmp_path / "it.json").read_text())["outcome"]["num_videos"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava_onevision", pytest.param("smolvlm", marks=pytest.mark.soak)])
def test_the_slow_path_learns_the_flash_and_other_answers_stay(family: str, tmp_path: Path) -> None:
    outcome = measure(replace(SMALL, family=family, **MORE[family]), tmp_path)
    print(outcome)  # noqa: T201
    assert outcome.flash_before <= 15
    assert outcome.flash_after >= 24
    assert outcome.num_kept >= 0.95 * outcome.num_known > 45
    assert not outcome.changed_elsewhere
