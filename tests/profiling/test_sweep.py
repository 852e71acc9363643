"""Rounds take all numbers of frames in turn, warm-up counts for nothing, and what comes out is medians."""

from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.cli.demo import load_demo_videos
from sfvqa.errors import UsageError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.profiling import sweep as sweeping
from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.measuring import Run, Seen, Work, measure_run, see
from sfvqa.profiling.profile import Profile, Spread
from sfvqa.profiling.sweep import SweepOptions, SweepProgress, SweepStage, sweep
from sfvqa.training.convert import add_slow_path
from sfvqa.video.readers import ReadOptions
from tests.inference.steps import run as drain
from tests.model.families.published import FAMILIES, save_whole

VIDEO = Path(load_demo_videos()[0].path)


def _sweep(options: SweepOptions) -> tuple[list[SweepProgress], Profile]:
    qa = VideoQA.load("tiny", device="cpu")
    return drain(sweep(qa.checkpoint, VIDEO, Work("What flashes?", 2, ReadOptions(), qa.default_crop), options))


def test_rounds_go_up_and_down_and_the_first_is_for_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    prefills = iter([99.0, 99.0, *(1.0, 10.0), *(30.0, 3.0), *(2.0, 20.0)])

    def measure(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work, seen: Seen | None) -> Run:
        assert seen is None
        order.append(num_frames)
        run = measure_run(checkpoint, video, num_frames, work)
        return replace(run, figures=replace(run.figures, prefill_seconds=next(prefills)))

    monkeypatch.setattr(sweeping, "measure_run", measure)
    steps, profile = _sweep(SweepOptions((8, 16)))
    assert order == [8, 16, 8, 16, 16, 8, 8, 16]
    assert [point.spreads["prefill_seconds"] for point in profile.points] == [
        Spread(2.0, 1.0, 3.0, 3),
        Spread(20.0, 10.0, 30.0, 3),
    ]
    last = {step.stage: step for step in steps}
    assert (last[SweepStage.WARM_UP].done, last[SweepStage.MEASURE].done) == (24, 72)
    assert all(step.done == step.total for step in last.values())


def test_a_profile_has_counts_baselines_and_ratios() -> None:
    _, profile = _sweep(SweepOptions((8, 64), num_repeats=2, num_warmups=0, baselines=True))
    few, many = profile.points
    assert (few.num_fast_tokens, many.num_fast_tokens, many.num_slow_tokens) == (64, 64, 1024)
    assert few.num_prompt_tokens == many.num_prompt_tokens
    assert all(point.flops_counted == point.flops for point in profile.points)
    assert profile.baselines is not None
    found = [(of.baseline, of.num_frames) for of in profile.baselines]
    assert found == [
        (Baseline.ALL_IN_SELF_ATTENTION, 8),
        (Baseline.ALL_IN_SELF_ATTENTION, 64),
        (Baseline.SELF_ATTENTION_ONLY, 4),
        (Baseline.SLOW_RECOMPUTED, 8),
        (Baseline.SLOW_RECOMPUTED, 64),
    ]
    assert profile.baselines[2].prefill_flops == profile.prefill_flops_self_attention_only
    assert profile.baselines[1].prefill_flops == many.prefill_flops_all_in_self_attention
    ratios = {(ratio.baseline, ratio.num_frames): ratio for ratio in profile.ratios()}
    assert len(ratios) == 6
    everything = ratios[Baseline.ALL_IN_SELF_ATTENTION, 64]
    assert everything.prefill_flops > 5
    expected = profile.baselines[1].spreads["prefill_seconds"].median / many.median("prefill_seconds")
    assert everything.prefill == expected
    document = profile.to_dict()
    assert document["schema_version"] == 1
    assert profile.settings["video"] == str(VIDEO)


