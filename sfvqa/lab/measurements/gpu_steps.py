"""What `sfvqa.lab.measurements.gpu` measures: each step a generator of figures, run in a process of its own.

    python -m sfvqa.lab.measurements.gpu_steps bf16 --out bf16.json

Figures are written as they come, so that a step that is stopped keeps those it has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

import sfvqa
from sfvqa.checkpoints.device import synchronize
from sfvqa.checkpoints.memory import RunSize, estimate_memory
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser
from sfvqa.lab.measurements.claims import FRAMES, QUESTION, VIDEO, judge
from sfvqa.lab.measurements.numbered_videos import find_or_write
from sfvqa.model.decode_step import StaticDecode
from sfvqa.profiling.measuring import Work, fast_tokens_for
from sfvqa.profiling.sweep import SweepOptions, sweep
from sfvqa.registry import QuantizationName, find_model
from sfvqa.video import SamplingOptions
from sfvqa.video.readers import ReadOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from sfvqa.profiling.profile import Profile, ProfilePoint

SOME = 64  # frames
_CHUNK = 8  # frames that the vision tower takes at a time


@dataclass(frozen=True)
class Figure:
    """One thing that was measured; `value` is a number, a text, or a document that no table shows (`unit` None)."""

    name: str
    value: Any
    unit: str | None = ""


@dataclass(frozen=True)
class Setting:
    """On what everything is measured, and how often: each number of frames `repeats` times, `new_tokens` a time."""

    model: str
    device: str
    video: Path
    repeats: int
    new_tokens: int

    def load(self, quantization: str = "none") -> VideoQA:
        """The model in bfloat16, with random weights unless it is bundled; no answer of it ends by itself."""
        is_random = not find_model(self.model).is_bundled
        loaded = VideoQA.load(
            self.model, device=self.device, dtype="bfloat16", quantization=quantization, random_weights=is_random
        )
        return VideoQA(replace(loaded.checkpoint, end_token_ids=frozenset()))

    def profile(self, qa: VideoQA, graphs: StaticDecode, *frames: int, **how: Any) -> Profile:
        """The stages for these numbers of frames; `how` are other SweepOptions."""
        work = Work(QUESTION, self.new_tokens, ReadOptions(), qa.default_crop, static_decode=graphs)
        steps = sweep(qa.checkpoint, self.video, work, SweepOptions(frames, **({"num_repeats": self.repeats} | how)))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                profile: Profile = end.value
                return profile


def doctor(setting: Setting) -> Iterator[Figure]:
    """The machine."""
    said = subprocess.run([sys.executable, "-m", "sfvqa", "doctor", "--json"], capture_output=True, text=True)
    document = json.loads(said.stdout)
    yield Figure("document", document, None)
    yield Figure("problems", "; ".join(document["problems"]) or "none")
    yield Figure("torch", torch.__version__)
    if setting.device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        yield Figure("GPU", f"{facts.name}, {facts.multi_processor_count} multiprocessors")
        yield Figure("memory", facts.total_memory / 1e9, "GB")


def bf16(setting: Setting) -> Iterator[Figure]:
    """Stages and tokens in bfloat16, with recorded steps and without; peak memory against the estimate."""
    yield from _stages(setting, "none")


def nf4(setting: Setting) -> Iterator[Figure]:
    """The same in 4 bits."""
    yield from _stages(setting, "4bit")


def eight_bit(setting: Setting) -> Iterator[Figure]:
    """Tokens in 8 bits, whose steps cannot be recorded."""
    qa = setting.load("8bit")
    measured = setting.profile(qa, StaticDecode.OFF, SOME, num_repeats=1)
    yield Figure("profile", measured.to_dict(), None)
    yield from _of_point(qa, measured.points[0], setting.new_tokens, is_static=False)


def _stages(setting: Setting, quantization: str) -> Iterator[Figure]:
    qa = setting.load(quantization)
    yield Figure("loading", qa.checkpoint.load_seconds, "s")
    measured = setting.profile(qa, StaticDecode.ON, *FRAMES)
    yield Figure("profile", measured.to_dict(), None)
    for point in measured.points:
        yield from _of_point(qa, point, setting.new_tokens, is_static=True)
    few, many = (measured.points[place].spreads["decode_seconds_per_token"].median for place in (0, -1))
    yield Figure("a token, 128 over 16 frames", many / few, "×")
    step_by_step = setting.profile(qa, StaticDecode.OFF, SOME, encode_once=True)
    yield Figure("profile without graphs", step_by_step.to_dict(), None)
    yield Figure("64 frames, without graphs", _tokens_per_second(step_by_step.points[0]), "tokens/s")


def _of_point(qa: VideoQA, point: ProfilePoint, num_new_tokens: int, *, is_static: bool) -> Iterator[Figure]:
    frames, floors = f"{point.num_frames} frames", point.floors or {}
    for stage in ("vision_tower_seconds", "prefill_seconds", "ttft_after_reading_seconds", "decode_seconds_per_token"):
        seconds, words = point.spreads[stage].median, stage.replace("_seconds", "").replace("_", " ")
        yield Figure(f"{frames}, {words}", seconds, "s")
        if stage in floors:
            yield Figure(f"{frames}, {words} over its floor", seconds / floors[stage], "×")
    yield Figure(frames, _tokens_per_second(point), "tokens/s")
    if peak := point.peak_device_bytes or point.peak_host_bytes:
        checkpoint = qa.checkpoint
        config = checkpoint.model.config
        run = RunSize(
            point.num_frames,
            "bfloat16",
            checkpoint.model.device.type,
            QuantizationName(checkpoint.quantization.value),
            point.num_prompt_tokens - point.num_fast_tokens,
            max_new_tokens=num_new_tokens,
            static_decode=is_static,
        )
        fast = fast_tokens_for(fast_tokens_of(config), point.num_frames)
        estimated = estimate_memory(architecture_of(config), fast, run).peak_bytes
        yield Figure(f"{frames}, peak memory", peak / 1e9, "GB")
        yield Figure(f"{frames}, peak memory over the estimate", peak / estimated, "×")


def _tokens_per_second(point: ProfilePoint) -> float:
    return 1 / point.spreads["decode_seconds_per_token"].median


def tests(setting: Setting) -> Iterator[Figure]:
    """The tests that need CUDA, none of which may be skipped; elsewhere they are collected and skipped."""
    root = Path(sfvqa.__file__).parents[1] / "tests"
    files = [str(path) for path in root.rglob("test_*.py") if "mark.cuda" in path.read_text(encoding="utf-8")]
    environment = os.environ | ({"SFVQA_REQUIRE_CUDA": "1"} if setting.device == "cuda" else {})
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", *files],
        cwd=root.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    yield Figure("output", said.stdout[-20_000:], None)
    yield Figure("exit code", said.returncode)
    counts = re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", said.stdout.splitlines()[-1] if said.stdout else "")
    for count, outcome in counts:
        yield Figure(outcome, int(count))


def pixels(setting: Setting) -> Iterator[Figure]:
    """What the vision tower is given on the device, against the CPU, bit for bit."""
    for dtype in ("float32", "bfloat16"):
        here, there = (_tower_inputs(device, dtype, setting.video) for device in ("cpu", setting.device))
        same = len(here) == len(there) and all(map(torch.equal, here, there))
        differing = sum(int((one != other).sum()) for one, other in zip(here, there, strict=True))
        yield Figure(f"{dtype} equal bit for bit", "yes" if same else f"no, {differing:,} values differ")


def _tower_inputs(device: str, dtype: str, video: Path) -> list[torch.Tensor]:
    qa, given = VideoQA.load("tiny", device=device, dtype=dtype), []
    hook = qa.checkpoint.model.vision_tower.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].cpu()))
    qa.encode(video, SamplingOptions(num_frames=20))
    hook.remove()
    return given


_LAUNCHES = (
    *("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"),
    *("cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch"),
)
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def launches(setting: Setting) -> Iterator[Figure]:
    """Launches and waits of a token and of a frame, by the profiler: of long answers less short ones."""
    qa = setting.load()
    encoded = qa.encode(setting.video, SamplingOptions(num_frames=SOME))
    short, long = 8, 24
    for graphs, name in ((StaticDecode.OFF, "a token"), (StaticDecode.ON, "a replayed token")):

        def answer(num_tokens: int, graphs: StaticDecode = graphs) -> None:
            qa.ask(encoded, QUESTION, GenerationOptions(max_new_tokens=num_tokens, static_decode=graphs))

        yield from _counts(name, qa, answer, short, long, long - short)

    def encode(num_frames: int) -> None:
        qa.encode(setting.video, SamplingOptions(num_frames=num_frames))

    yield from _counts("a frame", qa, encode, 2 * _CHUNK, 4 * _CHUNK, 2 * _CHUNK)


def _counts(name: str, qa: VideoQA, run: Callable[[int], None], less: int, more: int, times: int) -> Iterator[Figure]:
    found: list[Counter[str]] = []
    for size in (less, more):
        run(size)  # what is set up or recorded on first use does not count
        activities = [ProfilerActivity.CPU]
        if qa.checkpoint.model.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as seen:
            run(size)
            synchronize(qa.checkpoint.model.device)
        found.append(Counter({event.key: event.count for event in seen.key_averages()}))
    more_of = {key: (found[1][key] - found[0][key]) / times for key in found[1]}
    yield Figure(f"calls of {name}", {key: count for key, count in more_of.items() if count}, None)
    for what, names in (("launches", _LAUNCHES), ("waits", _WAITS)):
        yield Figure(f"{what} {name}", sum(more_of.get(each, 0.0) for each in names), what)


def claims(setting: Setting) -> Iterator[Figure]:
    """The paper's, at full size: slow-fast beside its baselines, in one run each."""
    qa = setting.load()
    measured = setting.profile(qa, StaticDecode.OFF, *FRAMES, num_repeats=1, baselines=True)
    document = measured.to_dict()
    yield Figure("profile", document, None)
    for claim in judge(document):
        yield Figure(claim.text, claim.measured, "×")


STEPS: dict[str, Callable[[Setting], Iterator[Figure]]] = {
    "doctor": doctor,
    "bf16": bf16,
    "nf4": nf4,
    "tests": tests,
    "pixels": pixels,
    "launches": launches,
    "8bit": eight_bit,
    "claims": claims,
}
"""By name, the most important first."""


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Options that become a Setting."""
    parser.add_argument("--model", default="slowfast-7b", help="a name from `sfvqa models list`")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--video", type=Path, help="of 128 frames at least, instead of one that is made")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, whose medians count")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens in each answer")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.gpu_steps", __doc__)
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("--out", type=Path, required=True, help="a JSON file, written anew with each figure")
    add_setting(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run one step."""
    options = parse_arguments(arguments)
    video = options.video or find_or_write(VIDEO, options.out.parent)
    setting = Setting(options.model, options.device, video, options.repeats, options.new_tokens)
    figures: list[dict[str, Any]] = []
    for figure in STEPS[options.step](setting):
        figures.append(asdict(figure))
        unfinished = options.out.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(figures), encoding="utf-8")
        unfinished.replace(options.out)


if __name__ == "__main__":
    main()
