"""Measure a profile: every number of frames in every round, so that drift affects all alike."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.checkpoints.plan import architecture_of, fast_tokens_of
from sfvqa.errors import UsageError
from sfvqa.model.quantization import Quantization
from sfvqa.profiling.baselines import Baseline, BaselineRun, run_baseline
from sfvqa.profiling.floors import DeviceRates, count_on_model, floors, measure_rates
from sfvqa.profiling.measuring import (
    ALL_IN_PROMPT,
    Run,
    Seen,
    Work,
    fast_tokens_for,
    measure_run,
    prompt_ids,
    see,
    size_of,
    split_again,
    splitting,
)
from sfvqa.profiling.profile import BaselinePoint, Device, Profile, ProfilePoint, Spread
from sfvqa.registry.architecture import (
    PromptSize,
    count_by_formula,
    decode_flops,
    prefill_flops,
    prompt_size,
    slow_keys_values_flops,
)


@dataclass(frozen=True)
class SweepOptions:
    """The numbers of frames, and how often to measure each, after `num_warmups` uncounted rounds.

    With `encode_once` the first round alone reads and encodes, and all others ask about what it saw.
    """

    frame_counts: tuple[int, ...]
    num_repeats: int = 3
    num_warmups: int = 1
    baselines: bool = False
    encode_once: bool = False

    def __post_init__(self) -> None:
        if not self.frame_counts or min(self.frame_counts) < 1:
            raise UsageError("There is no number of frames to measure.", "Give at least one, above 0.")
        if self.num_repeats < 1 or self.num_warmups < 0:
            raise UsageError("Nothing would be measured.", "Ask for at least one repeat.")


class SweepStage(StrEnum):
    """What is being done."""

    DEVICE = "Measuring the device"
    WARM_UP = "Warming up"
    MEASURE = "Measuring"
    COUNT = "Counting operations"


@dataclass(frozen=True)
class SweepProgress:
    """Progress of a stage in frames, counted in every round; in numbers of frames for COUNT."""

    stage: SweepStage
    done: int
    total: int


@dataclass
class _Measured:
    """What has been measured so far, by number of frames."""

    runs: dict[int, list[Run]] = field(default_factory=lambda: defaultdict(list))
    baselines: dict[tuple[Baseline, int], list[BaselineRun]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[tuple[Baseline, int], PromptSize] = field(default_factory=dict)


def sweep(
    checkpoint: LoadedCheckpoint, video: Path, work: Work, options: SweepOptions
) -> Generator[SweepProgress, None, Profile]:
    """Measure every number of frames `num_repeats` times, yielding progress; the profile is the generator's value.

    Each round takes all of them, in turn upwards and downwards. Raises what seeing a video and asking about it do.
    """
    model = checkpoint.model
    device = Device.of(model.device)
    yield SweepProgress(SweepStage.DEVICE, 0, 1)
    rates = measure_rates(model.device, model.dtype)
    yield SweepProgress(SweepStage.DEVICE, 1, 1)
    seen: dict[int, Seen] = {}
    yield from _rounds(checkpoint, video, work, options, SweepStage.WARM_UP, _Measured(), seen)
    measured = _Measured()
    yield from _rounds(checkpoint, video, work, options, SweepStage.MEASURE, measured, seen)
    points = []
    for place, runs in enumerate(measured.runs.values()):
        yield SweepProgress(SweepStage.COUNT, place, len(measured.runs))
        points.append(_point(checkpoint, runs, rates))
    yield SweepProgress(SweepStage.COUNT, len(points), len(points))
    first_run = measured.runs[options.frame_counts[0]][0]
    first = first_run.encoded
    sizes, num_fast_frames = architecture_of(model.config), model.config.min_fast_frames
    smallest = prompt_size(sizes, ALL_IN_PROMPT, num_fast_frames, points[0].num_text_tokens)
    return Profile(
        model=_model_facts(checkpoint),
        device=device,
        settings={
            "video": str(first.video.path),
            "video_info": {name: value for name, value in asdict(first.video).items() if name != "path"},
            "num_repeats": options.num_repeats,
            "num_warmups": options.num_warmups,
            "num_new_tokens": work.num_new_tokens,
            "question": work.question,
            "encode_once": options.encode_once,
            "overlap": work.overlap,
            "static_decode": first_run.static_decode,
            "reader": first.reader,
            "crop": first.crop.value,
        },
        points=tuple(sorted(points, key=lambda point: point.num_frames)),
        baselines=tuple(_baseline_points(checkpoint, measured)) if options.baselines else None,
        prefill_flops_self_attention_only=prefill_flops(sizes, PromptSize(smallest.length)),
        rates=rates,
        warnings=tuple(dict.fromkeys(_warnings(checkpoint, measured))),
    )


def _rounds(
    checkpoint: LoadedCheckpoint,
    video: Path,
    work: Work,
    options: SweepOptions,
    stage: SweepStage,
    measured: _Measured,
    seen: dict[int, Seen],
) -> Iterator[SweepProgress]:
    """Measure every number of frames once a round; `seen` is what earlier rounds saw, to be used again."""
    num_rounds = options.num_warmups if stage is SweepStage.WARM_UP else options.num_repeats
    fewest = checkpoint.model.config.min_fast_frames
    done, total = 0, num_rounds * sum(options.frame_counts)
    for place in range(num_rounds):
        yield SweepProgress(stage, done, total)
        of_round: dict[int, Seen] = seen if options.encode_once else {}
        for num_frames in options.frame_counts[:: 1 if place % 2 == 0 else -1]:
            run = measure_run(checkpoint, video, num_frames, work, of_round.get(num_frames))
            measured.runs[num_frames].append(run)
            of_round[num_frames] = run.seen
            if options.baselines:
                modes = (Baseline.ALL_IN_SELF_ATTENTION, Baseline.SLOW_RECOMPUTED)
                _run_baselines(checkpoint, work, measured, modes, run.seen)
            done += num_frames
            yield SweepProgress(stage, done, total)
        if options.baselines:
            few = of_round[fewest] = of_round.get(fewest) or see(checkpoint, video, fewest, work)
            _run_baselines(checkpoint, work, measured, (Baseline.SELF_ATTENTION_ONLY,), few)


def _run_baselines(
    checkpoint: LoadedCheckpoint, work: Work, measured: _Measured, modes: Sequence[Baseline], seen: Seen
) -> None:
    """Run every mode on what was seen."""
    model, num_frames = checkpoint.model, len(seen.encoded.indices)
    for mode in modes:
        recomputes = mode is Baseline.SLOW_RECOMPUTED
        fast = fast_tokens_for(fast_tokens_of(model.config), num_frames) if recomputes else ALL_IN_PROMPT
        with splitting(model.config, fast):
            encoded = split_again(model, seen.encoded)
            prompt, tokens = prompt_ids(checkpoint, encoded, work), encoded.visual_tokens
        took = run_baseline(model, mode, prompt, tokens, work.num_new_tokens)
        measured.baselines[mode, num_frames].append(took)
        size = PromptSize(len(prompt))
        if recomputes:
            size = size_of(prompt, tokens, model.config.slow_attention_scope)
        measured.sizes[mode, num_frames] = size


def _point(checkpoint: LoadedCheckpoint, runs: list[Run], rates: DeviceRates | None) -> ProfilePoint:
    model, last = checkpoint.model, runs[-1]
    tokens, num_frames = last.encoded.visual_tokens, len(last.encoded.indices)
    size = size_of(last.prompt, tokens, model.config.slow_attention_scope)
    is_quantized = checkpoint.quantization is not Quantization.NONE
    sizes, dtype = architecture_of(model.config), str(model.dtype).removeprefix("torch.")
    flops = count_by_formula(sizes, num_frames, size)
    every = [asdict(run.figures) for run in runs]
    return ProfilePoint(
        num_frames=num_frames,
        num_prompt_tokens=size.length,
        num_fast_tokens=len(tokens.fast),
        num_slow_tokens=len(tokens.slow),
        spreads={name: Spread.of([figures[name] for figures in every]) for name in every[0]},
        peak_host_bytes=max((run.host_bytes for run in runs if run.host_bytes is not None), default=None),
        peak_device_bytes=max((run.device_bytes for run in runs if run.device_bytes is not None), default=None),
        flops=flops,
        flops_counted=None if is_quantized else count_on_model(model, num_frames, list(last.prompt), tokens),
        prefill_flops_all_in_self_attention=prefill_flops(
            sizes, PromptSize(prompt_size(sizes, ALL_IN_PROMPT, num_frames, size.length - len(tokens.fast)).length)
        ),
        floors=floors(sizes, flops, size, rates, dtype=dtype, quantization=checkpoint.quantization.value)
        if rates
        else None,
    )


def _baseline_points(checkpoint: LoadedCheckpoint, measured: _Measured) -> Iterator[BaselinePoint]:
    sizes = architecture_of(checkpoint.model.config)
    for (mode, num_frames), runs in sorted(measured.baselines.items()):
        size = measured.sizes[mode, num_frames]
        again = slow_keys_values_flops(sizes, size.num_slow) if mode is Baseline.SLOW_RECOMPUTED else 0
        yield BaselinePoint(
            baseline=mode,
            num_frames=num_frames,
            num_prompt_tokens=size.length,
            spreads={
                "prefill_seconds": Spread.of([run.prefill_seconds for run in runs]),
                "decode_seconds_per_token": Spread.of([run.decode_seconds_per_token for run in runs]),
            },
            prefill_flops=prefill_flops(sizes, size),
            decode_flops_per_token=decode_flops(sizes, size.length + 1, size.num_slow) + again,
        )


def _model_facts(checkpoint: LoadedCheckpoint) -> dict[str, object]:
    return {
        "name": checkpoint.location.name,
        "revision": checkpoint.revision,
        "random_weights": checkpoint.random_weights,
        "num_parameters": architecture_of(checkpoint.model.config).num_parameters,
        "quantization": checkpoint.quantization.value,
        "attention": checkpoint.attention.value,
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "device": checkpoint.device_names,
        "num_fast_frames": checkpoint.model.config.min_fast_frames,
    }


def _warnings(checkpoint: LoadedCheckpoint, measured: _Measured) -> Iterator[str]:
    for wanted, runs in measured.runs.items():
        yield from (warning for run in runs for warning in run.encoded.warnings)
        if (seen := len(runs[-1].encoded.indices)) < wanted:
            yield f"Only {seen} of {wanted} frames were found; the results for {seen} frames were measured with those."
    most = max((size.length for size in measured.sizes.values()), default=0)
    positions = int(checkpoint.model.config.decoder_config.max_position_embeddings)
    if most > positions:
        yield (
            f"With all tokens in self-attention the prompt takes {most} tokens, more than the model's {positions} "
            "positions: only its timing is meaningful."
        )