def test_what_was_seen_once_is_asked_about_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work) -> Seen:
        looked.append(num_frames)
        return see(checkpoint, video, num_frames, work)

    monkeypatch.setattr("sfvqa.profiling.measuring.see", look)
    monkeypatch.setattr(sweeping, "see", look)
    _, profile = _sweep(SweepOptions((8, 16), num_repeats=2, num_warmups=1, baselines=True, encode_once=True))
    assert looked == [8, 16, 4]
    of_seeing, of_asking = ("read_seconds", "vision_tower_seconds"), ("prefill_seconds", "decode_seconds_per_token")
    for point in profile.points:
        assert all(point.spreads[name].num_repeats == 2 for name in (*of_seeing, *of_asking))
        assert all(point.spreads[name].noise == 0 for name in of_seeing)
        assert all(point.spreads[name].noise for name in of_asking)
    assert profile.settings["encode_once"] is True


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_video_model_is_measured_with_its_base_beside_it(family: str, tmp_path: Path) -> None:
    """Fast frames are its base's own tokens of some frames, and in the baselines of all, laid out as the base does."""
    save_whole(family, tmp_path / "base")
    add_slow_path(tmp_path / "base", tmp_path / "ours", num_fast_frames=4, num_slow_frames=16)
    base, ours = (VideoQA.load(tmp_path / name, device="cpu") for name in ("base", "ours"))
    profiles = {}
    for qa, counts, baselines in ((base, (4, 16), False), (ours, (8, 16), True)):
        work = Work("What flashes?", 2, ReadOptions(), qa.default_crop)
        options = SweepOptions(counts, num_repeats=1, num_warmups=0, baselines=baselines)
        profiles[qa] = drain(sweep(qa.checkpoint, VIDEO, work, options))[1]
    plain = {point.num_frames: point for point in profiles[base].points}
    assert plain[16].num_fast_tokens > 3 * plain[4].num_fast_tokens
    lengths = {of.baseline: of.num_prompt_tokens for of in profiles[ours].baselines or () if of.num_frames in (4, 16)}
    assert lengths == {
        Baseline.SELF_ATTENTION_ONLY: plain[4].num_prompt_tokens,
        Baseline.ALL_IN_SELF_ATTENTION: plain[16].num_prompt_tokens,
        Baseline.SLOW_RECOMPUTED: plain[4].num_prompt_tokens,
    }
    for point in (*profiles[base].points, *profiles[ours].points):
        assert point.flops_counted == point.flops
    assert {point.num_fast_tokens for point in profiles[ours].points} == {plain[4].num_fast_tokens}


def test_one_frame_is_measured_as_it_is_seen() -> None:
    """Unpooled it has more tokens than two; the formula says of it what torch counts."""
    _, profile = _sweep(SweepOptions((1, 2), num_repeats=1, num_warmups=0, baselines=True))
    assert [(point.num_fast_tokens, point.num_slow_tokens) for point in profile.points] == [(64, 64), (32, 32)]
    assert all(point.flops_counted == point.flops for point in profile.points)
    assert profile.baselines is not None
    everything = [of.prefill_flops for of in profile.baselines if of.baseline is Baseline.ALL_IN_SELF_ATTENTION]
    assert everything == [point.prefill_flops_all_in_self_attention for point in profile.points]


def test_of_quantized_weights_nothing_is_counted() -> None:
    """torch knows no product of theirs, and half a count would be a wrong one."""
    qa = VideoQA.load("tiny", device="cpu", quantization="4bit")
    work = Work("What flashes?", 2, ReadOptions(), qa.default_crop)
    _, profile = drain(sweep(qa.checkpoint, VIDEO, work, SweepOptions((8,), num_repeats=1, num_warmups=0)))
    assert profile.points[0].flops_counted is None
    assert profile.points[0].flops.prefill > 0
    assert profile.model["quantization"] == "4bit"


@pytest.mark.parametrize(("counts", "repeats"), [((), 3), ((8,), 0), ((0, 8), 1)])
def test_nothing_to_measure_is_refused(counts: tuple[int, ...], repeats: int) -> None:
    with pytest.raises(UsageError):
        SweepOptions(counts, num_repeats=repeats)
