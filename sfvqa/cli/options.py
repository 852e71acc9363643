"""The options that commands share: names, help, variables, and the checks that need no model. See frame_options and
writing_options."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfvqa.errors import UnreadableVideoError, UsageError

# The names of the library's enums, written out because importing those would import torch or cv2; a test compares.
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quant = Literal["auto", "none", "8bit", "4bit"]

GENERATION = "How it answers"
_MACHINE = "Where it runs"
_OUTPUT = "What is printed"


def check_finite(value: float) -> float:
    """A callback of options that take a finite number."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def check_positive(value: float) -> float:
    """A callback of options that take a finite number above 0."""
    if check_finite(value) <= 0:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not a device; use auto, cpu, mps, cuda or cuda:N.")
    return value


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """The models that can be named, for the shell."""
    from sfvqa.registry import load_registry

    return [(spec.name, spec.description) for spec in load_registry() if spec.name.startswith(incomplete)]


@dataclass(frozen=True)
class BatchSize:
    """How many questions are answered at a time; None is `auto`."""

    size: int | None


def parse_batch_size(text: str) -> BatchSize:
    """How many `text` means; typer.BadParameter where it means none."""
    if text == "auto":
        return BatchSize(None)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is no size of a batch; use 1 or more, or auto.")
    return BatchSize(int(text))


def _parse_questions_at_once(text: str) -> int:
    """The same where somebody waits for the answers: `auto` is one after the other, as they are written."""
    return parse_batch_size(text).size or 1


def parse_video(text: str) -> Path:
    """The path of a video; typer.BadParameter for an empty one, UnreadableVideoError for a URL."""
    from sfvqa.video.readers.local_file import refuse_address

    if not text:  # an unset variable, most likely; a Path would make it the current folder
        raise typer.BadParameter("the path is empty.")
    refuse_address(text)  # a Path would make one slash of two
    return Path(text)


def parse_file(text: str) -> Path:
    """The path of any other file, to read or to write; typer.BadParameter for an empty one, UsageError for a URL."""
    try:
        return parse_video(text)
    except UnreadableVideoError:
        raise UsageError(f"“{text}” is an address, and no file here.", "Download it first, or name a file.") from None


Video = Annotated[
    Path,
    typer.Argument(
        parser=parse_video,
        metavar="VIDEO",
        help="A video file, a folder of pictures, or - for standard input.",
        show_default=False,
    ),
]
Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION", help="Each argument is one question; quote it.", show_default=False),
]
QuestionFile = Annotated[
    str | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="Ask the questions of a text file too, one a line; - is standard input.",
        show_default=False,
    ),
]
QuestionsAtOnce = Annotated[
    int,
    typer.Option(
        "--batch-size",
        parser=_parse_questions_at_once,
        metavar="N",
        envvar="SFVQA_BATCH_SIZE",
        help="Answer up to N questions at once, in one batch; above 1 answers come when they are whole.",
        rich_help_panel=GENERATION,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="SFVQA_MODEL",
        metavar="NAME|FOLDER",
        help="A name from `sfvqa models list`, or a checkpoint folder. Without it: a downloaded model, else tiny.",
        autocompletion=complete_model,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar="SFVQA_DEVICE",
        callback=_check_device,
        help="auto, cpu, mps, cuda or cuda:N.",
        rich_help_panel=_MACHINE,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        envvar="SFVQA_DTYPE",
        metavar="NAME",
        help="auto, float32, bfloat16 or float16.",
        rich_help_panel=_MACHINE,
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention",
        envvar="SFVQA_ATTENTION",
        metavar="NAME",
        help="sdpa, eager or flash_attention_2.",
        rich_help_panel=_MACHINE,
    ),
]
QuantOption = Annotated[
    Quant,
    typer.Option(
        "--quant",
        envvar="SFVQA_QUANT",
        metavar="NAME",
        help="Bits of the decoder's weights: none (as published), 8bit, 4bit or auto.",
        rich_help_panel=_MACHINE,
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        metavar="",
        help="Build the model without its weights, to measure time and memory; its answers mean nothing.",
        rich_help_panel=_MACHINE,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Say what would run, with how much memory, and whether that fits (if not: exit code 5); load nothing.",
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="JSON on stdout, an object a question; errors too.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        metavar="",
        help="Nothing but the answers, one a line, and warnings on stderr.",
        rich_help_panel=_OUTPUT,
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=parse_file,
        metavar="FILE",
        help="Draw the frames into this picture: .png, .jpg or .webp.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
QuietFrames = Annotated[
    bool,
    typer.Option("--quiet", "-q", metavar="", help="Only warnings and errors on stderr.", rich_help_panel=_OUTPUT),
]

# What the user's config file may set: every option above that has a variable, by parameter name.
CONFIGURABLE = (
    "model",
    "frames",
    "sampling",
    "fps",
    "timestamps",
    "start",
    "end",
    "crop",
    "reader",
    "read_threads",
    "read_timeout",
    "max_new_tokens",
    "temperature",
    "top_p",
    "repetition_penalty",
    "seed",
    "context",
    "system",
    "template",
    "subtitle_tokens",
    "slow_attention",
    "static_decode",
    "batch_size",
    "readers",
    "frames_ahead",
    "item_timeout",
    "workers",
    "gpus_per_worker",
    "device",
    "dtype",
    "attention",
    "quant",
    "no_cache",
    "cache_size",
    "full_hash",
)
