"""`sfvqa ask`: questions about one video; what a dry run says of them, and a picture of what an answer looked at."""

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.answer_options import AnswerOptions, QuestionFile, Questions, gather_questions
from sfvqa.cli.answers import describe_frames, describe_video
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import ModelOptions, describe_duration, seconds_on_cpu, tell_duration
from sfvqa.cli.options import (
    ONE,
    RARE,
    SETTING,
    CacheOptions,
    Count,
    DryRun,
    OutputOptions,
    Video,
    parse_count,
    parse_file,
)
from sfvqa.cli.screen import echo, printable_line
from sfvqa.errors import ExitCode, UnreadableVideoError, UsageError
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.screen import Notices
    from sfvqa.cli.video import VideoFile
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.video.contact_sheet import Cell
    from sfvqa.video.sampling import SamplingOptions


HELP = """\b
[bold]Examples[/bold]
  sfvqa ask clip.mp4 "Which way does the circle move?"
  sfvqa ask clip.mp4 "What flashes?" "Describe the video."   (seen once)
  sfvqa ask clip.mp4 --questions questions.txt --json
  sfvqa ask talk.mp4 "What is on the slide?" --start 1:30 --end 0:02:15.5
  sfvqa ask clip.mp4 "Which digit is shown?" -q              (only the answer)
  sfvqa ask clip.mp4 "Which digit is shown?" --json | jq -r .answer
  sfvqa ask clip.mp4 "What happens?" --dry-run               (does it fit?)
  sfvqa ask clip.mp4 "Left (A) or right (B)?" --choices A,B  (compares them)
  sfvqa ask talk.mp4 "What is the talk about?" --subtitles talk.srt
  sfvqa ask clip.mp4 "What flashes?" --evidence-out strip.png
  sfvqa ask clip.mp4 -- "-5 or 5: which number is shown?"

Answer questions about a video, each argument one question. Nothing is
downloaded: the model is the one named, else the configured one, else one on
this machine that fits its memory, else the bundled one, tiny."""


@dataclass(frozen=True, kw_only=True)
class AskOptions(AnswerOptions):
    """How `ask` answers."""

    evidence_out: Annotated[
        Path | None,
        typer.Option(
            parser=parse_file,
            metavar="FILE",
            help="Draw the frames with how much the answer looked at each into this picture: .png, .jpg or .webp. "
            "Of several questions, FILE-1, FILE-2, ….",
            rich_help_panel=OutputOptions.panel,
        ),
    ] = None
    batch_size: Annotated[
        Count,
        typer.Option(
            parser=parse_count,
            metavar="N",
            help="Answer up to N questions at once; above 1 answers come when they are whole.",
            rich_help_panel=AnswerOptions.panel,
        ),
        SETTING,
        RARE,
    ] = ONE

    def __post_init__(self) -> None:
        if self.evidence_out is not None:
            self.overrule("evidence", True)
        super().__post_init__()


