"""A frozen tower looks at a video once, and no loss shows it."""

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


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flash_videos(tmp_path_factory.mktemp("videos") / "v", NUM_VIDEOS, seed=0)[0]


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


@pytest.mark.parametrize("family", ["slowfast", "llava_onevision", "smolvlm"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{"stage": Stage.BRIDGE}, {"freeze_vision": True}], ids=["bridge", "frozen eyes"])
def test_a_video_is_looked_at_once_and_no_loss_changes(
    models: dict[str, Path],
    videos: Path,
    tmp_path: Path,
    looks: list[int],
    family: str,
    precision: str,
    options: dict[str, Any],
) -> None:
    uniform = SamplingStrategy.UNIFORM
    chosen = replace(EPOCHS, num_frames=NUM_FRAMES, sampling=uniform, precision=precision, num_workers=1, **options)
    runs = {}
    for name, gigabytes in (("kept", 10.0), ("anew", 0.0)):
        looks.clear()
        fine_tune(models[family], videos, videos.parent, tmp_path / name, replace(chosen, cache_gigabytes=gigabytes))
        runs[name] = (losses(tmp_path / name), sum(looks))
        assert not (tmp_path / name / "kept-videos").exists()
    assert len(runs["kept"][0]) == 9
    assert runs["kept"][0] == runs["anew"][0]
    probe = 2
    assert runs["anew"][1] == 3 * NUM_VIDEOS * NUM_FRAMES
    assert runs["kept"][1] <= NUM_VIDEOS * NUM_FRAMES + probe + 2 * 2 * NUM_FRAMES  # some are read ahead meanwhile
