"""A video is read and seen once, whatever the chunks; what the model did not see in full is said."""

import weakref
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from sfvqa.checkpoints import device as devices
from sfvqa.errors import OutOfMemoryError, VideoNotFoundError
from sfvqa.inference import encode, reading_ahead
from sfvqa.inference.encode import (
    ChunkEncoder,
    EncodedVideo,
    EncodeProgress,
    EncodeStage,
    SeeingCosts,
    encode_progressively,
    encoded_from,
    pixel_values,
    see_progressively,
)
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.registry import QuantizationName
from sfvqa.video import CropMode, ReaderName, ReadOptions, SamplingOptions, read_clip
from tests.inference.fake_reader import FakeReader
from tests.inference.steps import run

TEN_FRAMES = SamplingOptions(num_frames=10)


def test_encoding_is_reading_preprocessing_and_the_model(qa: VideoQA, video_path: Path, encoded: EncodedVideo) -> None:
    clip = read_clip(video_path, SamplingOptions(num_frames=8))
    model = qa.checkpoint.model
    with torch.inference_mode():
        expected = model.encode_video(pixel_values(clip.frames, model.config.vision))
    torch.testing.assert_close(encoded.visual_tokens.slow, expected.slow, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.visual_tokens.fast, expected.fast, atol=1e-5, rtol=0)
    assert (encoded.indices, encoded.timestamps_seconds) == (clip.indices, clip.timestamps_seconds)
    assert (encoded.strategy, encoded.reader, encoded.video) == ("uniform", "pyav", clip.video)
    assert encoded.warnings == ()
    assert encoded.read_seconds > 0
    assert 0 < encoded.preprocess_seconds < encoded.encode_seconds


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_the_chunk_size_changes_nothing_but_the_steps(
    qa: VideoQA, video_path: Path, encoded: EncodedVideo, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_ahead, "CHUNK_SIZE", chunk_size)
    steps, again = run(qa.encode_progressively(video_path))
    torch.testing.assert_close(again.visual_tokens.slow, encoded.visual_tokens.slow, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.visual_tokens.fast, encoded.visual_tokens.fast, atol=1e-5, rtol=0)
    assert sum(step.stage is EncodeStage.ENCODE for step in steps) == -(-8 // chunk_size)


@pytest.mark.parametrize("chunk_size", [1, 8])
@pytest.mark.parametrize("reader", [FakeReader(1), FakeReader(3, damaged=(0, 2))], ids=["one", "one left"])
def test_an_only_frame_is_not_pooled(
    qa: VideoQA, reader: FakeReader, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the reference, be it known before that there is one or found out at the end."""
    monkeypatch.setattr(reading_ahead, "CHUNK_SIZE", chunk_size)
    model = qa.checkpoint.model
    picture = np.random.default_rng(reader.info.num_frames // 2).integers(0, 256, (1, 48, 64, 3), np.uint8)
    with torch.inference_mode():
        (expected,) = model.encode_frames([pixel_values(picture, model.config.vision)])
    assert expected.shape[:3] == (1, 4, 4)
    seen, _ = run(see_progressively(model, reader, SamplingOptions(num_frames=8)))[1]
    torch.testing.assert_close(seen.visual_tokens, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk_size", [1, 8])
def test_no_more_than_a_chunk_waits_unpooled(qa: VideoQA, chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpooled the tokens of a long video are four times as many."""
    monkeypatch.setattr(reading_ahead, "CHUNK_SIZE", chunk_size)
    model = qa.checkpoint.model
    pool, made, alive = model.pool, list[weakref.ref[torch.Tensor]](), list[int]()

    def watched(tokens: torch.Tensor) -> torch.Tensor:
        made.append(weakref.ref(tokens))
        alive.append(sum(ref() is not None for ref in made))
        return pool(tokens)

    monkeypatch.setattr(model, "pool", watched)
    seen, _ = run(see_progressively(model, FakeReader(20), SamplingOptions(num_frames=20)))[1]
    assert seen.visual_tokens.shape[:3] == (20, 2, 2)
    assert len(made) == -(-20 // chunk_size)
    assert max(alive) == 1


def test_progress_reaches_all_frames_of_both_stages_in_order(qa: VideoQA, video_path: Path) -> None:
    steps, _ = run(qa.encode_progressively(video_path))
    stages = [step.stage for step in steps]
    assert stages == sorted(stages, key=["read", "encode"].index)
    for stage in (EncodeStage.READ, EncodeStage.ENCODE):  # cuts are looked for only where they are wanted
        done = [step.done for step in steps if step.stage is stage]
        assert done == sorted(done)
        assert done[-1] == 8
    assert {step.total for step in steps} == {8}


def test_what_the_model_was_not_trained_with_is_one_warning(qa: VideoQA, video_path: Path) -> None:
    assert qa.encode(video_path, SamplingOptions(num_frames=8)).warnings == ()
    (warning,) = qa.encode(video_path, SamplingOptions(num_frames=10), crop=CropMode.PAD).warnings
    assert warning == "The model was trained with 8 frames (here 10), the centre crop (here padding)."


def test_asking_for_more_frames_than_there_are_is_said(qa: VideoQA, short_video_path: Path) -> None:
    """Not where nobody asked: a short video has fewer frames than the model was trained with."""
    seen = qa.encode(short_video_path, SamplingOptions(num_frames=100))
    assert seen.warnings == (
        f"100 frames were asked for, but there are only {len(seen.indices)} to choose by uniform sampling.",
    )
    assert qa.encode(short_video_path).warnings == ()


def test_frames_that_reach_no_fast_token_are_named(qa: VideoQA, video_path: Path) -> None:
    _fewer_than_in_training, warning = qa.encode(video_path, SamplingOptions(num_frames=7)).warnings
    assert "holds the last 1 of 7 frames; only slow tokens show it." in warning


def test_another_reader_is_used_and_named(qa: VideoQA, video_path: Path) -> None:
    assert qa.encode(video_path, reading=ReadOptions(ReaderName.OPENCV)).reader == "opencv"


def test_seconds_leave_out_the_caller(qa: VideoQA, video_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow progress bar once looked like slow reading."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slowly(steps: Generator[EncodeProgress, None, EncodedVideo]) -> Generator[EncodeProgress, None, EncodedVideo]:
        while True:
            try:
                yield next(steps)
            except StopIteration as end:
                encoded: EncodedVideo = end.value
                return encoded
            now[0] += 1000.0

    steps = encode_progressively(qa.checkpoint.model, video_path, TEN_FRAMES, chunks_ahead=0)
    encoded = run(slowly(steps))[1]
    assert now[0] > 0
    assert (encoded.read_seconds, encoded.encode_seconds) == (0.0, 0.0)


def test_leaving_early_leaves_the_model_usable(qa: VideoQA, video_path: Path, encoded: EncodedVideo) -> None:
    steps = qa.encode_progressively(video_path)
    next(steps)
    steps.close()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(qa.encode(video_path).visual_tokens.slow, encoded.visual_tokens.slow)


def test_nothing_is_kept_for_a_backward_pass(qa: VideoQA, video_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients on, a long video once held every activation of the vision tower."""
    tower, modes = qa.checkpoint.model.vision_tower, []
    forward: Callable[[torch.Tensor], torch.Tensor] = tower.forward

    def watched(pixel_values: torch.Tensor) -> torch.Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return forward(pixel_values)

    monkeypatch.setattr(tower, "forward", watched)
    qa.encode(video_path)
    assert modes == [True]


def test_a_missing_video_is_a_video_error(qa: VideoQA, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError):
        qa.encode(tmp_path / "nothing.mp4")


@pytest.mark.parametrize(("times_chunks", "expected"), [(False, [0, 0, 0]), (True, [2, 2, 2])])
def test_a_device_is_waited_for_at_the_end_unless_its_times_are_asked_for(
    qa: VideoQA, monkeypatch: pytest.MonkeyPatch, times_chunks: bool, expected: list[int]
) -> None:
    """It was waited for after every chunk, and had nothing to do while the next one was prepared."""
    with torch.device("meta"):
        model = SlowFastForConditionalGeneration(qa.checkpoint.model.config)
    waits = list[torch.device]()
    for module in (encode, devices):
        monkeypatch.setattr(module, "synchronize", waits.append)
    encoder, counts = ChunkEncoder(model, QuantizationName.NONE, times_chunks=times_chunks), list[int]()
    side = model.config.vision.image_size
    for _ in range(3):
        waits.clear()
        encoder.add(np.zeros((3, side, side, 3), np.uint8), 9)
        counts.append(sum(device.type == "meta" for device in waits))
    waits.clear()
    assert encoder.visual_tokens().device.type == "meta"
    assert counts == expected
    assert torch.device("meta") in waits


def run_out(
    qa: VideoQA, monkeypatch: pytest.MonkeyPatch, is_too_much: Callable[[int, int], bool]
) -> tuple[list[int], list[list[int]]]:
    """Let the vision tower run out of memory where `is_too_much` says so of a call and its number of frames.

    Returns how many frames each call got, and whose features were still alive at each of them; both as they come.
    """
    tower = qa.checkpoint.model.vision_tower
    forward: Callable[[torch.Tensor], torch.Tensor] = tower.forward
    sizes, alive = list[int](), list[list[int]]()
    made = list[weakref.ref[torch.Tensor]]()

    def limited(pixel_values: torch.Tensor) -> torch.Tensor:
        alive.append([call for call, ref in enumerate(made) if ref() is not None])
        sizes.append(len(pixel_values))
        features = forward(pixel_values)
        made.append(weakref.ref(features))
        if is_too_much(len(sizes), len(pixel_values)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features

    monkeypatch.setattr(tower, "forward", limited)
    return sizes, alive


@pytest.mark.parametrize("chunks_ahead", [0, 2])
def test_the_chunk_that_memory_runs_out_with_is_tried_again_with_fewer_frames_at_a_time(
    qa: VideoQA, monkeypatch: pytest.MonkeyPatch, chunks_ahead: int
) -> None:
    """That chunk and those after it; nothing is read again, and what the first try made is freed before the second."""
    model, sampling = qa.checkpoint.model, SamplingOptions(num_frames=35)
    expected = run(encode_progressively(model, FakeReader(35), sampling))[1]
    sizes, alive = run_out(qa, monkeypatch, lambda call, _: call == 3)
    reader = FakeReader(35)
    steps, again = run(encode_progressively(model, reader, sampling, chunks_ahead=chunks_ahead))
    assert sizes == [8, 8, 8] + [1] * 19
    assert reader.num_given == 35
    assert alive[:4] == [[]] * 4
    torch.testing.assert_close(again.visual_tokens.slow, expected.visual_tokens.slow, atol=1e-5, rtol=0)
    assert again.warnings[0] == "Memory ran out with 8 frames in the vision tower; they were encoded 1 at a time."
    assert again.warnings[1:] == expected.warnings
    assert [step.done for step in steps if step.stage is EncodeStage.ENCODE] == [8, 16, 24, 32, 35]


def test_that_memory_ran_out_is_about_the_run_and_not_the_video(qa: VideoQA, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(qa, monkeypatch, lambda _, num_frames: num_frames > 1)
    seen, costs = run(see_progressively(qa.checkpoint.model, FakeReader(8), SamplingOptions(num_frames=8)))[1]
    assert seen.warnings == ()
    assert len(costs.warnings) == 1


@pytest.mark.parametrize("only", [8, 1])
def test_running_out_of_memory_again_names_what_should_fit(
    qa: VideoQA, video_path: Path, monkeypatch: pytest.MonkeyPatch, only: int
) -> None:
    """A chunk of one frame gets its second try too: what was kept of freed tensors is given back before it."""
    sizes, _ = run_out(qa, monkeypatch, lambda *_: True)
    monkeypatch.setattr(encode, "free_memory_bytes", lambda _device: 10**9)
    with pytest.raises(OutOfMemoryError, match="encoding the frames") as caught:
        qa.encode(video_path, SamplingOptions(num_frames=only))
    assert sizes == [only, 1]
    assert "--quant 8bit should fit" in caught.value.remedy
    assert caught.value.exit_code == 5


def test_memory_is_given_back_between_the_two_tries(
    qa: VideoQA, video_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, _ = run_out(qa, monkeypatch, lambda call, _: call == 1)
    released = []
    monkeypatch.setattr(encode, "release_memory", lambda _device: released.append(len(sizes)))
    qa.encode(video_path)
    assert released == [1]


def test_what_was_seen_can_be_split_by_itself(qa: VideoQA, video_path: Path) -> None:
    """As a stored one is: the same tokens and warnings, at no cost but that of the split."""
    model, trained = qa.checkpoint.model, qa.trained_with
    sampling = SamplingOptions(num_frames=7)
    whole = qa.encode(video_path, sampling)
    seen, costs = run(see_progressively(model, video_path, sampling))[1]
    assert (seen.indices, seen.timestamps_seconds, seen.num_missing) == (whole.indices, whole.timestamps_seconds, 0)
    assert (seen.strategy, seen.reader, seen.crop, seen.video) == ("uniform", "pyav", whole.crop, whole.video)
    assert (seen.warnings, costs.warnings) == ((), ())
    split = encoded_from(seen, model, sampling, trained)
    assert torch.equal(split.visual_tokens.slow, whole.visual_tokens.slow)
    assert torch.equal(split.visual_tokens.fast, whole.visual_tokens.fast)
    assert split.warnings == whole.warnings
    assert len(split.warnings) == 2
    assert (split.read_seconds, split.overlap_seconds) == (0.0, 0.0)
    paid = encoded_from(seen, model, sampling, trained, SeeingCosts(1.0, 2.0, 0.5, ("It took long.",)))
    assert (paid.read_seconds, paid.overlap_seconds) == (1.0, 0.5)
    assert 2.0 < paid.encode_seconds < 2.5
    assert paid.warnings == ("It took long.", *whole.warnings)


def test_frames_that_are_missing_count_as_asked_for(qa: VideoQA) -> None:
    """The model was trained with 8, and 8 were chosen."""
    reader = FakeReader(8, damaged=(2,))
    warnings = qa.encode(reader, SamplingOptions(num_frames=8)).warnings
    assert [warning for warning in warnings if "trained" in warning] == []
    seen, _ = run(see_progressively(qa.checkpoint.model, reader, SamplingOptions(num_frames=8)))[1]
    assert (seen.num_missing, len(seen.indices)) == (1, 7)


def test_without_a_number_of_training_frames_there_is_nothing_to_warn_of(qa: VideoQA, video_path: Path) -> None:
    encoded = run(encode_progressively(qa.checkpoint.model, video_path, TEN_FRAMES, trained_with=None))[1]
    assert encoded.video.num_frames == 20
    assert encoded.warnings == ()
