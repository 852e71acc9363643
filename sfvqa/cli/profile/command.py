"""`sfvqa profile`: where the time of a question goes, and how it grows with the number of frames."""

import json as jsonlib
import sys

import typer

from sfvqa.cli import frame_options, options
from sfvqa.cli.profile import options as profile_options
from sfvqa.cli.profile.options import DEFAULT_FRAMES

HELP = """\b
[bold]Examples[/bold]
  sfvqa profile clip.mp4
  sfvqa profile clip.mp4 --frames 16,64,128 --baselines --plot profile.png
  sfvqa profile clip.mp4 --json > today.json
  sfvqa profile clip.mp4 --compare yesterday.json
  sfvqa profile clip.mp4 --model slowfast-7b --random-weights --device cuda
  sfvqa profile clip.mp4 --trace trace.json --frames 64 --repeat 1

Measure every stage of a question about a video, for several numbers of frames:
medians over the repeats, with how far these lie apart. The steps are those of
`ask`, but nothing is taken from the video cache, and each stage waits for the
one before it (see --overlap). However many frames there are, the prompt holds
as many fast frames as in the model's training. On a machine with other work
the figures are too high: the table says how restless they were."""


def profile(
    context: typer.Context,
    video: options.Video,
    model: options.Model = None,  # noqa: ARG001  read from the context, with where it came from
    frame_counts: profile_options.FrameCountsOption = DEFAULT_FRAMES,  # type: ignore[assignment]  # noqa: ARG001
    repeat: profile_options.Repeat = 3,  # noqa: ARG001
    warmup: profile_options.Warmup = 1,  # noqa: ARG001
    new_tokens: profile_options.NewTokens = 32,  # noqa: ARG001
    question: profile_options.Question = "What happens in this video?",  # noqa: ARG001
    baselines: profile_options.Baselines = False,  # noqa: ARG001
    overlap: profile_options.Overlap = False,  # noqa: ARG001
    static_decode: profile_options.StaticDecode = False,  # noqa: ARG001
    crop: frame_options.CropOption = None,  # noqa: ARG001
    reader: frame_options.ReaderOption = "auto",  # noqa: ARG001
    read_threads: frame_options.ReadThreads = None,  # noqa: ARG001
    read_timeout: frame_options.ReadTimeout = 600.0,
    device: options.Device = "auto",  # noqa: ARG001
    dtype: options.DtypeOption = "auto",  # noqa: ARG001
    attention: options.AttentionOption = "sdpa",  # noqa: ARG001
    quant: options.QuantOption = "auto",  # noqa: ARG001
    random_weights: options.RandomWeights = False,  # noqa: ARG001
    compare: profile_options.Compare = None,
    csv: profile_options.Csv = None,
    plot: profile_options.Plot = None,
    trace: profile_options.Trace = None,
    json: profile_options.Json = False,
    quiet: profile_options.Quiet = False,
) -> None:
    """Check what can be checked, measure, print, write what was asked for."""
    from sfvqa.cli import session
    from sfvqa.cli.profile.files import ProfileFiles
    from sfvqa.cli.profile.request import ProfileRequest
    from sfvqa.cli.profile.view import print_profile
    from sfvqa.cli.render import Notices
    from sfvqa.video.readers.standard_input import local_video

    notices = Notices(quiet=quiet)
    request = ProfileRequest.of(context)
    session.check_request(video, [request.question], request.model)
    files = ProfileFiles(csv, plot, trace)
    files.check(keep=[video, compare])
    old = files.earlier(compare)
    with local_video(video, timeout_seconds=read_timeout) as path:
        planned = request.plan(path, notices)
        files.check_comparable(old, planned)
        answerer = session.load_model(planned.model, None, notices)
        measured = planned.measure(answerer, path, notices).about(video)
        comparison = None if old is None else files.compare(old, measured)
        if json:
            document = measured.to_dict() | ({} if comparison is None else {"comparison": comparison.to_dict()})
            sys.stdout.write(jsonlib.dumps(document, allow_nan=False) + "\n")
        else:
            print_profile(measured, comparison)
        sys.stdout.flush()
        for warning in measured.warnings:
            notices.warn(warning)
        files.write(measured, notices)
        files.write_trace(answerer, path, planned, notices)  # last: what was measured is not to be lost with it
