"""What a profile is to measure, and what that becomes on this machine; nothing is loaded here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.planning import PlannedRun, check_fit, num_question_tokens
from sfvqa.cli.session import ModelRequest
from sfvqa.errors import UsageError
from sfvqa.inference.question import check_static_decode
from sfvqa.wording import plural

if TYPE_CHECKING:
    import typer

    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.inference.plan import Plan
    from sfvqa.inference.sizes import ModelSizes
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.profiling.measuring import Work
    from sfvqa.profiling.profile import Profile
    from sfvqa.profiling.sweep import SweepOptions


@dataclass(frozen=True)
class PlannedProfile:
    """The request with every choice made."""

    model: ModelRequest
    work: "Work"
    options: "SweepOptions"

    def measure(self, answerer: "VideoQA", video: Path, notices: "Notices") -> "Profile":
        """Measure it under a progress bar."""
        from sfvqa.inference.device import memory_errors
        from sfvqa.profiling.sweep import sweep

        with memory_errors("profiling"):
            return notices.follow(sweep(answerer.checkpoint, video, self.work, self.options))


@dataclass(frozen=True)
class ProfileRequest:
    """What the options of `profile` say. Raises UsageError when built."""

    model: ModelRequest
    frames: "FrameRequest"
    frame_counts: tuple[int, ...]
    are_default_counts: bool
    num_repeats: int
    num_warmups: int
    num_new_tokens: int
    question: str
    baselines: bool
    overlap: bool
    static_decode: bool

    def __post_init__(self) -> None:
        if self.static_decode and self.baselines:
            raise UsageError(
                "--baselines decode step by step, and beside --static-decode that would be compared, not the modes.",
                "Leave one of them out.",
            )
        if self.static_decode:
            check_static_decode(self.model.attention, self.model.quantization)

    @classmethod
    def of(cls, context: "typer.Context") -> "ProfileRequest":
        """The request in the parameters of the command."""
        from sfvqa.cli.frame_request import FrameRequest

        given, source = context.params, context.get_parameter_source("frame_counts")
        return cls(
            model=ModelRequest.of(context),
            frames=FrameRequest(
                crop=given["crop"],
                reader=given["reader"],
                read_threads=given["read_threads"],
                read_timeout_seconds=given["read_timeout"],
            ),
            frame_counts=tuple(given["frame_counts"]),
            are_default_counts=source is not None and source.name == "DEFAULT",
            num_repeats=given["repeat"],
            num_warmups=given["warmup"],
            num_new_tokens=given["new_tokens"],
            question=given["question"],
            baselines=given["baselines"],
            overlap=given["overlap"],
            static_decode=given["static_decode"],
        )

    def plan(self, video: Path, notices: "Notices") -> PlannedProfile:
        """Choose the model and what fits, and say so. Raises UsageError for more frames than there are, VideoError,
        ModelError, OutOfMemoryError where what is left to us does not fit.
        """
        with notices.waiting("Choosing the model"):  # importing torch is part of the wait
            from sfvqa.inference.choose import choose_model
            from sfvqa.inference.sizes import read_sizes
            from sfvqa.profiling.measuring import Work
            from sfvqa.profiling.sweep import SweepOptions

            choice = choose_model(
                self.model.name if self.model.is_named_by_flag else None,
                configured=self.model.name,
                device=self.model.device,
                dtype=self.model.dtype,
                quantization=self.model.quantization,
            )
            sizes = read_sizes(choice.model, random_weights=self.model.random_weights)
            counts = self._counts_in(video, notices)
            planned = self._planned(sizes, counts, choice.model)
        for notice in ([] if self.model.is_named_by_flag else [choice.reason]) + list(planned.plan.notices):
            notices.note(notice)
        check_fit(planned, self.model.quantization, notices)
        crop = self.frames.crop_mode() or sizes.trained_with.crop
        return PlannedProfile(
            planned.model,
            Work(self.question, self.num_new_tokens, self.frames.reading(), crop, self.overlap, self.static_decode),
            SweepOptions(counts, self.num_repeats, self.num_warmups, self.baselines),
        )

    def _counts_in(self, video: Path, notices: "Notices") -> tuple[int, ...]:
        """The numbers of frames that the video has; a frame is never shown twice to make up a number."""
        from sfvqa.cli.video_file import VideoFile
        from sfvqa.video.sampling import SamplingOptions

        with VideoFile(video, self.frames, None, notices) as file:
            there = len(file.indices(SamplingOptions(max(self.frame_counts))))
        too_many = [count for count in self.frame_counts if count > there]
        if not too_many:
            return self.frame_counts
        if not self.are_default_counts:
            raise UsageError(
                f"The video has {plural(there, 'frame')}, fewer than the {too_many[0]} to be measured.",
                f"Use a longer video, or --frames up to {there}.",
            )
        kept = tuple(count for count in self.frame_counts if count <= there) or (there,)
        notices.warn(f"The video has {plural(there, 'frame')}: measured are {', '.join(map(str, kept))}.")
        return kept

    def _planned(self, sizes: "ModelSizes", counts: Sequence[int], name: str) -> PlannedRun:
        from sfvqa.inference.plan import make_plan
        from sfvqa.profiling.fast_frames import fast_tokens_for
        from sfvqa.video.sampling import SamplingOptions

        most = max(counts)
        in_prompt = max(map(sizes.sizes.num_visual_tokens, counts)) if self.baselines else 0
        plan = make_plan(
            replace(sizes, fast=fast_tokens_for(sizes.fast, most)),
            device=self.model.device,
            dtype=self.model.dtype,
            quantization=self.model.quantization,
            num_frames=most,
            num_text_tokens=num_question_tokens([self.question]) + in_prompt,
            max_new_tokens=self.num_new_tokens,
            attention=self.model.attention,
            static_decode=self.model.static_decode,
        )
        return PlannedRun(
            model=replace(self.model, name=name, is_named_by_flag=True, quantization=plan.run.quantization.value),
            frames=self.frames,
            sizes=sizes,
            plan=plan,
            sampling=SamplingOptions(most),
            indices=tuple(range(most)),
            seconds=self._seconds_on_cpu(sizes, plan, counts),
        )

    def _seconds_on_cpu(self, sizes: "ModelSizes", plan: "Plan", counts: Sequence[int]) -> float | None:
        """About how long all rounds take together; None on other devices."""
        from sfvqa.inference.duration import Operations, count_operations, measure_cpu_speed, seconds_on_cpu
        from sfvqa.profiling.fast_frames import fast_tokens_for
        from sfvqa.profiling.flops import prompt_size

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
                    num_new_tokens=self.num_new_tokens,
                )
                prefill, decode = prefill + needed.prefill, decode + needed.decode
            vision += needed.vision
        rounds = self.num_repeats + self.num_warmups
        every = Operations(rounds * vision, rounds * prefill, rounds * decode)
        return seconds_on_cpu(every, measure_cpu_speed(plan.run.dtype))
