"""The options that say what a model is told beside the question, and what it may answer."""

from pathlib import Path
from typing import Annotated

import typer

from sfvqa.cli.options import parse_file

_PROMPT = "What it is told"
_OUTPUT = "What is printed"

Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--choices",
        metavar="A,B,…",
        help="Answer with the likeliest of these, and say how likely each is. Quote one with a comma in it, "
        "as in a CSV file: --choices 'red,\"red, then blue\"'. Again adds more.",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="SFVQA_SYSTEM",
        help="The system message, in place of the model's own.",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="SFVQA_TEMPLATE",
        help="Text around every question, which goes where it says {question}: "
        "--template '{question} Answer in one word.'",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
SubtitlesOption = Annotated[
    str | None,
    typer.Option(
        "--subtitles",
        metavar="FILE|auto",
        help="Put subtitles into the prompt, with their times: of a .srt, .vtt, .ass or .sbv file, or (auto) the "
        "video's own text track. Lines outside the sampled range are left out.",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
SubtitleTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SFVQA_SUBTITLE_TOKENS",
        min=1,
        help="Cut subtitles, evenly, to N tokens. Without it: what the model's training leaves room for, at most 1024.",
        show_default=False,
        rich_help_panel=_PROMPT,
    ),
]
Evidence = Annotated[
    bool,
    typer.Option(
        "--evidence",
        metavar="",
        help="Also say which moments each answer looked at most: where its slow attention went. A hint, no proof.",
        rich_help_panel=_OUTPUT,
    ),
]
EvidenceOut = Annotated[
    Path | None,
    typer.Option(
        "--evidence-out",
        parser=parse_file,
        metavar="FILE",
        help="Draw the frames with how much the answer looked at each into this picture: .png, .jpg or .webp. "
        "Of several questions, FILE-1, FILE-2, ….",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
