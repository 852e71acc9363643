"""A profile of figures that nobody measured, for tests of what is done with one."""

from dataclasses import fields

from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.floors import DeviceRates
from sfvqa.profiling.measuring import Figures
from sfvqa.profiling.profile import BaselinePoint, Device, Profile, ProfilePoint, Spread
from sfvqa.registry.architecture import Flops

DEVICE = Device("cpu", "A processor", 2, 4, 0.1, "2.13", "5.24", "3.11")
NAMES = [each.name for each in fields(Figures)]


def made_point(num_frames: int, *, seconds: float = 1.0, apart: float = 0.02, num_repeats: int = 3) -> ProfilePoint:
    """Every figure is `seconds`, but for what adds up: six stages of it make the first token."""
    medians = dict.fromkeys(NAMES, seconds) | {
        "overlap_seconds": 0.0,
        "slow_keys_values_seconds": seconds / 4,
        "ttft_seconds": 6 * seconds,
        "total_seconds": 9 * seconds,
    }
    return ProfilePoint(
        num_frames=num_frames,
        num_prompt_tokens=1346,
        num_fast_tokens=1296,
        num_slow_tokens=81 * num_frames,
        spreads={
            name: Spread(median, median * (1 - apart / 2), median * (1 + apart / 2), num_repeats)
            for name, median in medians.items()
        },
        peak_host_bytes=3_000_000_000,
        peak_device_bytes=None,
        flops=Flops(num_frames * 6e10, num_frames * 1e9, 1.1e12 + num_frames * 1e8, num_frames * 1e8, 1.1e9),
        flops_counted=None,
        prefill_flops_all_in_self_attention=num_frames * 1e11,
        floors={"vision_tower_seconds": seconds / 2, "prefill_seconds": seconds / 4},
    )


def made_baseline(baseline: Baseline, num_frames: int, seconds: float) -> BaselinePoint:
    """Prefill and each token take `seconds`."""
    spread = Spread(seconds, seconds, seconds, 3)
    spreads = {"prefill_seconds": spread, "decode_seconds_per_token": spread}
    return BaselinePoint(baseline, num_frames, 1346, spreads, prefill_flops=1.1e12, decode_flops_per_token=1e9)


def made_profile(*points: ProfilePoint, baselines: tuple[BaselinePoint, ...] | None = None) -> Profile:
    """Of the points given, else of 16, 64 and 128 frames."""
    return Profile(
        model={
            "name": "bench-0.5b",
            "dtype": "float32",
            "attention": "sdpa",
            "quantization": "none",
            "random_weights": True,
            "num_fast_frames": 16,
        },
        device=DEVICE,
        settings={
            "video": "clip.mp4",
            "video_info": {"num_frames": 250},
            "num_repeats": 3,
            "num_warmups": 1,
            "num_new_tokens": 16,
            "overlap": False,
            "static_decode": False,
        },
        points=points or tuple(made_point(num_frames) for num_frames in (16, 64, 128)),
        baselines=baselines,
        prefill_flops_self_attention_only=1.1e12,
        rates=DeviceRates(flops_per_second=1e11, bytes_per_second=1e10),
        warnings=(),
    )


ALL_BASELINES = (
    made_baseline(Baseline.SELF_ATTENTION_ONLY, 16, 0.9),
    *(made_baseline(Baseline.ALL_IN_SELF_ATTENTION, num_frames, num_frames / 16) for num_frames in (16, 64, 128)),
    *(made_baseline(Baseline.SLOW_RECOMPUTED, num_frames, 1.75) for num_frames in (16, 64, 128)),
)
