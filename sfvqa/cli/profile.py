"""`sfvqa profile`: what is measured, what that becomes on this machine, and the files that are written of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfvqa.cli.answer_options import StaticDecodeName
from sfvqa.cli.frame_options import ReadingOptions
from sfvqa.cli.model import ModelOptions, num_question_tokens
from sfvqa.cli.options import OptionGroup, OutputOptions, Video, option, parse_file
from sfvqa.cli.screen import print_json
from sfvqa.cli.whole_file import check_picture_suffix, check_place, whole_file, whole_text_file
from sfvqa.errors import UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.profiling.measuring import Work
    from sfvqa.profiling.profile import Profile


class FrameCounts(tuple[int, ...]):
    """Numbers of frames, ascending; a type of its own, because typer takes a bare tuple for several values."""

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(map(str, self))


DEFAULT_FRAMES = FrameCounts((8, 16, 32, 64, 96, 128))


def parse_frame_counts(text: str) -> FrameCounts:
    """The numbers of `8,16,32`, each once; typer.BadParameter where one is none.

    >>> parse_frame_counts("32,8,8")
    (8, 32)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and int(part) > 0):
            raise typer.BadParameter(f"{part!r} is not a number of frames; write them like {DEFAULT_FRAMES}.")
    return FrameCounts(sorted({int(part) for part in parts}))


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(OptionGroup):
    """What is measured. UsageError when built for what contradicts itself."""

    panel = "What is measured"

    # Not called `frames`: the config file's `frames` is how many `ask` looks at, and says nothing of a profile.
    frame_counts: Annotated[
        FrameCounts,
        option(
            "Numbers of frames to measure; defaults above what the video has are skipped.",
            "--frames",
            parser=parse_frame_counts,
            metavar="N,N,…",
        ),
    ] = DEFAULT_FRAMES
    repeat: Annotated[int, option("Number of measured runs; medians are shown.", min=1)] = 3
    warmup: Annotated[int, option("Number of warm-up runs, which do not count.", min=0)] = 1
    new_tokens: Annotated[int, option("Tokens in each answer.", min=2)] = 32
    question: Annotated[str, option("The question to ask; its length affects the figures.")] = (
        "What happens in this video?"
    )
    baselines: Annotated[
        bool,
        option(
            "Also measure other modes of the same model: few frames and self-attention only, all visual tokens in "
            "self-attention, and slow keys and values recomputed for every token, as in the reference."
        ),
    ] = False
    encode_once: Annotated[
        bool,
        option("Read and encode once, and repeat only what the language model does: its figures need the repeats."),
    ] = False
    overlap: Annotated[bool, option("Read ahead while encoding, as `ask` does, instead of waiting.")] = False
    static_decode: Annotated[
        StaticDecodeName, option("Decode in fixed-size buffers, as `ask --static-decode` does; not with --baselines.")
    ] = "auto"

    def __post_init__(self) -> None:
        if self.baselines and self.static_decode == "on":
            raise UsageError(
                "--baselines decode step by step, and --static-decode on does not: the modes would not be comparable.",
                "Leave one of them out.",
            )
        if self.baselines:
            self.overrule("static_decode", "off")

    def check(self, model: ModelOptions) -> None:
        """Fail now on what needs no model to be wrong: UsageError."""
        from sfvqa.inference.question import check_question

        check_question(self.question)
        if self.static_decode == "on":
            from sfvqa.model.decode_step import check_static_decode, why_not_static

            check_static_decode("on", why_not_static(attention=model.attention, quantization=model.quant))

    def counts_in(self, video: Path, reading: ReadingOptions, notices: "Notices") -> tuple[int, ...]:
        """The numbers of frames that the video has; a frame is never shown twice to make up a number. UsageError."""
        from sfvqa.video.readers import open_video
        from sfvqa.video.reading import choose_unread
        from sfvqa.video.sampling import SamplingOptions

        with notices.waiting("Looking at the video"), open_video(video, reading.read_options()) as opened:
            there = len(choose_unread(opened, SamplingOptions(max(self.frame_counts))).indices)
        too_many = [count for count in self.frame_counts if count > there]
        if not too_many:
            return self.frame_counts
        if self.is_flag("frame_counts"):
            raise UsageError(
                f"The video has {plural(there, 'frame')}, fewer than the {too_many[0]} to be measured.",
                f"Use a longer video, or --frames up to {there}.",
            )
        kept = tuple(count for count in self.frame_counts if count <= there) or (there,)
        notices.warn(f"The video has {plural(there, 'frame')}; measuring {', '.join(map(str, kept))}.")
        return kept

    def plan(self, model: ModelOptions, sizes: "ModelSizes", counts: Sequence[int]) -> "Plan":
        """How the largest of them runs."""
        from sfvqa.checkpoints.plan import make_plan
        from sfvqa.profiling.measuring import fast_tokens_for

        if self.baselines and not sizes.sizes.hybrid_layers:
            raise UsageError(
                f"{sizes.name} has no slow tokens, and its baselines would all be the same.",
                "Leave out --baselines, or convert the model first: python -m sfvqa.training.convert.",
            )
        most = max(counts)
        in_prompt = max(map(sizes.sizes.num_visual_tokens, counts)) if self.baselines else 0
        return make_plan(
            model.settings(sizes.name),
            replace(sizes, fast=fast_tokens_for(sizes.fast, most)),
            num_frames=most,
            num_text_tokens=num_question_tokens([self.question]) + in_prompt,
            max_new_tokens=self.new_tokens,
            static_decode=self.static_decode,
        )

    def seconds_on_cpu(self, sizes: "ModelSizes", plan: "Plan", counts: Sequence[int]) -> float | None:
        """About how long all rounds take together; None on other devices."""
        from sfvqa.checkpoints.duration import Operations, count_operations, measure_cpu_speed, seconds_on_cpu
        from sfvqa.profiling.measuring import fast_tokens_for
        from sfvqa.registry.architecture import prompt_size

        if plan.device.type != "cpu":
            return None
        vision = prefill = decode = 0.0
        for count in counts:
            text = num_question_tokens([self.question])
            prompt = prompt_size(sizes.sizes, fast_tokens_for(sizes.fast, count), count, text)
            for length in [prompt.length, prompt.num_slow + text] if self.baselines else [prompt.length]:
                needed = count_operations(
                    sizes.sizes,
                    num_frames=count,
                    num_slow=prompt.num_slow,
                    length=length,
                    num_new_tokens=self.new_tokens,
                )
                prefill, decode = prefill + needed.prefill, decode + needed.decode
            vision += needed.vision
        rounds = self.repeat + self.warmup
        every = Operations((1 if self.encode_once else rounds) * vision, rounds * prefill, rounds * decode)
        return seconds_on_cpu(every, measure_cpu_speed(plan.run.dtype))


