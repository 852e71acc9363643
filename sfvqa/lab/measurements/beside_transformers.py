"""`python -m sfvqa.lab.measurements.beside_transformers`: our pipeline beside transformers' own class, stage by stage.

Both hold the very same tensors, random ones of a published model's sizes, and see the same pixels and prompt; they run
in turn, in one process, and write the same number of tokens greedily.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.generation.streamers import BaseStreamer
from transformers.models.siglip import SiglipVisionConfig
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

from sfvqa.inference.encode import pixel_values
from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, write_figures
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write
from sfvqa.model.config import IMAGE_TOKEN_ID, shared_fields
from sfvqa.model.slow_fast import random_model
from sfvqa.video import SamplingOptions, read_clip

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from torch import Tensor, nn

    from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration

VIDEO = NumberedVideo("seventy-seconds-360p.mp4", "70 s, 360p, H.264, GOP 250", "libx264", 640, 360, 70, 250)
QUESTION = "What happens in this video?"
OURS, THEIRS = "sfvqa", "transformers"
_WARM_UP_FRAMES = 2


@dataclass(frozen=True)
class Stages:
    """Seconds of one run, and the tokens it wrote.

    `tower_seconds` and `prefill_seconds` are those of the vision tower and of the decoder's pass over the prompt, and
    `ttft_seconds` all from pixels to the first token. `token_seconds` are those of each token after it, on average.
    """

    tower_seconds: float
    prefill_seconds: float
    ttft_seconds: float
    token_seconds: float
    token_ids: tuple[int, ...]

    @property
    def rest_seconds(self) -> float:
        """To the first token beside tower and decoder: projector, pooling, embeddings, logits, choosing."""
        return self.ttft_seconds - self.tower_seconds - self.prefill_seconds


@dataclass(frozen=True, eq=False)
class Measured:
    """What was asked, the runs of both, and how far their logits lay apart on a few frames."""

    asked: Asked
    runs: dict[str, list[Stages]]
    largest_difference: float


@dataclass(frozen=True, eq=False)
class Asked:
    """What both are asked: pixels `[T, 3, S, S]` in float32, and ids with IMAGE_TOKEN_ID for every visual token."""

    pixels: Tensor
    prompt: list[int]
    num_new_tokens: int


def same_in_transformers(model: SlowFastForConditionalGeneration, video_token_id: int) -> Any:
    """transformers' own class with the tensors of a plain video model, shared and not copied."""
    config = model.config
    text = config.decoder_config.to_dict() | {"tie_word_embeddings": config.tie_word_embeddings}
    vision = config.vision
    published: Any
    if config.family.name == "llava_onevision":
        published = LlavaOnevisionForConditionalGeneration, LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**shared_fields(vision, SiglipVisionConfig)).to_dict(),
            text_config=text,
            video_token_index=video_token_id,
            image_token_index=video_token_id - 1,
            tie_word_embeddings=config.tie_word_embeddings,
        )  # fmt: skip
    else:
        published = SmolVLMForConditionalGeneration, SmolVLMConfig(
            vision_config=SmolVLMVisionConfig(**shared_fields(vision, SmolVLMVisionConfig)).to_dict(),
            text_config=text,
            image_token_id=video_token_id,
            scale_factor=vision.scale_factor,
            tie_word_embeddings=config.tie_word_embeddings,
        )  # fmt: skip
    model_class, published_config = published
    theirs = model_class._from_config(published_config, dtype=model.dtype, attn_implementation="sdpa")
    own = model.state_dict()
    renamed = {name: own[config.family.rename_tensor(name)] for name in theirs.state_dict()}
    theirs.load_state_dict(renamed, assign=True)
    theirs.tie_weights()
    return theirs.eval()


@contextmanager
def _timed(module: nn.Module) -> Iterator[list[float]]:
    """The seconds of each call of a module during the block."""
    began: list[float] = []
    seconds: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
    behind = module.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - began[-1]))
    try:
        yield seconds
    finally:
        before.remove()
        behind.remove()


