"""One video, one number of frames, once: seen and asked about by the steps that `ask` takes, with the time of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.checkpoint import LoadedCheckpoint
from sfvqa.inference.encoding import EncodedVideo, encode_progressively
from sfvqa.inference.generation import GenerationOptions
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.prompting import prompt_for
from sfvqa.inference.reading_ahead import CHUNKS_AHEAD
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttentionScope, VisualTokens
from sfvqa.profiling.fast_frames import split_again
from sfvqa.profiling.flops import PromptSize
from sfvqa.profiling.peak_memory import PeakMemory
from sfvqa.profiling.stages import watch_parts
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.sampling import SamplingOptions


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
    """What each run does: the question, how many tokens are written (two at least), how the video is read.

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
    """What one run took; `encoded` is what the model saw, for baselines to go on from."""

    encoded: EncodedVideo
    figures: Figures
    prompt: tuple[int, ...]
    host_bytes: int | None
    device_bytes: int | None


def measure_run(checkpoint: LoadedCheckpoint, video: Path, num_frames: int, work: Work) -> Run:
    """See the video with at most `num_frames` frames and write `work.num_new_tokens` tokens, whatever they are.

    Nothing comes from a cache. Raises what seeing and asking do.
    """
    model = checkpoint.model
    memory = PeakMemory(model.device)
    with watch_parts(model) as clocks:
        encoded, open_seconds = see(checkpoint, video, num_frames, work)
        vision_tower_seconds = clocks.vision_tower.seconds
        endless = replace(checkpoint, end_token_ids=frozenset())
        answering = AnswerRun(endless, [Asked(encoded, work.question)], _writing(work))
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
    """Read and encode a video, with as many fast frames as in training (see fast_frames); and what opening it took."""
    model = checkpoint.model
    with open_video(video, work.reading) as reader:
        steps = encode_progressively(
            model,
            reader,
            SamplingOptions(num_frames),
            crop=work.crop,
            chunks_ahead=CHUNKS_AHEAD if work.overlap else 0,
        )
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
    """The prompt that a run's question becomes, a placeholder for every fast token."""
    built = prompt_for(
        checkpoint.tokenizer,
        encoded,
        work.question,
        PromptOptions(),
        trained_length=None,
        num_new_tokens=work.num_new_tokens,
    )
    return built.token_ids


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


def _writing(work: Work) -> GenerationOptions:
    return GenerationOptions(max_new_tokens=work.num_new_tokens, static_decode=work.static_decode)


def all_in_prompt(encoded: EncodedVideo) -> EncodedVideo:
    """The same with all visual tokens in the prompt, for self-attention; they are not to be looked at beside it."""
    slow = encoded.visual_tokens.slow
    return replace(encoded, visual_tokens=VisualTokens(slow=slow, fast=slow))