@dataclass(frozen=True, kw_only=True)
class ProfileFiles(OptionGroup):
    """What is written, and what is compared with."""

    panel = "What is written"

    compare: Annotated[
        Path | None,
        option(
            "Show what changed, beyond noise, since an earlier profile that --json wrote.",
            parser=parse_file,
            metavar="OLD.json",
        ),
    ] = None
    csv: Annotated[Path | None, option("Write a table, one row for each number of frames.", parser=parse_file)] = None
    plot: Annotated[
        Path | None,
        option('Draw a .png or .svg; needs matplotlib: `pip install "sfvqa\\[plot]"`.', parser=parse_file),
    ] = None
    trace: Annotated[
        Path | None,
        option("Trace one more run with the most frames, for chrome://tracing or Perfetto.", parser=parse_file),
    ] = None

    def check(self, video: Path) -> dict[str, Any] | None:
        """Fail now for what would fail after minutes: UsageError, SfvqaError. Gives the profile to compare with."""
        wanted = [path for path in (self.csv, self.plot, self.trace) if path is not None]
        keep = [path for path in (video, self.compare) if path is not None]
        if len({path.resolve() for path in wanted}) < len(wanted):
            raise UsageError("Two of --csv, --plot and --trace name the same file.", "Name a file for each.")
        for path in wanted:
            check_place(path, keep=keep)
        if self.plot is not None:
            from sfvqa.profiling.plot import FORMATS, check_matplotlib

            check_picture_suffix(self.plot, FORMATS)
            check_matplotlib()
        if self.compare is None:
            return None
        from sfvqa.profiling.compare import read_profile

        return read_profile(self.compare)

    def write(self, profile: "Profile", notices: "Notices") -> None:
        """Write table and picture, each whole or not at all."""
        if self.csv is not None:
            from sfvqa.profiling.profile import write_csv

            with whole_text_file(self.csv) as stream:
                num_rows = write_csv(profile, stream)
            notices.note(f"{plural(num_rows, 'row')} written to {self.csv}.")
        if self.plot is not None:
            from sfvqa.profiling.plot import FORMATS, draw

            with whole_file(self.plot, what="picture") as file:
                draw(profile, file, FORMATS[self.plot.suffix.lower()])
            notices.note(f"Picture written to {self.plot}.")

    def write_trace(self, answerer: "VideoQA", video: Path, num_frames: int, work: "Work", notices: "Notices") -> None:
        """Trace one more run, where that is wanted."""
        if self.trace is None:
            return
        from sfvqa.profiling.measuring import write_trace

        one_run = f"one run with {plural(num_frames, 'frame')}"
        with notices.waiting(f"Tracing {one_run}"), whole_file(self.trace, what="trace") as file:
            write_trace(answerer.checkpoint, video, num_frames, work, Path(file.name))
        notices.note(f"Trace of {one_run} written to {self.trace}.")


