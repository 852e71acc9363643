"""Measure one question about one video with the steps of `ask`, and the time of each.

Parts of the network are timed by hooks that are there for a while only. The released models keep 16 fast frames
whatever they are given (stride 4 of 64 frames, 6 of 96), and a profile does the same, since that is what makes more
frames cheap; a model's own stride, fixed, would lengthen the prompt.
"""

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile, record_function

from sfvqa.checkpoints.device import synchronize
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.checkpoints.memory import CHUNKS_AHEAD
from sfvqa.checkpoints.plan import fast_tokens_of
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo, encode_progressively
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.model import (
    IMAGE_TOKEN_ID,
    SlowAttentionScope,
    SlowFastConfig,
    SlowFastForConditionalGeneration,
    VisualTokens,
)
from sfvqa.model.decode_step import StaticDecode
from sfvqa.registry import FastTokens
from sfvqa.registry.architecture import PromptSize
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.sampling import SamplingOptions

_MARK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peak memory since it was created; `host_bytes` and `device_bytes` are None if unknown."""

    def __init__(self, device: torch.device) -> None:
        self._devices = range(torch.cuda.device_count()) if device.type == "cuda" else range(0)
        for index in self._devices:
            torch.cuda.reset_peak_memory_stats(index)
        self._knows_host = False
        with contextlib.suppress(OSError):  # another system, or one that forbids it
            _MARK.write_text("5", encoding="ascii")
            self._knows_host = True

    @property
    def device_bytes(self) -> int | None:
        """Peak allocation of torch on all GPUs together; None on other devices."""
        return sum(map(torch.cuda.max_memory_allocated, self._devices)) if self._devices else None

    @property
    def host_bytes(self) -> int | None:
        """Peak resident memory, weights on the CPU included."""
        if not self._knows_host:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) * 1024 if found else None


class PartClock:
    """Adds up the device time between `start` and `stop`, without making a GPU wait: CUDA notes when it got there.

    A part that is started again before it was stopped begins anew: only what was stopped counts.
    """

    def __init__(self, device: torch.device, *, waits: bool) -> None:
        self._device, self._waits = device, waits
        self._started: Any = None
        self._spans: list[tuple[Any, Any]] = []  # of seconds, or of CUDA's events

    def start(self) -> None:
        """Start a span."""
        self._started = self._now()

    def stop(self) -> None:
        """End the span."""
        self._spans.append((self._started, self._now()))

    @property
    def seconds(self) -> float:
        """Total of all spans; waits for the device."""
        synchronize(self._device)
        if self._waits:
            return float(sum(stop - start for start, stop in self._spans))
        return float(sum(start.elapsed_time(stop) for start, stop in self._spans)) / 1000

    def _now(self) -> Any:
        if self._waits:
            synchronize(self._device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


@dataclass(frozen=True, eq=False)
class PartClocks:
    """The clocks of the vision tower and of the slow keys and values: the slow tokens' projection."""

    vision_tower: PartClock
    slow_keys_values: PartClock


@contextlib.contextmanager
def watch_parts(model: SlowFastForConditionalGeneration) -> Iterator[PartClocks]:
    """Run the clocks during the block, through hooks that are removed after it."""
    devices = {parameter.device for parameter in model.parameters()}
    waits = not (len(devices) == 1 and model.device.type == "cuda")
    tower, slow = (PartClock(model.device, waits=waits) for _ in range(2))
    with contextlib.ExitStack() as hooks:
        hooks.callback(model.vision_tower.register_forward_pre_hook(lambda *_: tower.start()).remove)
        hooks.callback(model.vision_tower.register_forward_hook(lambda *_: tower.stop()).remove)
        for layer_idx in model.config.hybrid_layers:
            projection: Any = model.language_model.layers[layer_idx].self_attn.slow_attention.kv_proj
            hooks.callback(projection.register_forward_pre_hook(lambda *_: slow.start()).remove)
            hooks.callback(projection.register_forward_hook(lambda *_: slow.stop()).remove)
        yield PartClocks(tower, slow)


