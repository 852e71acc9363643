"""Measure one question about one video with the steps of `ask`, and the time of each.

Parts of the network are timed by hooks that are there for a while only. The released models keep 16 fast frames
whatever they are given (stride 4 of 64 frames, 6 of 96), and a profile does the same, since that is what makes more
frames cheap; a model's own stride, fixed, would lengthen the prompt.
"""

import contextlib
import copy
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import profile, record_function

from sfvqa.checkpoints.device import synchronize
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.checkpoints.memory import CHUNKS_AHEAD
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo, Stopwatch, encode_progressively
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
from sfvqa.model.visual_tokens import split_video
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
    """The clocks of the vision tower and of the slow keys and values: the slow tokens' norm and their projection."""

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
            layer: Any = model.language_model.layers[layer_idx]
            # The norm runs on the prompt too, but only after the slow tokens' does the projection follow.
            hooks.callback(layer.input_layernorm.register_forward_pre_hook(lambda *_: slow.start()).remove)
            projection = layer.self_attn.slow_attention.kv_proj
            hooks.callback(projection.register_forward_hook(lambda *_: slow.stop()).remove)
        yield PartClocks(tower, slow)


def stride_for(num_frames: int, min_fast_frames: int) -> int:
    """The temporal stride that leaves `min_fast_frames` fast frames.

    >>> [stride_for(num_frames, 16) for num_frames in (8, 16, 64, 96, 128)]
    [1, 1, 4, 6, 8]
    """
    return max(1, num_frames // min_fast_frames)


def fast_tokens_for(fast: FastTokens, num_frames: int) -> FastTokens:
    """The settings that a model trained with `num_frames` would have."""
    return replace(fast, temporal_stride=stride_for(num_frames, fast.min_fast_frames), temporal_sampling_stride=1)


def split_again(slow: Tensor, num_frames: int, config: SlowFastConfig) -> VisualTokens:
    """Split the visual tokens `slow` `[S, D]` of `num_frames` frames by the same settings."""
    own, side = copy.deepcopy(config), config.grid_side(num_frames)
    own.temporal_stride, own.temporal_sampling_stride = stride_for(num_frames, own.min_fast_frames), 1
    return split_video(slow.view(num_frames, side, side, -1), own)


@dataclass(frozen=True)
class Figures:
    """Seconds by the wall clock, the device waited for (of parts inside a pass its own clock, see stages).

    - `open_seconds`, `read_seconds`: the file's index; then bytes → frames of the model's size.
    - `preprocess_seconds`: frames → normalised pixels, on the processor.
    - `vision_tower_seconds`; `projector_seconds`: what is left of encoding, that is projector, pooling, joining the
      chunks and splitting them into slow and fast tokens.
    - `overlap_seconds`: how much of reading and encoding ran at the same time; 0 where one waits for the other.
    - `slow_keys_values_seconds`: the slow tokens' norm and projection in the hybrid layers, a part of the prefill.
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
    neither disturbs the other's time. With `static_decode` tokens are written over buffers of fixed size.
    """

    question: str
    num_new_tokens: int
    reading: ReadOptions
    crop: CropMode
    overlap: bool = False
    static_decode: bool = False


@dataclass(frozen=True, eq=False)
class Run:
    """The measurements of one run; `encoded` is what the model saw, for the baselines."""

    encoded: EncodedVideo
    figures: Figures
    prompt: tuple[int, ...]
    host_bytes: int | None
    device_bytes: int | None


def measure_run(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work) -> Run:
    """Encode at most `num_frames` frames of the video and decode `work.num_new_tokens` tokens.

    Nothing comes from a cache. Raises what seeing and asking do.
    """
    model = checkpoint.model
    memory = PeakMemory(model.device)
    with watch_parts(model) as clocks:
        encoded, open_seconds = see(checkpoint, video, num_frames, work)
        vision_tower_seconds = clocks.vision_tower.seconds
        endless = replace(checkpoint, end_token_ids=frozenset())
        options = GenerationOptions(max_new_tokens=work.num_new_tokens, static_decode=work.static_decode)
        answering = AnswerRun(endless, [Asked(encoded, work.question)], options)
        for _ in answering.steps():
            pass
        slow_keys_values_seconds = clocks.slow_keys_values.seconds
    (answer,) = answering.answers()
    assert answer.tokens.new == work.num_new_tokens
    timings = answer.timings
    per_token = timings.decode_seconds / (work.num_new_tokens - 1)
    return Run(
        encoded,
        Figures(
            open_seconds=open_seconds,
            read_seconds=encoded.read_seconds - open_seconds,
            preprocess_seconds=encoded.preprocess_seconds,
            vision_tower_seconds=vision_tower_seconds,
            projector_seconds=encoded.encode_seconds - encoded.preprocess_seconds - vision_tower_seconds,
            overlap_seconds=encoded.overlap_seconds,
            slow_keys_values_seconds=slow_keys_values_seconds,
            prefill_seconds=timings.prefill_seconds,
            ttft_seconds=timings.ttft_seconds,
            ttft_after_reading_seconds=timings.ttft_seconds - encoded.read_seconds + encoded.overlap_seconds,
            decode_seconds_per_token=per_token,
            tokens_per_second=1 / per_token,
            total_seconds=timings.total_seconds,
        ),
        tuple(prompt_ids(checkpoint, encoded, work)),
        memory.host_bytes,
        memory.device_bytes,
    )


def see(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work) -> tuple[EncodedVideo, float]:
    """Read and encode a video, with as many fast frames as in training; also the seconds that opening it took."""
    model = checkpoint.model
    with open_video(video, work.reading) as reader:
        ahead, sampling = CHUNKS_AHEAD if work.overlap else 0, SamplingOptions(num_frames)
        steps = encode_progressively(model, reader, sampling, crop=work.crop, chunks_ahead=ahead)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                encoded: EncodedVideo = end.value
                break
        open_seconds = reader.open_seconds
    watch = Stopwatch(model.device)
    with watch, torch.inference_mode():
        tokens = split_again(encoded.visual_tokens.slow, len(encoded.indices), model.config)
    return replace(encoded, visual_tokens=tokens, encode_seconds=encoded.encode_seconds + watch.seconds), open_seconds


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


def all_in_prompt(encoded: EncodedVideo) -> EncodedVideo:
    """The same with all visual tokens in the prompt, for self-attention without slow attention."""
    slow = encoded.visual_tokens.slow
    return replace(encoded, visual_tokens=VisualTokens(slow=slow, fast=slow))


def write_trace(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work, path: Path) -> None:
    """Measure one run once more and write every operation of it; the profiler itself takes time, so that its figures
    are not those of a profile.
    """
    with torch.inference_mode(), profile() as trace, record_function(f"{num_frames} frames"):
        measure_run(checkpoint, video, num_frames, work)
    trace.export_chrome_trace(str(path))
