"""What a worker does before its first video: the model that was meant, and as much of the machine as is its own."""

from dataclasses import replace

import pytest

from sfvqa.batch.cluster.connection import Resources
from sfvqa.batch.cluster.worker import ModelLoader
from sfvqa.batch.plan import BatchModel, BatchOptions
from sfvqa.checkpoints.find import ModelSettings, identify_model
from sfvqa.errors import ModelError, OutOfMemoryError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import ReadOptions

CPU_WORKER = Resources(num_cpus=8, num_gpus=0)
ASKED = BatchModel(
    settings=ModelSettings("tiny"),
    fewer_frames=False,
    num_text_tokens=50,
    batch_size=None,
    num_questions=5,
    num_videos=5,
)


@pytest.fixture
def loader() -> ModelLoader:
    return ModelLoader(ASKED, identify_model("tiny", random_weights=False), lambda: None, None)


def test_other_weights_are_refused(loader: ModelLoader) -> None:
    """Under the same name, on a node that was not kept up to date."""
    with pytest.raises(ModelError, match=r"The weights of tiny .*not these"):
        replace(loader, weights="not these")(BatchOptions(), CPU_WORKER)


def test_what_was_left_open_is_decided_by_the_worker(loader: ModelLoader) -> None:
    loaded = replace(loader, open_cache=VideoCache)(BatchOptions(max_failures=1), CPU_WORKER)
    assert isinstance(loaded.answerer, VideoQA)
    assert str(loaded.answerer.checkpoint.device_names) == "cpu"  # a GPU would be for Ray to give
    options = loaded.options
    assert (options.batch_size, options.num_readers, options.reading.num_threads) == (5, 4, 2)
    assert loaded.answerer.video_cache is not None
    assert options.content_of == loaded.answerer.video_cache.content_of


def test_what_was_asked_for_stays(loader: ModelLoader) -> None:
    asked = replace(ASKED, batch_size=2)
    options = BatchOptions(reading=ReadOptions(num_threads=3))
    loaded = replace(loader, model=asked, num_readers=7)(options, CPU_WORKER)
    assert (loaded.options.batch_size, loaded.options.num_readers, loaded.options.reading.num_threads) == (2, 7, 3)
    assert isinstance(loaded.answerer, VideoQA)
    assert loaded.answerer.video_cache is None


def test_what_cannot_fit_is_not_tried_unless_it_was_asked_for(
    loader: ModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.checkpoints.plan.free_memory_bytes", lambda _: 1000)
    large = replace(ASKED, settings=ModelSettings("slowfast-7b-64f", random_weights=True))
    weights = identify_model("slowfast-7b-64f", random_weights=True)
    with pytest.raises(OutOfMemoryError, match=r"slowfast-7b-64f .* needs about"):
        replace(loader, model=large, weights=weights)(BatchOptions(), CPU_WORKER)
    assert any("needs about" in notice for notice in loader(BatchOptions(), CPU_WORKER).notices)