def stride_for(num_frames: int, min_fast_frames: int) -> int:
    """The temporal stride that leaves `min_fast_frames` fast frames.

    >>> [stride_for(num_frames, 16) for num_frames in (8, 16, 64, 96, 128)]
    [1, 1, 4, 6, 8]
    """
    return max(1, num_frames // min_fast_frames)


def fast_tokens_for(fast: FastTokens, num_frames: int) -> FastTokens:
    """The settings that a model trained with `num_frames` would have; one whose prompt has all frames keeps its own.

    Frames are averaged, or left out, as the model does it.

    >>> fast_tokens_for(FastTokens(temporal_stride=1, min_fast_frames=16, temporal_sampling_stride=8), 64)
    FastTokens(temporal_stride=1, min_fast_frames=16, temporal_sampling_stride=4, spatial_stride=1)
    """
    if fast.min_fast_frames == 1:
        return fast
    if fast.temporal_sampling_stride > 1:  # one that is too long keeps the fewest, one that is too short keeps more
        kept = fast.min_fast_frames * fast.temporal_stride
        return replace(fast, temporal_sampling_stride=math.ceil(num_frames / kept))
    return replace(fast, temporal_stride=stride_for(num_frames, fast.min_fast_frames))


ALL_IN_PROMPT = FastTokens(temporal_stride=1, min_fast_frames=1)


@contextlib.contextmanager
def splitting(config: SlowFastConfig, fast: FastTokens) -> Iterator[None]:
    """Have a model split its videos, and lay them out in prompts, by other settings during the block."""
    own = vars(fast_tokens_of(config))
    try:
        for name, value in vars(fast).items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(config, name, value)


@dataclass(frozen=True)
class Figures:
    """Seconds by the wall clock, the device waited for (of parts inside a pass its own clock, see stages).

    - `open_seconds`, `read_seconds`: the file's index; then bytes → frames of the model's size.
    - `preprocess_seconds`: frames → normalised pixels, on the model's device.
    - `vision_tower_seconds`; `projector_seconds`: what is left of encoding, that is projector, pooling, joining the
      chunks and splitting them into slow and fast tokens.
    - `overlap_seconds`: how much of reading and encoding ran at the same time; 0 where one waits for the other.
    - `slow_keys_values_seconds`: the slow tokens' projection in the hybrid layers, a part of the prefill.
    - `prefill_seconds`: question → logits of the first token.
    - `ttft_seconds`: open + read + preprocess + vision tower + projector - overlap + prefill + choosing the token;
      `ttft_after_reading_seconds` leaves out what reading alone took.
    - `decode_seconds_per_token`: of each token after the first, and `tokens_per_second` its inverse.
    - `total_seconds`: to the last token.
    """

    open_seconds: float
    read_seconds: float
    preprocess_seconds: float
    vision_tower_seconds: float
    projector_seconds: float
    overlap_seconds: float
    slow_keys_values_seconds: float
    prefill_seconds: float
    ttft_seconds: float
    ttft_after_reading_seconds: float
    decode_seconds_per_token: float
    tokens_per_second: float
    total_seconds: float


@dataclass(frozen=True)
class Work:
    """What each run does: the question, how many tokens to decode (at least two), how to read the video.

    `overlap` lets a thread read ahead while frames are encoded, as `ask` does; without it one waits for the other, and
    neither disturbs the other's time. `static_decode` is auto, on or off.
    """

    question: str
    num_new_tokens: int
    reading: ReadOptions
    crop: CropMode
    overlap: bool = False
    static_decode: StaticDecode = StaticDecode.OFF


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model saw of a video, and the parts of what that took that `encoded` does not tell."""

    encoded: EncodedVideo
    open_seconds: float
    vision_tower_seconds: float


@dataclass(frozen=True, eq=False)
class Run:
    """The measurements of one run; `seen` is for the baselines."""

    seen: Seen
    figures: Figures
    prompt: tuple[int, ...]
    static_decode: bool
    host_bytes: int | None
    device_bytes: int | None

    @property
    def encoded(self) -> EncodedVideo:
        """What the model saw."""
        return self.seen.encoded


def measure_run(
    checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work, seen: Seen | None = None
) -> Run:
    """Encode at most `num_frames` frames of the video and decode `work.num_new_tokens` tokens.

    Nothing comes from a cache; but what was `seen` of the video is not read and encoded again. Raises what seeing and
    asking do.
    """
    model = checkpoint.model
    memory = PeakMemory(model.device)
    with splitting(model.config, fast_tokens_for(fast_tokens_of(model.config), num_frames)):
        seen = seen or see(checkpoint, video, num_frames, work)
        encoded = seen.encoded
        endless = replace(checkpoint, end_token_ids=frozenset())
        options = GenerationOptions(max_new_tokens=work.num_new_tokens, static_decode=work.static_decode)
        with watch_parts(model) as clocks:
            answering = AnswerRun(endless, [Asked(encoded, work.question)], options)
            for _ in answering.steps():
                pass
            slow_keys_values_seconds = clocks.slow_keys_values.seconds
        prompt = tuple(prompt_ids(checkpoint, encoded, work))
    (answer,) = answering.answers()
    assert answer.tokens.new == work.num_new_tokens
    timings = answer.timings
    per_token = timings.decode_seconds / (work.num_new_tokens - 1)
    figures = Figures(
        open_seconds=seen.open_seconds,
        read_seconds=encoded.read_seconds - seen.open_seconds,
        preprocess_seconds=encoded.preprocess_seconds,
        vision_tower_seconds=seen.vision_tower_seconds,
        projector_seconds=encoded.encode_seconds - encoded.preprocess_seconds - seen.vision_tower_seconds,
        overlap_seconds=encoded.overlap_seconds,
        slow_keys_values_seconds=slow_keys_values_seconds,
        prefill_seconds=timings.prefill_seconds,
        ttft_seconds=timings.ttft_seconds,
        ttft_after_reading_seconds=timings.ttft_seconds - encoded.read_seconds + encoded.overlap_seconds,
        decode_seconds_per_token=per_token,
        tokens_per_second=1 / per_token,
        total_seconds=timings.total_seconds,
    )
    return Run(seen, figures, prompt, answer.settings.static_decode, memory.host_bytes, memory.device_bytes)


def see(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work) -> Seen:
    """Read and encode a video."""
    model = checkpoint.model
    with open_video(video, work.reading) as reader, watch_parts(model) as clocks:
        ahead, sampling = CHUNKS_AHEAD if work.overlap else 0, SamplingOptions(num_frames)
        steps = encode_progressively(model, reader, sampling, crop=work.crop, chunks_ahead=ahead, times_chunks=True)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                encoded: EncodedVideo = end.value
                return Seen(encoded, reader.open_seconds, clocks.vision_tower.seconds)


def split_again(model: SlowFastForConditionalGeneration, encoded: EncodedVideo) -> EncodedVideo:
    """The same frames, split into slow and fast tokens as the model's config says now."""
    num_frames = len(encoded.indices)
    side = model.config.grid_side(num_frames)
    with torch.inference_mode():
        tokens = model.split(encoded.visual_tokens.slow.view(num_frames, side, side, -1))
    return replace(encoded, visual_tokens=tokens)


def prompt_ids(checkpoint: LoadedCheckpoint, encoded: EncodedVideo, work: Work) -> list[int]:
    """Token ids of a run's prompt, with a placeholder for every fast token."""
    options, num_new = PromptOptions(), work.num_new_tokens
    return prompt_for(
        checkpoint.tokenizer, encoded, work.question, options, config=checkpoint.model.config, num_new_tokens=num_new
    ).token_ids


def size_of(prompt: Sequence[int], tokens: VisualTokens, scope: SlowAttentionScope | str) -> PromptSize:
    """How many tokens a prompt has, and how many of them look at the slow tokens."""
    match scope:
        case SlowAttentionScope.ALL:
            num_looking = len(prompt)
        case SlowAttentionScope.TEXT_AFTER_VIDEO:
            behind = prompt[prompt.index(IMAGE_TOKEN_ID) :]
            num_looking = len(behind) - len(tokens.fast)
        case _:
            num_looking = len(prompt) - len(tokens.fast)
    return PromptSize(len(prompt), len(tokens.slow), num_looking)


def write_trace(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work, path: Path) -> None:
    """Measure one run once more and write every operation of it; the profiler itself takes time, so that its figures
    are not those of a profile.
    """
    with torch.inference_mode(), profile() as trace, record_function(f"{num_frames} frames"):
        measure_run(checkpoint, video, num_frames, work)
    trace.export_chrome_trace(str(path))