HELP = """\b
[bold]Examples[/bold]
  sfvqa profile clip.mp4
  sfvqa profile clip.mp4 --frames 16,64,128 --baselines --plot profile.png
  sfvqa profile clip.mp4 --json > today.json
  sfvqa profile clip.mp4 --compare yesterday.json
  sfvqa profile clip.mp4 --model slowfast-7b --random-weights --device cuda
  sfvqa profile clip.mp4 --trace trace.json --frames 64 --repeat 1

Measure every stage of a question about a video, for several numbers of
frames: medians over the repeats, and their spread. The steps are those of
`ask`, but the video cache is not used, and each stage waits for the one
before it (see --overlap). Whatever the number of frames, the prompt holds as
many fast frames as in the model's training. Other work on the machine makes
the figures too high; the report shows how stable they were."""


def profile(
    video: Video,
    *,
    measure: MeasureOptions,
    model: ModelOptions,
    reading: ReadingOptions,
    files: ProfileFiles,
    output: OutputOptions,
) -> None:
    """Check what can be checked, measure, print, write what was asked for."""
    from sfvqa.cli.model import check_fit, load
    from sfvqa.cli.profile_figures import print_profile
    from sfvqa.cli.video import check_video
    from sfvqa.video.readers.local_file import local_video

    measure.check(model)
    check_video(video)
    model.check()
    old, notices = files.check(video), output.notices()
    with local_video(video, timeout_seconds=reading.read_timeout) as path:
        sizes = model.choose(notices)
        from sfvqa.checkpoints.device import memory_errors
        from sfvqa.model.decode_step import StaticDecode
        from sfvqa.profiling.compare import check_comparable, compare
        from sfvqa.profiling.measuring import Work
        from sfvqa.profiling.sweep import SweepOptions, sweep

        counts = measure.counts_in(path, reading, notices)
        plan = measure.plan(model, sizes, counts)
        check_fit(plan, measure.seconds_on_cpu(sizes, plan, counts), notices)
        if old is not None:
            check_comparable(old, counts)
        crop = reading.crop_mode() or sizes.trained_with.crop
        work = Work(
            measure.question,
            measure.new_tokens,
            reading.read_options(),
            crop,
            measure.overlap,
            StaticDecode(measure.static_decode),
        )
        answerer = load(plan.settings, None, notices)
        options = SweepOptions(counts, measure.repeat, measure.warmup, measure.baselines, measure.encode_once)
        with memory_errors("profiling"):
            measured = notices.follow(sweep(answerer.checkpoint, path, work, options)).about(video)
        measured = replace(measured, warnings=(*plan.check(), *measured.warnings))
        comparison = None if old is None else compare(old, measured)
        if output.json:
            document = measured.to_dict() | ({} if comparison is None else {"comparison": comparison.to_dict()})
            print_json(document)
        else:
            print_profile(measured, comparison)
        for warning in measured.warnings:
            notices.warn(warning)
        files.write(measured, notices)
        files.write_trace(answerer, path, max(counts), work, notices)  # last: what was measured is not lost with it
