"""`sfvqa ask`: questions about one video; what a dry run says of them, and a picture of what an answer looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfvqa.checkpoints.find import locate
from sfvqa.cli.answer_options import AnswerOptions, QuestionFile, Questions, gather_questions
from sfvqa.cli.answers import describe_frames, describe_video
from sfvqa.cli.frame_options import FrameOptions, WindowedFrameOptions
from sfvqa.cli.model import ModelOptions, describe_duration, seconds_on_cpu, tell_duration
from sfvqa.cli.options import (
    ONE,
    OUTPUT,
    CacheOptions,
    CaptionFormatName,
    Count,
    DryRun,
    OutputOptions,
    Video,
    is_bundled,
    option,
    parse_count,
    parse_file,
    rare_setting,
)
from sfvqa.cli.screen import echo, print_json, printable_line
from sfvqa.cli.warm import ServerUse, ask_server, find_server
from sfvqa.errors import ExitCode, ModelNotDownloadedError, UnreadableVideoError, UsageError
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
  sfvqa ask clip.mp4 "What flashes?" "Describe the video."   (encoded once)
  sfvqa ask clip.mp4 --questions questions.txt --json
  sfvqa ask talk.mp4 "What is on the slide?" --start 1:30 --end 0:02:15.5
  sfvqa ask clip.mp4 "Which digit is shown?" -q              (only the answer)
  sfvqa ask clip.mp4 "Which digit is shown?" --json | jq -r .answer
  sfvqa ask clip.mp4 "What happens?" --dry-run               (does it fit?)
  sfvqa ask clip.mp4 "Left (A) or right (B)?" --choices A,B  (compares them)
  sfvqa ask talk.mp4 "What is the talk about?" --subtitles talk.srt
  sfvqa ask talk.mp4 "What is the talk about?" --speech      (what is said)
  sfvqa ask game.mp4 "Does anyone score?" --window 30s       (asked of each)
  sfvqa ask game.mp4 "Who has the ball?" --window 5 --format srt > game.srt
  sfvqa ask clip.mp4 "What flashes?" --evidence-out strip.png
  sfvqa ask clip.mp4 -- "-5 or 5: which number is shown?"

Answer questions about a video; each argument is one question. Nothing is
downloaded unasked: the model is the one given with --model, or else the
configured one, or a downloaded one that fits in memory, or the bundled tiny."""


