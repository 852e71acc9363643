"""The options of `sfvqa batch` alone: what is asked, how much at a time, and when it gives up."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfvqa.cli.options import BatchSize, check_positive, parse_batch_size, parse_file

_QUESTIONS = "What is asked"
_WORK = "How it works"
_PROMPT = "What it is told"
_OUTPUT = "What is printed"


def _check_limit(value: float | None) -> float | None:
    return value if value is None else check_positive(value)


Source = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|GLOB|MANIFEST",
        help="A folder of videos and all within it, a pattern in quotes, or a list of videos and questions as JSON "
        "lines or CSV; - is such a list on standard input.",
        show_default=False,
    ),
]
QuestionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        metavar="QUESTION",
        help="Ask this about every video; again asks more.",
        show_default=False,
        rich_help_panel=_QUESTIONS,
    ),
]
QuestionFile = Annotated[
    str | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="Ask the questions of a text file too, one a line; - is standard input.",
        show_default=False,
        rich_help_panel=_QUESTIONS,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Take the Ith of N shares of the videos, from 1/N to N/N; `sfvqa merge` puts their records together.",
        show_default=False,
        rich_help_panel=_QUESTIONS,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        parser=parse_file,
        metavar="FILE",
        help="Append the records here, one JSON object a line; - is standard output. What it holds is not asked again.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Put an old FILE aside and begin anew.", rich_help_panel=_OUTPUT),
]
RetryErrors = Annotated[
    bool,
    typer.Option("--retry-errors", metavar="", help="Ask again where FILE holds an error.", rich_help_panel=_WORK),
]
BatchSizeOption = Annotated[
    BatchSize,
    typer.Option(
        "--batch-size",
        parser=parse_batch_size,
        metavar="N|auto",
        envvar="SFVQA_BATCH_SIZE",
        help="Answer up to N questions at once, about one video or several; auto: as memory allows, at most 16.",
        rich_help_panel=_WORK,
    ),
]
Readers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SFVQA_READERS",
        min=1,
        help="Read so many videos at a time, ahead of the model (default: by the cores).",
        show_default=False,
        rich_help_panel=_WORK,
    ),
]
FramesAhead = Annotated[
    int,
    typer.Option(
        metavar="N",
        envvar="SFVQA_FRAMES_AHEAD",
        min=8,
        help="Hold at most N frames, of all videos together, that the model has not seen yet.",
        rich_help_panel=_WORK,
    ),
]
ItemTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        envvar="SFVQA_ITEM_TIMEOUT",
        callback=_check_limit,
        help="Give a video up when reading it takes longer, or encoding it, and a question when its answer does "
        "(default: when nothing moves for 10 minutes in reading, or for an hour in the model).",
        show_default=False,
        rich_help_panel=_WORK,
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Stop after N failures.", show_default=False, rich_help_panel=_WORK),
]
Subtitles = Annotated[
    Literal["auto"] | None,
    typer.Option(
        "--subtitles",
        metavar="auto",
        help="auto: put each video's own text track into the prompt, with its times.",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Say how many items there are, are done and are left, and what would run; load and write nothing.",
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="A summary as one JSON object on stdout; errors too.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", metavar="", help="Only warnings and errors on stderr.", rich_help_panel=_OUTPUT),
]
