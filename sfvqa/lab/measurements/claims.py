"""`python -m sfvqa.lab.measurements.claims`: whether more frames are as cheap as the paper says.

Measures bench-0.5b with 16, 64 and 128 frames and its baselines, or judges a profile that `sfvqa profile --json` wrote.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write
from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.compare import read_profile
from sfvqa.profiling.measuring import Work
from sfvqa.profiling.plot import draw
from sfvqa.profiling.sweep import SweepOptions, sweep
from sfvqa.registry import find_model
from sfvqa.video.readers import ReadOptions

if TYPE_CHECKING:
    import argparse

    from sfvqa.profiling.profile import Profile

VIDEO = NumberedVideo("ten-seconds-720p.mp4", "10 s, 720p, H.264, GOP 50", "libx264", 1280, 720, 10, 50)
FRAMES = (16, 64, 128)
QUESTION = "What happens in this video?"


@dataclass(frozen=True)
class Claim:
    """What is claimed, the ratio that was measured, and what it may be at most or must be at least."""

    text: str
    measured: float
    bound: float
    is_upper: bool

    @property
    def holds(self) -> bool:
        """Whether the ratio is on the right side."""
        return self.measured <= self.bound if self.is_upper else self.measured >= self.bound


def judge(document: dict[str, Any]) -> list[Claim]:
    """The claims, of what `sfvqa profile --json` gives for 16, 64 and 128 frames; ValueError where it lacks some."""
    points = {point["num_frames"]: point for point in document["points"]}
    ratios = {(ratio["baseline"], ratio["num_frames"]): ratio for ratio in document["ratios"] or ()}
    try:
        few, some, many = (points[num_frames] for num_frames in FRAMES)
        everything = ratios[Baseline.ALL_IN_SELF_ATTENTION.value, FRAMES[2]]
        recomputed = ratios[Baseline.SLOW_RECOMPUTED.value, FRAMES[1]]
    except KeyError as missing:
        raise ValueError(f"the profile lacks {missing}: measure --frames 16,64,128 --baselines") from missing
    prefill, decode = "prefill_seconds", "decode_seconds_per_token"
    return [
        Claim("prefill, 128 frames over 64", many[prefill] / some[prefill], 1.05, is_upper=True),
        Claim("each token, 128 frames over 16", many[decode] / few[decode], 1.20, is_upper=True),
        Claim(
            "prefill, 128 frames: all in self-attention over slow-fast",
            everything["prefill_baseline_over_slow_fast"],
            5,
            is_upper=False,
        ),
        Claim(
            "each token, 64 frames: slow keys and values recomputed over kept",
            recomputed["decode_baseline_over_slow_fast"],
            1.5,
            is_upper=False,
        ),
    ]


def measure(model: str, video: Path, *, num_repeats: int, num_new_tokens: int) -> Profile:
    """The profile that has all of it; progress goes to stderr."""
    qa = VideoQA.load(model, random_weights=not find_model(model).has_weights)
    work = Work(QUESTION, num_new_tokens, ReadOptions(), qa.default_crop)
    steps = sweep(qa.checkpoint, video, work, SweepOptions(FRAMES, num_repeats, num_warmups=1, baselines=True))
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            profile: Profile = end.value
            return profile
        print(f"{step.stage}: {step.done} of {step.total}", file=sys.stderr)


def as_table(claims: list[Claim]) -> str:
    """Markdown: a row a claim."""
    rows = [
        [
            claim.text,
            f"{claim.measured:.2f}×",
            f"{'at most' if claim.is_upper else 'at least'} {claim.bound:g}×",
            "yes" if claim.holds else "**no**",
        ]
        for claim in claims
    ]
    return markdown_table(["ratio", "measured", "asked for", "holds"], rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.claims", __doc__)
    parser.add_argument("--profile", type=Path, help="judge this one instead of measuring")
    parser.add_argument("--model", default="bench-0.5b", help="a name from `sfvqa models list`")
    parser.add_argument("--video", type=Path, help="instead of one that is made; of 128 frames at least")
    parser.add_argument("--folder", type=Path, default=Path("runs/profile"), help="for video, JSON and picture")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, whose medians count")
    parser.add_argument("--new-tokens", type=int, default=32)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure if need be, keep what was measured, print the table; exit code 1 where a claim fails."""
    options = parse_arguments(arguments)
    if options.profile is not None:
        document = read_profile(options.profile)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        video = options.video or find_or_write(VIDEO, options.folder)
        profile = measure(options.model, video, num_repeats=options.repeats, num_new_tokens=options.new_tokens)
        document = profile.to_dict()
        (options.folder / f"{options.model}.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
        with (options.folder / f"{options.model}.png").open("wb") as file:
            draw(profile, file, "png")
    claims = judge(document)
    print(as_table(claims))
    noise = document["noise"]
    if noise is not None:
        print(f"Repeats lie at most {noise['largest']:.0%} apart: {noise['of']}, {noise['num_frames']} frames.")
    if not all(claim.holds for claim in claims):
        sys.exit(1)


if __name__ == "__main__":
    main()
