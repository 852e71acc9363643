"""The options that say how an answer is written, token by token."""

from typing import Annotated, Literal

import typer

from sfvqa.cli.options import GENERATION, check_finite, check_positive

# The names of the library's enum, written out because importing it would import torch; a test compares.
SlowAttentionName = Literal["always", "prefill"]


def _check_seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise typer.BadParameter(f"{value} is not between 0 and 2⁶³ - 1.")
    return value


MaxNewTokens = Annotated[
    int,
    typer.Option(
        metavar="N",
        envvar="SFVQA_MAX_NEW_TOKENS",
        min=1,
        help="Longest answer, in tokens.",
        rich_help_panel=GENERATION,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        metavar="X",
        envvar="SFVQA_TEMPERATURE",
        min=0.0,
        callback=check_finite,
        help="0 always takes the likeliest token; higher varies more.",
        rich_help_panel=GENERATION,
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        metavar="X",
        envvar="SFVQA_TOP_P",
        max=1.0,
        callback=check_positive,
        help="Sample among the likeliest tokens that share this probability.",
        rich_help_panel=GENERATION,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        metavar="X",
        envvar="SFVQA_REPETITION_PENALTY",
        callback=check_positive,
        help="Above 1 makes repetition less likely.",
        rich_help_panel=GENERATION,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        envvar="SFVQA_SEED",
        callback=_check_seed,
        help="Seed of the sampling.",
        rich_help_panel=GENERATION,
    ),
]
SlowAttentionOption = Annotated[
    SlowAttentionName,
    typer.Option(
        "--slow-attention",
        envvar="SFVQA_SLOW_ATTENTION",
        help="Whether new tokens look at the slow tokens: always (as trained), or prefill only (as the reference).",
        rich_help_panel=GENERATION,
    ),
]
StaticDecode = Annotated[
    bool,
    typer.Option(
        "--static-decode",
        metavar="",
        envvar="SFVQA_STATIC_DECODE",
        help="Write tokens over buffers of fixed size, which CUDA records once and replays: faster there, with some "
        "time for the recording, and the same tokens.",
        rich_help_panel=GENERATION,
    ),
]