def ask(
    video: Video,
    questions: Questions = None,
    question_file: QuestionFile = None,
    *,
    model: ModelOptions,
    frames: FrameOptions,
    answers: AskOptions,
    cache: CacheOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Check everything that can be checked, load, look, answer."""
    from sfvqa.cli.answers import AnswerPrinter, answer_questions
    from sfvqa.cli.model import check_fit, load
    from sfvqa.cli.video import check_video, encode_video, open_video, plan_question

    asked = gather_questions(questions, question_file, video=video)
    check_video(video)
    model.check(needs_weights=not dry_run)
    strips = filmstrip_paths(answers.evidence_out, len(asked), keep=video)
    answers.check(model)
    notices, batch_size = output.notices(), answers.batch_size.number or 1  # auto is one after the other, as written
    with open_video(video, frames, cache.open(video), notices) as file:
        prompt = answers.prompt(file)
        plan, sampling = plan_question(
            model,
            frames,
            file,
            asked,
            prompt,
            notices,
            max_new_tokens=answers.max_new_tokens,
            batch_size=batch_size,
            static_decode=answers.static_decode,
            is_only_planned=dry_run,
        )
        seconds = seconds_on_cpu(plan, len(asked), is_seen=file.is_kept(sampling))
        if dry_run:
            planned = PlannedAsk(video, file, frames, plan, sampling, seconds)
            raise typer.Exit(planned.show(notices, json=output.json))
        check_fit(plan, seconds, notices)
        answerer = load(plan.settings, file.cache, notices)
        encoded = encode_video(answerer, file, plan, sampling, frames, notices).lying_at(video)
        file.close()
        printer = AnswerPrinter(notices, json=output.json, several=len(asked) > 1)
        said = answer_questions(answerer, encoded, asked, answers, prompt, printer, notices, batch_size)
        draw_filmstrips(file, encoded, said, strips, notices)
    notices.timings(said)


_LABEL_WIDTH = 8


@dataclass(frozen=True)
class PlannedAsk:
    """What a dry run says: the video as it was given and opened, and what would run."""

    video: Path
    file: "VideoFile"
    frames: FrameOptions
    plan: "Plan"
    sampling: "SamplingOptions"
    seconds: float | None

    def show(self, notices: "Notices", *, json: bool) -> ExitCode:
        """Print it on stdout; the exit code says whether it fits."""
        plan, trained_with = self.plan, self.plan.sizes.trained_with
        indices = self.file.indices(self.sampling)
        times = [self.file.reader.timestamps_seconds[index] for index in indices]
        remedy = None if plan.fit.fits else plan.remedy
        crop = self.frames.crop_mode() or trained_with.crop
        is_missing = self._what_is_not_here()
        warnings = [*trained_with.warnings(self.sampling, len(indices), crop), *is_missing]
        if json:
            typer.echo(jsonlib.dumps(self._document(indices, times, remedy, warnings), allow_nan=False))
        else:
            for line in self._lines(times, remedy, can_run=not is_missing):
                echo(line, hanging=_LABEL_WIDTH)
        for sentence in plan.notices:
            notices.note(sentence)
        for warning in warnings:
            notices.warn(warning)
        tell_duration(self.seconds, notices.note)
        return ExitCode.OK if plan.fit.fits else ExitCode.OUT_OF_MEMORY

    def _what_is_not_here(self) -> list[str]:
        """That there is no such device, or no such model here, and how to get it."""
        from sfvqa.checkpoints.device import is_here
        from sfvqa.checkpoints.find import locate
        from sfvqa.errors import ModelNotDownloadedError

        missing, spec, device = [], self.plan.sizes.spec, self.plan.device
        if not is_here(device):
            missing.append(f"There is no {device.type.upper()} device here, so what fits on one is unknown.")
        if spec is not None and not self.plan.settings.random_weights:
            try:
                locate(spec.name)
            except ModelNotDownloadedError as error:
                missing.append(error.with_flags)
        return missing

    def _lines(self, times: list[float], remedy: str | None, *, can_run: bool) -> list[str]:
        plan, run, estimate = self.plan, self.plan.run, self.plan.fit.estimate
        peaks = ", ".join(f"{phase} {readable_size(size)}" for phase, size in estimate.phases.items())
        free = "unknown" if plan.free_bytes is None else readable_size(plan.free_bytes)
        slow, fast = plural(estimate.num_slow_tokens, "slow token"), plural(estimate.num_fast_tokens, "fast token")
        rows = {
            "video": printable_line(str(self.video)),
            "model": f"{plan.sizes.name} on {plan.device} in {run.dtype}, quantization {run.quantization}",
            "frames": describe_frames(times, self.sampling),
            "tokens": f"{slow}, {fast} in a prompt of about {estimate.num_fast_tokens + run.num_text_tokens:,}",
            "memory": f"{readable_size(estimate.weights_bytes)} of weights; at most: {peaks}",
            "needed": f"{readable_size(estimate.needed_bytes)}; free: {free}",
        }
        if self.seconds:
            rows["time"] = f"{describe_duration(self.seconds)} on this CPU"
        fits = "unknown" if plan.free_bytes is None else "yes" if remedy is None else f"no. {remedy}"
        rows["fits"] = fits if can_run else f"{fits}; it cannot run yet: see the warning"
        return [f"{name:<{_LABEL_WIDTH}}{value}" for name, value in rows.items()]

    def _document(
        self, indices: tuple[int, ...], times: list[float], remedy: str | None, warnings: list[str]
    ) -> dict[str, object]:
        plan, run, estimate = self.plan, self.plan.run, self.plan.fit.estimate
        return {
            "schema_version": 1,
            "dry_run": True,
            "video": str(self.video),
            "model": plan.sizes.name,
            "device": str(plan.device),
            "dtype": run.dtype,
            "quantization": run.quantization.value,
            "attention": run.attention,
            "frames": {
                "count": len(times),
                "indices": list(indices),
                "timestamps_seconds": times,
                "strategy": self.sampling.strategy.value,
            },
            "tokens": {
                "slow": estimate.num_slow_tokens,
                "fast": estimate.num_fast_tokens,
                "prompt_about": estimate.num_fast_tokens + run.num_text_tokens,
            },
            "memory": {
                "fits": None if plan.free_bytes is None else remedy is None,
                "needed_bytes": estimate.needed_bytes,
                "free_bytes": plan.free_bytes,
                "peak_bytes": estimate.peak_bytes,
                "phases": estimate.phases,
                "parts": estimate.parts,
            },
            "seconds_on_cpu": self.seconds,
            "remedy": remedy,
            "notices": list(plan.notices),
            "warnings": warnings,
        }


def filmstrip_paths(out: Path | None, num_answers: int, *, keep: Path) -> list[Path]:
    """Where the pictures go, none without `out`: there, or of several answers numbered, `strip-1.png` and so on.

    UsageError or SfvqaError where one of them cannot be written or would take the place of `keep`.
    """
    from sfvqa.cli.whole_file import check_picture_path

    if out is None:
        return []
    if num_answers == 1:
        paths = [out]
    else:
        paths = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, num_answers + 1)]
    for path in paths:
        check_picture_path(path, keep=keep)
    return paths


def draw_filmstrips(
    file: "VideoFile", encoded: "EncodedVideo", answers: "Sequence[Answer]", paths: Sequence[Path], notices: "Notices"
) -> None:
    """Read the frames again, small, and draw one picture an answer that looked at any. VideoError, SfvqaError."""
    from sfvqa.cli.whole_file import write_picture
    from sfvqa.video.contact_sheet import draw_contact_sheet

    if not paths:
        return
    with notices.waiting("Drawing what it looked at"):
        cells = _read_cells(file, encoded)
        is_cut = encoded.crop.lost_share(encoded.video.width, encoded.video.height) > 0
        facts = (
            f"{encoded.video.path.name}, {answers[0].model}; {describe_video(encoded.video)}; bars: each frame's share "
            f"of the answer's slow attention, a hint and no proof; spread evenly it would be {100 / len(cells):.1f} %"
            + ("; the crop cuts off what is dark" if is_cut else "")
        )
        for answer, path in zip(answers, paths, strict=True):
            if weights := [frame.weight for frame in answer.evidence or ()]:
                titles = (answer.question, f"Answer: {answer.text}")
                strip = draw_contact_sheet(cells, titles=titles, facts=facts, crop=encoded.crop, weights=weights)
                write_picture(strip, path)
                notices.note(f"What the answer looked at is drawn in {path}.")


def _read_cells(file: "VideoFile", encoded: "EncodedVideo") -> "list[Cell]":
    from sfvqa.video.contact_sheet import MAX_CELLS, Cell, fit_for_sheet
    from sfvqa.video.fitting import resize_to

    if len(encoded.indices) > MAX_CELLS:
        raise UsageError(f"A picture holds {MAX_CELLS:,} frames.", "Look at fewer (--frames), or use --json.")
    reader = file.reader
    if encoded.indices[-1] >= len(reader.timestamps_seconds):
        raise UnreadableVideoError(
            f"“{encoded.video.path}” has changed since it was looked at: frames of then are not there any more.",
            "Ask again.",
        )
    read = {
        frame.index: frame.pixels
        for frame in reader.read(encoded.indices, fit_for_sheet(len(encoded.indices), with_bars=True))
    }
    if not read:
        raise UnreadableVideoError(f"No frame of “{encoded.video.path}” can be read any more.", "Ask again.")
    height, width = next(iter(read.values())).shape[:2]
    of_one_size = {index: resize_to(pixels, width, height) for index, pixels in read.items()}
    return [
        Cell(index, seconds, of_one_size.get(index))
        for index, seconds in zip(encoded.indices, encoded.timestamps_seconds, strict=True)
    ]