def _stages(tower: list[float], decoder: list[float], start: float, times: list[float], ids: list[int]) -> Stages:
    return Stages(
        tower_seconds=sum(tower),
        prefill_seconds=decoder[0],
        ttft_seconds=times[0] - start,
        token_seconds=(times[-1] - times[0]) / (len(times) - 1),
        token_ids=tuple(ids),
    )


@torch.inference_mode()
def run_ours(model: SlowFastForConditionalGeneration, asked: Asked) -> Stages:
    """The steps of `ask` behind reading, without anything that ends an answer."""
    times, ids = [], []
    with _timed(model.vision_tower) as tower, _timed(model.language_model) as decoder:
        start = time.perf_counter()
        state = prefill(model, [asked.prompt], [model.encode_video(asked.pixels)])
        options = GenerationOptions(max_new_tokens=asked.num_new_tokens)
        for (token,) in generate_tokens(model, state, options, frozenset()):
            assert token is not None
            times.append(time.perf_counter())
            ids.append(token.token_id)
    return _stages(tower, decoder, start, times, ids)


class _TokenTimes(BaseStreamer):
    """When each new token came; transformers gives the prompt first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:  # noqa: ARG002
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def _as_theirs(theirs: Any, asked: Asked, video_token_id: int) -> dict[str, Tensor]:
    """What is asked, under the names of transformers' class."""
    is_llava = isinstance(theirs, LlavaOnevisionForConditionalGeneration)
    ids = torch.tensor([asked.prompt])
    return {
        "input_ids": ids.masked_fill(ids == IMAGE_TOKEN_ID, video_token_id),
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos" if is_llava else "pixel_values": asked.pixels[None],
    }


@torch.inference_mode()
def run_theirs(theirs: Any, asked: Asked, video_token_id: int) -> Stages:
    """transformers' `generate`, with nothing that ends an answer."""
    parts, streamer = theirs.model, _TokenTimes()
    is_llava = isinstance(theirs, LlavaOnevisionForConditionalGeneration)
    tower_module, decoder_module = (
        (parts.vision_tower, parts.language_model) if is_llava else (parts.vision_model, parts.text_model)
    )
    how = GenerationConfig(do_sample=False, max_new_tokens=asked.num_new_tokens, pad_token_id=0)
    with _timed(tower_module) as tower, _timed(decoder_module) as decoder:
        start = time.perf_counter()
        given = _as_theirs(theirs, asked, video_token_id)
        written = theirs.generate(**given, generation_config=how, streamer=streamer)
    return _stages(tower, decoder, start, streamer.times[1:], written[0, len(asked.prompt) :].tolist())


@torch.inference_mode()
def largest_difference(
    model: SlowFastForConditionalGeneration, theirs: Any, asked: Asked, video_token_id: int
) -> float:
    """Between our logits and transformers', at any position of the prompt."""
    ours = model(torch.tensor([asked.prompt]), visual_tokens=[model.encode_video(asked.pixels)]).logits
    return float((theirs(**_as_theirs(theirs, asked, video_token_id)).logits - ours).abs().max())


def prepare(qa: VideoQA, video: Path, num_frames: int | None, num_new_tokens: int) -> Asked:
    """What `ask` would put to the model about a video, sampled and fitted as the model was trained."""
    config: SlowFastConfig = qa.checkpoint.model.config
    sampling = qa.default_sampling if num_frames is None else SamplingOptions(num_frames)
    clip = read_clip(video, sampling, fit=qa.fit())
    num_frames = len(clip.indices)
    num_visual = num_frames * config.grid_side(num_frames) ** 2 + config.family.num_behind_video
    layout = config.family.lay_out(num_visual, clip.timestamps_seconds, clip.video.duration_seconds)
    turn = question_turn(QUESTION, shows_video=True)
    prompt = build_prompt(qa.checkpoint.tokenizer, [turn], config.family, layout)
    return Asked(pixel_values(clip.frames, config.vision), prompt, num_new_tokens)


