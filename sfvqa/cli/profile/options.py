"""The options that `profile` alone has."""

from pathlib import Path
from typing import Annotated

import typer

from sfvqa.cli.options import parse_file

_MEASURED = "What is measured"
_WRITTEN = "What is written"

DEFAULT_FRAMES = "8,16,32,64,96,128"


class FrameCounts(tuple[int, ...]):
    """Numbers of frames, ascending; a type of its own, because typer takes a bare tuple for several values."""

    __slots__ = ()


def parse_frame_counts(text: str) -> FrameCounts:
    """The numbers of `8,16,32`, each once; typer.BadParameter where one is none.

    >>> parse_frame_counts("32,8,8")
    (8, 32)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and int(part) > 0):
            raise typer.BadParameter(f"{part!r} is no number of frames; write it like {DEFAULT_FRAMES}.")
    return FrameCounts(sorted({int(part) for part in parts}))


# Not called `frames`: the config file's `frames` is how many `ask` looks at, and says nothing of a profile.
FrameCountsOption = Annotated[
    FrameCounts,
    typer.Option(
        "--frames",
        parser=parse_frame_counts,
        metavar="N,N,…",
        help="The numbers of frames to measure; of the default, those that the video has.",
        rich_help_panel=_MEASURED,
    ),
]
Repeat = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="How often each is measured; medians count.", rich_help_panel=_MEASURED),
]
Warmup = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Rounds before that, which do not count.", rich_help_panel=_MEASURED),
]
NewTokens = Annotated[
    int,
    typer.Option(
        metavar="N", min=2, help="How many tokens each answer has, whatever they are.", rich_help_panel=_MEASURED
    ),
]
Question = Annotated[
    str, typer.Option(metavar="TEXT", help="What is asked; its tokens count.", rich_help_panel=_MEASURED)
]
Baselines = Annotated[
    bool,
    typer.Option(
        "--baselines",
        metavar="",
        help="Measure other modes of the same model too: few frames and self-attention only, all visual tokens in "
        "self-attention, and slow keys and values recomputed for every token, as the reference does.",
        rich_help_panel=_MEASURED,
    ),
]
Overlap = Annotated[
    bool,
    typer.Option(
        "--overlap",
        metavar="",
        help="Read ahead while frames are encoded, as `ask` does; else one waits for the other, undisturbed.",
        rich_help_panel=_MEASURED,
    ),
]
StaticDecode = Annotated[
    bool,
    typer.Option(
        "--static-decode",
        metavar="",
        help="Write tokens over buffers of fixed size, as `ask --static-decode` does.",
        rich_help_panel=_MEASURED,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="OLD.json",
        help="Say what changed since an earlier profile's --json, beyond the noise of both.",
        show_default=False,
        rich_help_panel=_WRITTEN,
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FILE",
        help="Write a table, a row a number of frames.",
        show_default=False,
        rich_help_panel=_WRITTEN,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FILE",
        help="Draw a picture, .png or .svg; needs matplotlib, `pip install 'sfvqa\\[plot]'`.",
        show_default=False,
        rich_help_panel=_WRITTEN,
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FILE",
        help="Trace one more run, the one with the most frames, for chrome://tracing or Perfetto (.json).",
        show_default=False,
        rich_help_panel=_WRITTEN,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="One JSON object on stdout; errors too.", rich_help_panel="What is printed"
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        metavar="",
        help="Only warnings and errors on stderr.",
        rich_help_panel="What is printed",
    ),
]