@dataclass(frozen=True, kw_only=True)
class AskOptions(AnswerOptions):
    """How `ask` answers."""

    evidence_out: Annotated[
        Path | None,
        option(
            "Draw a picture of each frame with its share of the answer's attention: .png, .jpg or .webp. Several "
            "questions give FILE-1, FILE-2, ….",
            parser=parse_file,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    format: Annotated[
        CaptionFormatName | None,
        option(
            "Print the answers about windows as captions: vtt, srt, txt, csv or jsonl.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    batch_size: Annotated[
        Count,
        rare_setting(
            "Answer up to N questions at once; above 1, answers do not stream.", metavar="N", parser=parse_count
        ),
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
    frames: WindowedFrameOptions,
    answers: AskOptions,
    cache: CacheOptions,
    server: ServerUse,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Check everything that can be checked, load, look, answer."""
    from sfvqa.cli.video import check_video, encode_video, open_video, plan_question
    from sfvqa.cli.windows import answer_windows, lay_out, windows_of

    asked = gather_questions(questions, question_file, video=video)
    windows = windows_of(frames, answers, asked, json=output.json)
    check_video(video)
    model.check(needs_weights=not dry_run)
    strips = filmstrip_paths(answers.evidence_out, len(asked), keep=video)
    answers.check(model)
    notices, at_once = output.notices(), answers.batch_size.number or 1  # auto is one after the other, as written
    may_offer = not (model.model or model.random_weights or answers.evidence or output.json or is_bundled(video))
    if not (dry_run or strips or windows):
        warm = find_server(server, video, model, frames, answers, cache, notices, may_offer_download=may_offer)
        if ask_server(warm, video, asked, json=output.json, batch_size=at_once):
            return
    from sfvqa.cli.answers import answer_questions, print_as_json
    from sfvqa.cli.model import check_fit, load
    from sfvqa.cli.models import offer_download
    from sfvqa.inference.question import check_looks

    with open_video(video, frames, cache.open(video), notices) as file:
        if may_offer and not dry_run:
            offer_download(notices)
        prompt = answers.prompt(file, notices, is_only_planned=dry_run)
        plan, sampling = plan_question(
            model,
            frames,
            file,
            asked,
            prompt,
            notices,
            max_new_tokens=answers.max_new_tokens,
            batch_size=at_once,
            static_decode=answers.static_decode,
            is_only_planned=dry_run,
        )
        if answers.evidence:
            check_looks(plan.sizes.name, plan.sizes.sizes.hybrid_layers)
        planned = lay_out(windows, file, sampling, notices) if windows else ()
        seconds = seconds_on_cpu(plan, len(asked) * (len(planned) or 1), is_seen=not planned and file.is_kept(sampling))
        if dry_run:
            sampling = planned[0].of(sampling) if planned else sampling  # other windows are much the same
            raise typer.Exit(show_plan(video, file, frames, plan, sampling, seconds, notices, json=output.json))
        check_fit(plan, seconds, notices)
        answerer = load(plan.settings, file.cache, notices)
        if planned:
            raise typer.Exit(
                answer_windows(answerer, file, planned, sampling, asked, answers, prompt, notices, json=output.json)
            )
        seen = encode_video(answerer, file, plan, sampling, frames, notices).lying_at(video)
        file.close()
        whole = print_as_json if output.json else None
        said = answer_questions(answerer, seen, asked, answers, prompt, notices, print_whole=whole, batch_size=at_once)
        draw_filmstrips(file, seen, said, strips, notices)
    notices.timings(said)


_LABEL_WIDTH = 8


def show_plan(
    video: Path,
    file: "VideoFile",
    frames: FrameOptions,
    plan: "Plan",
    sampling: "SamplingOptions",
    seconds: float | None,
    notices: "Notices",
    *,
    json: bool,
) -> ExitCode:
    """Print on stdout what would run; the exit code says whether it fits. `video` is the path as it was given."""
    indices, trained_with, run, estimate = file.indices(sampling), plan.sizes.trained_with, plan.run, plan.fit.estimate
    missing = _what_is_not_here(plan)
    crop = frames.crop_mode() or trained_with.crop
    warnings = [*trained_with.warnings(sampling, len(indices), crop), *missing, *plan.warnings]
    document = {
        "dry_run": True,
        "video": str(video),
        "model": plan.settings.title,
        "device": str(plan.device),
        "dtype": run.dtype,
        "quantization": run.quantization.value,
        "attention": run.attention,
        "frames": {
            "count": len(indices),
            "indices": list(indices),
            "timestamps_seconds": [file.reader.timestamps_seconds[index] for index in indices],
            "strategy": sampling.strategy.value,
        },
        "tokens": {
            "slow": estimate.num_slow_tokens,
            "fast": estimate.num_fast_tokens,
            "prompt_about": estimate.num_fast_tokens + run.num_text_tokens,
        },
        "memory": {
            "fits": None if plan.free_bytes is None else plan.fit.fits,
            "needed_bytes": estimate.needed_bytes,
            "free_bytes": plan.free_bytes,
            "peak_bytes": estimate.peak_bytes,
            "phases": estimate.phases,
            "parts": estimate.parts,
        },
        "seconds_on_cpu": seconds,
        "remedy": None if plan.fit.fits else plan.remedy,
        "notices": list(plan.notices),
        "warnings": warnings,
    }
    if json:
        print_json(document)
    else:
        for name, value in _rows(document, sampling, can_run=not missing).items():
            echo(f"{name:<{_LABEL_WIDTH}}{value}", hanging=_LABEL_WIDTH)
    for sentence in plan.notices:
        notices.note(sentence)
    for warning in warnings:
        notices.warn(warning)
    tell_duration(seconds, notices.note)
    return ExitCode.OK if plan.fit.fits else ExitCode.OUT_OF_MEMORY


def _what_is_not_here(plan: "Plan") -> list[str]:
    """That there is no such device, or no such model here, and how to get it."""
    from sfvqa.checkpoints.device import is_here
    from sfvqa.checkpoints.gpus import why_unusable

    missing, spec, device = [], plan.sizes.spec, plan.device
    if device.type == "cuda" and (error := why_unusable(device.index or 0)):
        missing.append(error.with_flags)
    elif not is_here(device):
        missing.append(f"This machine has no {device.type.upper()} device, so what fits on one is unknown.")
    if spec is not None and not plan.settings.random_weights:
        try:
            locate(spec.name)
        except ModelNotDownloadedError as error:
            missing.append(error.with_flags)
    return missing


def _rows(document: Mapping[str, Any], sampling: "SamplingOptions", *, can_run: bool) -> dict[str, str]:
    tokens, memory, needed = document["tokens"], document["memory"], readable_size(document["memory"]["needed_bytes"])
    peaks = ", ".join(f"{phase} {readable_size(size)}" for phase, size in memory["phases"].items())
    free = "unknown" if memory["free_bytes"] is None else readable_size(memory["free_bytes"])
    slow, fast = plural(tokens["slow"], "slow token"), plural(tokens["fast"], "fast token")
    fits = "unknown" if memory["fits"] is None else "yes" if memory["fits"] else f"no. {document['remedy']}"
    seconds = document["seconds_on_cpu"]
    return {
        "video": printable_line(document["video"]),
        "model": f"{document['model']} on {document['device']} in {document['dtype']}, "
        f"quantization {document['quantization']}",
        "frames": describe_frames(document["frames"]["timestamps_seconds"], sampling),
        "tokens": f"{slow}, {fast} in a prompt of about {tokens['prompt_about']:,}",
        "memory": f"{readable_size(memory['parts']['weights'])} of weights; at most: {peaks}",
        "needed": f"{needed}; free: {free}",
        **({"time": f"{describe_duration(seconds)} on this CPU"} if seconds else {}),
        "fits": fits if can_run else f"{fits}; it cannot run yet: see the warning",
    }


def filmstrip_paths(out: Path | None, num_answers: int, *, keep: Path) -> list[Path]:
    """Where the pictures go, none without `out`: there, or of several answers numbered, `strip-1.png` and so on.

    UsageError or SfvqaError where one of them cannot be written or would take the place of `keep`.
    """
    if out is None:
        return []
    from sfvqa.cli.whole_file import check_picture_path

    numbers = range(1, num_answers + 1)
    paths = [out] if num_answers == 1 else [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in numbers]
    for path in paths:
        check_picture_path(path, keep=keep)
    return paths


def draw_filmstrips(
    file: "VideoFile", encoded: "EncodedVideo", answers: "Sequence[Answer]", paths: Sequence[Path], notices: "Notices"
) -> None:
    """Read the frames again, small, and draw one picture an answer that looked at any. VideoError, SfvqaError."""
    if not paths:
        return
    from sfvqa.cli.whole_file import write_picture
    from sfvqa.video.contact_sheet import draw_contact_sheet

    with notices.waiting("Drawing the evidence"):
        cells = _read_cells(file, encoded)
        is_cut = encoded.crop.lost_share(encoded.video.width, encoded.video.height) > 0
        facts = (
            f"{encoded.video.path.name}, {answers[0].model}; {describe_video(encoded.video)}; bars: each frame's share "
            f"of the answer's slow attention, a hint, not proof; spread evenly it would be {100 / len(cells):.1f} %"
            + ("; the crop cuts off what is dark" if is_cut else "")
        )
        for answer, path in zip(answers, paths, strict=True):
            if weights := [frame.weight for frame in answer.evidence or ()]:
                titles = (answer.question, f"Answer: {answer.text}")
                strip = draw_contact_sheet(cells, titles=titles, facts=facts, crop=encoded.crop, weights=weights)
                write_picture(strip, path)
                notices.note(f"The evidence is drawn in {path}.")


def _read_cells(file: "VideoFile", encoded: "EncodedVideo") -> "list[Cell]":
    from sfvqa.video.contact_sheet import MAX_CELLS, Cell, fit_for_sheet
    from sfvqa.video.fitting import resize_to

    indices, reader = encoded.indices, file.reader
    if len(indices) > MAX_CELLS:
        raise UsageError(f"A picture holds at most {MAX_CELLS:,} frames.", "Use fewer frames (--frames), or --json.")
    if indices[-1] >= len(reader.timestamps_seconds):
        raise UnreadableVideoError(
            f"“{encoded.video.path}” has changed since it was encoded, and is now shorter.", "Ask again."
        )
    pixels = {frame.index: frame.pixels for frame in reader.read(indices, fit_for_sheet(len(indices), with_bars=True))}
    if not pixels:
        raise UnreadableVideoError(f"No frame of “{encoded.video.path}” can be read any more.", "Ask again.")
    height, width = next(iter(pixels.values())).shape[:2]
    return [
        Cell(index, seconds, resize_to(pixels[index], width, height) if index in pixels else None)
        for index, seconds in zip(indices, encoded.timestamps_seconds, strict=True)
    ]