def measure(
    name: str, video: Path, *, dtype: str, num_frames: int | None, num_new_tokens: int, repeats: int
) -> Measured:
    """Run both in turn, after a short run of each that does not count."""
    qa = VideoQA.load(name, device="cpu", dtype=dtype, random_weights=True)
    model = qa.checkpoint.model
    video_token_id = model.config.decoder_config.vocab_size - 1  # an id that no text of the prompt has
    plain = random_model(model.config, dtype=model.dtype)  # the same weights, not packed as ours are once loaded
    theirs = same_in_transformers(plain, video_token_id)
    asked = prepare(qa, video, num_frames, num_new_tokens)
    few = prepare(qa, video, _WARM_UP_FRAMES, num_new_tokens=2)
    runs: dict[str, list[Stages]] = {THEIRS: [], OURS: []}
    run_theirs(theirs, few, video_token_id)
    run_ours(model, few)
    difference = largest_difference(model, theirs, few, video_token_id)
    for number in range(repeats):
        for way in (THEIRS, OURS) if number % 2 == 0 else (OURS, THEIRS):
            took = run_ours(model, asked) if way == OURS else run_theirs(theirs, asked, video_token_id)
            runs[way].append(took)
            print(f"{name}, {way}: first token {took.ttft_seconds:.2f} s, each {took.token_seconds:.4f} s",
                  file=sys.stderr)  # fmt: skip
    return Measured(asked, runs, difference)


def rows_of(name: str, measured: Measured) -> list[list[str]]:
    """Two rows of a table, transformers' and ours, the latter with its share of the former's time."""
    asked, runs = measured.asked, measured.runs
    medians = {
        way: {
            stage: statistics.median(getattr(run, stage) for run in of_way)
            for stage in ("tower_seconds", "rest_seconds", "prefill_seconds", "ttft_seconds", "token_seconds")
        }
        for way, of_way in runs.items()
    }
    rows = []
    for way, took in medians.items():
        rows.append(
            [
                f"`{name}`, {len(asked.pixels)} frames, {len(asked.prompt):,} tokens" if way == THEIRS else "",
                way,
                f"{took['tower_seconds']:.2f} s",
                f"{took['rest_seconds']:.2f} s",
                f"{took['prefill_seconds']:.2f} s",
                *(
                    text if way == THEIRS else f"{text} ({took[stage] / medians[THEIRS][stage]:.3f} ×)"
                    for stage, text in (
                        ("ttft_seconds", f"{took['ttft_seconds']:.2f} s"),
                        ("token_seconds", f"{1000 * took['token_seconds']:.1f} ms"),
                    )
                ),
                "" if way == THEIRS else agreement(measured),
            ]
        )
    return rows


def agreement(measured: Measured) -> str:
    """How many of our tokens are transformers', up to the first that is not, and how near the logits are."""
    theirs, ours = (measured.runs[way][0].token_ids for way in (THEIRS, OURS))
    same = next((place for place, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1]), len(ours))
    difference = measured.largest_difference
    logits = f"logits within {difference:.1g}" if difference else "logits equal"
    return f"{'all' if same == len(ours) else f'first {same} of'} {len(ours)}, {logits}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("beside_transformers", __doc__, kept="the video is")
    parser.add_argument("--models", nargs="+", default=["bench-smolvlm2-500m", "bench-llava-0.5b"])
    parser.add_argument("--video", type=Path, help="ask about this one instead")
    parser.add_argument("--frames", type=int, help="default: as many as in training")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the video if need be, measure, print the table."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    video = options.video or find_or_write(VIDEO, options.folder)
    rows, figures = [], {}
    for name in options.models:
        measured = measure(
            name,
            video,
            dtype=options.dtype,
            num_frames=options.frames,
            num_new_tokens=options.new_tokens,
            repeats=options.repeats,
        )
        rows += rows_of(name, measured)
        figures[name] = {way: [asdict(run) for run in of_way] for way, of_way in measured.runs.items()}
    write_figures(options.json, runs=figures)
    heads = ["vision tower", "projector, rest", "prefill", "first token", "each token", "same tokens"]
    print(markdown_table(["model", "", *heads], rows, num_texts=2))


if __name__ == "__main__":
    main()
