"""`sfvqa frames`: which frames of a video a model would see, as a table, as JSON, or as a picture; loads no model."""

import json as jsonlib
import sys

import typer

from sfvqa.cli import frame_options, options

HELP = """\b
[bold]Examples[/bold]
  sfvqa frames clip.mp4
  sfvqa frames clip.mp4 --out sheet.png
  sfvqa frames clip.mp4 --fps 2 --start 1:00 --end 1:30
  sfvqa frames clip.mp4 --timestamps 5,1:30,1:31.5
  sfvqa frames clip.mp4 --crop pad --model slowfast-7b-64f
  sfvqa frames clip.mp4 --json | jq '.frames[].timestamp_seconds'

Show what the model would see of a video, without loading a model: index and
time of each frame, how much of the picture is cut off, what is wrong with the
file."""


def frames(
    context: typer.Context,
    video: options.Video,
    model: options.Model = None,
    frames: frame_options.Frames = None,  # noqa: ARG001  these are read from the context, with where they came from
    sampling: frame_options.SamplingOption = None,  # noqa: ARG001
    fps: frame_options.Fps = None,  # noqa: ARG001
    timestamps: frame_options.Timestamps = None,  # noqa: ARG001
    start: frame_options.Start = None,  # noqa: ARG001
    end: frame_options.End = None,  # noqa: ARG001
    crop: frame_options.CropOption = None,  # noqa: ARG001
    reader: frame_options.ReaderOption = "auto",  # noqa: ARG001
    read_threads: frame_options.ReadThreads = None,  # noqa: ARG001
    read_timeout: frame_options.ReadTimeout = 600.0,  # noqa: ARG001
    out: options.Sheet = None,
    json: options.Json = False,
    quiet: options.QuietFrames = False,
) -> None:
    """Check everything that can be checked, read, and say what was seen."""
    from sfvqa.cli.clip_view import SMALLEST_FIT, ClipView, choose_sheet_fit
    from sfvqa.cli.expected_model import expect_model
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.picture_file import check_picture_path, write_picture
    from sfvqa.cli.render import Notices
    from sfvqa.video.readers.local_file import check_local_file
    from sfvqa.video.readers.standard_input import STANDARD_INPUT, local_video
    from sfvqa.video.reading import read_clip_progressively

    request = FrameRequest.of(context)
    if str(video) != STANDARD_INPUT:
        check_local_file(video)
    if out is not None:
        check_picture_path(out, keep=video)
    expected = expect_model(model)
    wanted, reading = request.sampling(expected.trained_with.sampling), request.reading()
    fit = SMALLEST_FIT if out is None else choose_sheet_fit(wanted)
    notices = Notices(quiet=quiet)
    notices.note(expected.reason)
    with local_video(video, timeout_seconds=request.read_timeout_seconds) as path:
        clip = notices.follow(read_clip_progressively(path, wanted, reading=reading, fit=fit))
    view = ClipView(clip, wanted, request.crop_mode() or expected.trained_with.crop)
    num_chosen = len(clip.indices) + len(clip.missing)
    warnings = [*clip.warnings, *expected.trained_with.warnings(wanted, num_chosen, view.crop)]
    if out is not None:
        write_picture(view.sheet(), out)
    document = view.document(video, expected.name, reading, warnings)
    sys.stdout.write((jsonlib.dumps(document, allow_nan=False) if json else view.table()) + "\n")
    sys.stdout.flush()
    notices.note(view.summary)  # at the end, where it is seen: the table may be long
    for warning in warnings:
        notices.warn(warning)
    if out is not None:
        notices.note(f"The frames are drawn in {out}.")
