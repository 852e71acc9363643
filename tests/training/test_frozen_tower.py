"""A frozen tower looks at a video once, and no loss shows it."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.training.convert import add_slow_path
from sfvqa.training.finetune import fine_tune
from sfvqa.training.options import FineTuning, Stage
from sfvqa.video.sampling import SamplingStrategy
from tests.model.families.published import save_whole
from tests.training.flash_videos import NUM_FRAMES, write_flash_videos
from tests.training.test_finetuning import losses, make_converted

EPOCHS = FineTuning(num_epochs=3, batch_size=2, learning_rate=1e-2, log_every=1, save_every=2, device="cpu")
NUM_VIDEOS = 5
NUM_PROBED = 2  # black frames, to learn what one takes


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    annotations, entries = write_flash_videos(tmp_path_factory.mktemp("videos") / "v", NUM_VIDEOS, seed=0)
    entries.append({"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]})
    annotations.write_text(json.dumps(entries))
    return annotations


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {"slowfast": make_converted(folder, "llama", hidden_size=32, intermediate_size=48)}
    for family in ("llava_onevision", "smolvlm"):
        save_whole(family, folder / f"plain-{family}")
        add_slow_path(folder / f"plain-{family}", folder / family, num_fast_frames=2, num_slow_frames=NUM_FRAMES)
        made[family] = folder / family
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames the tower looked at, call by call."""
    counted, features = list[int](), SlowFastForConditionalGeneration.features

    def counting(self: SlowFastForConditionalGeneration, chunks: Any) -> Any:
        def each() -> Any:
            for pixels in chunks:
                counted.append(len(pixels))
                yield pixels

        return features(self, each())

    monkeypatch.setattr(SlowFastForConditionalGeneration, "features", counting)
    return counted


def train(model: Path, videos: Path, run: Path, **options: Any) -> list[float]:
    uniform = SamplingStrategy.UNIFORM
    chosen = replace(EPOCHS, num_frames=NUM_FRAMES, sampling=uniform, **options)
    fine_tune(model, videos, videos.parent, run, chosen)
    return losses(run)


WAYS: list[tuple[str, str, dict[str, Any]]] = [
    (family, precision, options)
    for family in ("slowfast", "llava_onevision", "smolvlm")
    for precision in ("float32", "bfloat16")
    for options in ({"stage": Stage.BRIDGE}, {"freeze_vision": True})
]
ALWAYS = (WAYS[0], WAYS[8])  # features, visual tokens


@pytest.mark.parametrize(
    ("family", "precision", "options"),
    [
        pytest.param(*way, marks=[] if way in ALWAYS else pytest.mark.slow, id=f"{number}")
        for number, way in enumerate(WAYS)
    ],
)
def test_a_video_is_looked_at_once_and_no_loss_changes(
    models: dict[str, Path],
    videos: Path,
    tmp_path: Path,
    looks: list[int],
    family: str,
    precision: str,
    options: dict[str, Any],
) -> None:
    kept = train(models[family], videos, tmp_path / "kept", precision=precision, **options)
    seen_once, looks[:] = sum(looks), []
    anew = train(models[family], videos, tmp_path / "anew", precision=precision, cache_gigabytes=0.0, **options)
    assert len(kept) == 9
    assert kept == anew
    assert sum(looks) == 3 * NUM_VIDEOS * NUM_FRAMES
    assert seen_once == NUM_VIDEOS * NUM_FRAMES + NUM_PROBED
    assert not (tmp_path / "kept" / "kept-videos").exists()


def test_a_tower_that_learns_is_run_each_time(
    models: dict[str, Path], videos: Path, tmp_path: Path, looks: list[int]
) -> None:
    train(models["slowfast"], videos, tmp_path / "run")
    assert sum(looks) == 3 * NUM_VIDEOS * NUM_FRAMES


@pytest.mark.slow
def test_processes_that_read_ahead_share_what_is_kept(
    models: dict[str, Path], videos: Path, tmp_path: Path, looks: list[int]
) -> None:
    """Of the first epoch some may be read before others are kept."""
    one = train(models["slowfast"], videos, tmp_path / "one", stage=Stage.BRIDGE)
    looks.clear()
    assert train(models["slowfast"], videos, tmp_path / "two", stage=Stage.BRIDGE, num_workers=2) == one
    assert sum(looks) == NUM_VIDEOS * NUM_FRAMES + NUM_PROBED


def test_what_does_not_fit_is_looked_at_each_time_and_said(
    models: dict[str, Path], videos: Path, tmp_path: Path, looks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    model = models["slowfast"]
    with caplog.at_level(logging.INFO):
        whole = train(model, videos, tmp_path / "whole", stage=Stage.BRIDGE)
    said = re.search(
        r"what it makes of 5 videos is kept in .*kept-videos and takes ([\d.]+) kB; the limit is 10.0 GB", caplog.text
    )
    assert said is not None
    a_video = float(said[1]) / 5 * 1e-6
    looks.clear()
    with caplog.at_level(logging.INFO):
        assert train(model, videos, tmp_path / "two", stage=Stage.BRIDGE, cache_gigabytes=2.5 * a_video) == whole
    assert "of 2 of 5 videos is kept" in caplog.text
    assert "raise --cache-gigabytes" in caplog.text
    assert sum(looks) == (2 + 3 * 3) * NUM_FRAMES + NUM_PROBED


@pytest.mark.slow
def test_a_folder_serves_further_runs_and_what_is_damaged_in_it_is_made_anew(
    models: dict[str, Path], videos: Path, tmp_path: Path, looks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def again(name: str, **more: Any) -> list[float]:
        looks.clear()
        return train(models["slowfast"], videos, tmp_path / name, stage=Stage.BRIDGE, cache=tmp_path / "kept", **more)

    first = again("first")
    assert again("second") == first
    assert sum(looks) == NUM_PROBED
    again("other rate", learning_rate=1e-3)
    assert sum(looks) == NUM_PROBED
    entry = sorted((tmp_path / "kept").glob("*.safetensors"))[0]
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    assert again("damaged") == first
    assert "is damaged, and was removed" in caplog.text
    assert sum(looks) == NUM_FRAMES + NUM_PROBED
    again("other precision", precision="bfloat16")
    assert sum(looks) == NUM_VIDEOS * NUM_FRAMES + NUM_PROBED
