"""`sfvqa find`: the moments of a video that show something, as a list, JSON, a picture, and clips."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.find_figure import clock, percent
from sfvqa.cli.frame_options import FrameOptions, parse_time
from sfvqa.cli.model import ModelOptions
from sfvqa.cli.options import (
    OUTPUT,
    CacheOptions,
    Count,
    OptionGroup,
    OutputOptions,
    Video,
    check_positive,
    option,
    parse_count,
    parse_file,
    rare_setting,
    setting,
)
from sfvqa.cli.screen import echo, print_json
from sfvqa.errors import SfvqaError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfvqa.cli.screen import Notices
    from sfvqa.inference.find import Found
    from sfvqa.inference.moments import FindOptions
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.video.readers import VideoReader


HELP = """\b
[bold]Examples[/bold]
  sfvqa find garage.mp4 "a person falling"
  sfvqa find match.mp4 "Does a team score?" --top 3 --clips goals/
  sfvqa find garage.mp4 "a red car" --out moments.png
  sfvqa find garage.mp4 "a red car" --start 1:00:00 --every 4
  sfvqa find garage.mp4 "a red car" --json | jq ".moments[].best_seconds"

Find the moments of a long video that show something, the likeliest first.
The model is asked about one short window after the other, then again, closer,
about those that stand out against the video's own median. A question is asked
as it is; of anything else, the model is asked whether the video shows it."""

Text = Annotated[
    str,
    typer.Argument(
        metavar="TEXT", help="What the moment shows, or a question that it answers with yes.", show_default=False
    ),
]


@dataclass(frozen=True, kw_only=True)
class SearchOptions(OptionGroup):
    """What is looked for how."""

    panel = "What counts as a moment"

    every: Annotated[
        float,
        setting(
            "Length of the windows of the first look; longer events need longer windows.",
            metavar="TIME",
            parser=parse_time,
        ),
    ] = 8.0
    threshold: Annotated[float, setting("Least probability of a moment.", max=1.0, callback=check_positive)] = 0.5
    top: Annotated[int, setting("Show at most N moments.", min=1)] = 10
    template: Annotated[
        str | None, rare_setting('Text around the question, as in --template "{question} Answer yes or no."')
    ] = None

    def find_options(self) -> "FindOptions":
        """The same for the library. UsageError."""
        from sfvqa.inference.moments import FindOptions

        return FindOptions(every_seconds=self.every, threshold=self.threshold, top=self.top)


@dataclass(frozen=True, kw_only=True)
class FindFrameOptions(FrameOptions):
    """The same options, of which the number of frames is that of a window."""

    frames: Annotated[
        Count | None,
        setting(
            "How many frames of each window to look at (default: two a second, as far as the model was trained with so "
            "many; auto: fewer if memory is short).",
            parser=parse_count,
            metavar="N|auto",
        ),
    ] = None


def find(
    video: Video,
    text: Text,
    out: Annotated[
        Path | None,
        option(
            "Draw a timeline, and the frame of each moment, into this picture: .png or .svg.",
            parser=parse_file,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    clips: Annotated[
        Path | None,
        option(
            "Copy each moment into a file of its own in this folder, from the key frame before it, with its sound.",
            parser=parse_file,
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    *,
    model: ModelOptions,
    search: SearchOptions,
    frames: FindFrameOptions,
    cache: CacheOptions,
    output: OutputOptions,
) -> None:
    """Check everything that can be checked, load, look, tell."""
    from sfvqa.cli.video import check_video
    from sfvqa.inference.moments import question_about
    from sfvqa.video.readers import ReaderName, open_video
    from sfvqa.video.readers.local_file import local_video
    from sfvqa.video.sampling import SamplingOptions
    from sfvqa.video.windows import WindowOptions

    options, question = search.find_options(), question_about(text)
    check_video(video)
    model.check()
    WindowOptions(options.every_seconds).check(frames.resolve(SamplingOptions()))
    check_outputs(out, clips, keep=video)
    notices = output.notices()
    with (
        local_video(video, timeout_seconds=frames.read_timeout) as path,
        open_video(path, frames.read_options()) as file,
    ):
        if clips is not None and file.name is not ReaderName.PYAV:
            raise UsageError(
                f"No clips can be copied out of what the reader “{file.name}” reads.", "Leave out --clips."
            )
        found = look(model, search, frames, cache.open(video), file, text, question, options, notices)
        found = replace(found, video=replace(found.video, path=video))
        if output.json:
            print_json(found.to_dict())
        else:
            tell(found)
        notices.hint(describe(found))
        for warning in found.warnings:
            notices.warn(warning)
        failed: list[SfvqaError] = []
        for clip, error in copy_clips(found, file, clips) if clips is not None else ():
            if error is None:
                notices.note(f"Copied to {clip}.")
            else:
                notices.warn(f"There is no {clip}. {error.with_flags}")
                failed.append(error)
        if out is not None:
            draw_moments(found, file, out)
            notices.note(f"The moments are drawn in {out}.")
        if failed:
            raise typer.Exit(failed[0].exit_code)


def look(
    model: ModelOptions,
    search: SearchOptions,
    frames: FrameOptions,
    cache: "VideoCache | None",
    file: "VideoReader",
    text: str,
    question: str,
    options: "FindOptions",
    notices: "Notices",
) -> "Found":
    """Choose and load the model, and look for the moments under a progress bar."""
    from sfvqa.cli.model import check_fit, load, num_question_tokens
    from sfvqa.inference.question import PromptOptions

    prompt = PromptOptions(template=search.template)
    sizes = model.choose(notices)
    from sfvqa.checkpoints.plan import check_positions, make_plan
    from sfvqa.inference.find import find_progressively, sampling_for

    sampling = frames.resolve(sampling_for(sizes.trained_with.sampling, options))
    plan = make_plan(
        model.settings(sizes.name),
        sizes,
        num_frames=sampling.num_frames,
        fewer_frames=frames.fewer_if_short,
        num_text_tokens=num_question_tokens([question]) + prompt.num_tokens_about,
        max_new_tokens=1,
    )
    sampling = replace(sampling, num_frames=plan.run.num_frames)
    check_positions(sizes.sizes, sizes.fast, plan.run.num_frames)
    check_fit(plan, None, notices)
    answerer = load(plan.settings, cache, notices)
    return notices.follow(
        find_progressively(
            answerer,
            file,
            text,
            options,
            sampling=sampling,
            crop=frames.crop_mode(),
            prompt=prompt,
        )
    )


def check_outputs(out: Path | None, clips: Path | None, *, keep: Path) -> None:
    """Fail now if a picture or clips could not be written: UsageError, SfvqaError."""
    if out is not None:
        from sfvqa.cli.whole_file import check_picture_suffix, check_place
        from sfvqa.profiling.plot import FORMATS, check_matplotlib

        check_picture_suffix(out, FORMATS)
        check_place(out, keep=[keep])
        check_matplotlib()
    if clips is not None:
        from sfvqa.cli.whole_file import check_folder

        check_folder(clips)
        if not keep.is_file():
            raise UsageError(f"Clips can be copied out of a file only, not out of {keep}.", "Leave out --clips.")


def tell(found: "Found") -> None:
    """A line a moment on stdout, or that there is none."""
    for moment in found.moments:
        span = f"{clock(moment.start_seconds)}–{clock(moment.end_seconds)}"
        echo(f"{clock(moment.best_seconds):>8}  {percent(moment.probability):>6}  {span}")
    if not found.moments and found.calibration.median > 0:
        echo("Nothing found that stands out: the model says yes of half of the video or more.")
    elif not found.moments:
        nearest = found.likeliest
        span = f"{clock(nearest.start_seconds)}–{clock(nearest.end_seconds)}"
        likely = percent(found.calibration.probability(nearest.log_odds))
        echo(f"Nothing found. The likeliest part is {span}, at {likely}.")


def describe(found: "Found") -> str:
    """`garage.mp4 · 900 windows of 8 s, 230 closer: 17,200 frames looked at · tiny`."""
    first, closer = len(found.looks), found.num_windows - len(found.looks)
    every = f"{plural(first, 'window')} of {found.options.every_seconds:g} s"
    return (
        f"{found.video.path.name} · {every}, {closer:,} closer: {found.num_frames:,} frames looked at · {found.model}"
    )


def draw_moments(found: "Found", file: "VideoReader", out: Path) -> None:
    """Read the frame of each moment again, and draw them below the timeline. VideoError, SfvqaError."""
    from sfvqa.cli.find_figure import draw, pictured
    from sfvqa.cli.whole_file import whole_file
    from sfvqa.profiling.plot import FORMATS
    from sfvqa.video.fitting import FitWithin

    indices = sorted({moment.best_index for moment in pictured(found)})
    pictures = {frame.index: frame.pixels for frame in file.read(indices, FitWithin(320, 180))} if indices else {}
    with whole_file(out, what="picture") as picture:
        draw(found, pictures, picture, FORMATS[out.suffix.lower()])


def copy_clips(found: "Found", file: "VideoReader", folder: Path) -> "Iterator[tuple[Path, SfvqaError | None]]":
    """A file a moment, numbered by how likely it is, `2-garage-1.02.05.mp4`, or why there is none. SfvqaError."""
    from sfvqa.cli.whole_file import check_place, make_folder, whole_file
    from sfvqa.video.readers.cutting import CLIP_FORMATS

    make_folder(folder)
    video = found.video.path
    suffix = video.suffix if video.suffix.lower() in CLIP_FORMATS else ".mkv"
    num_digits = len(str(len(found.moments)))
    for number, moment in enumerate(found.moments, start=1):
        when = clock(moment.start_seconds).replace(":", ".")
        clip = folder / f"{number:0{num_digits}}-{video.stem}-{when}{suffix}"
        failure = None
        try:
            check_place(clip, keep=[video])
            file.allow_time()
            with whole_file(clip, what="clip") as whole:
                whole.close()  # and unlocked: on Windows no other process could write to it
                form = CLIP_FORMATS[suffix.lower()]
                file.copy_part(Path(whole.name), form, moment.start_seconds, moment.end_seconds)
        except SfvqaError as error:
            failure = error
        yield clip, failure
