"""What the model is told beside the question, and what it may answer: options, and what they come to."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfvqa.cli.options import RARE, SETTING, OptionGroup, check_finite, check_positive, parse_file
from sfvqa.errors import UsageError
from sfvqa.given_file import STANDARD_INPUT, read_given

if TYPE_CHECKING:
    from sfvqa.cli.model import ModelOptions
    from sfvqa.cli.video import VideoFile
    from sfvqa.inference.engine import GenerationOptions
    from sfvqa.inference.question import PromptOptions


_TOLD = "What the model is told"
_PRINTED = "What it prints"
_FROM_THE_VIDEO = "auto"  # a subtitle file of that name is reached as ./auto

# The names of the library's enum, written out because importing it would import torch; a test compares.
SlowAttentionName = Literal["always", "prefill"]


def _check_seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise typer.BadParameter(f"{value} is not between 0 and 2⁶³ - 1.")
    return value


@dataclass(frozen=True, kw_only=True)
class TurnOptions(OptionGroup):
    """How an answer is written, and what goes into the prompt: what a chat and every other answer have in common.

    Of the last three only AnswerOptions makes options. Raises UsageError when built for what contradicts itself; of
    what was set for good, what is typed overrules the rest.
    """

    panel = "How it answers"

    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens."), SETTING] = 256
    temperature: Annotated[
        float,
        typer.Option(
            metavar="X", min=0.0, callback=check_finite, help="0 always takes the likeliest token; higher varies more."
        ),
        SETTING,
    ] = 0.0
    top_p: Annotated[
        float,
        typer.Option(
            metavar="X",
            max=1.0,
            callback=check_positive,
            help="Sample among the likeliest tokens that share this probability.",
        ),
        SETTING,
        RARE,
    ] = 1.0
    repetition_penalty: Annotated[
        float,
        typer.Option(metavar="X", callback=check_positive, help="Above 1 makes repetition less likely."),
        SETTING,
        RARE,
    ] = 1.0
    seed: Annotated[
        int, typer.Option(metavar="N", callback=_check_seed, help="Seed of the sampling."), SETTING, RARE
    ] = 0
    static_decode: Annotated[
        bool,
        typer.Option(
            help="Write tokens over buffers of fixed size, which CUDA records once and replays: the same tokens, "
            "faster after the recording."
        ),
        SETTING,
        RARE,
    ] = False
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The system message, in place of the model's own.", rich_help_panel=_TOLD),
        SETTING,
        RARE,
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Text around every question, which goes where it says {question}: "
            "--template '{question} Answer in one word.'",
            rich_help_panel=_TOLD,
        ),
        SETTING,
        RARE,
    ] = None
    subtitles: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|auto",
            help="Put subtitles into the prompt, with their times: of a .srt, .vtt, .ass or .sbv file, or (auto) the "
            "video's own text track. Lines outside the sampled range are left out.",
            rich_help_panel=_TOLD,
        ),
    ] = None
    subtitle_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Cut subtitles, evenly, to N tokens (default: what the model's training leaves room for, at most "
            "1024).",
            rich_help_panel=_TOLD,
        ),
        SETTING,
        RARE,
    ] = None
    slow_attention: SlowAttentionName = "always"
    choices: list[str] | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        if self.subtitles is None and self.subtitle_tokens is not None:
            if self.is_flag("subtitle_tokens"):
                raise UsageError("--subtitle-tokens is for --subtitles.", "Give subtitles, or leave it out.")
            self.overrule("subtitle_tokens")
        if self.subtitles == "":
            raise UsageError("The path of --subtitles is empty.", "Name a file, or auto.")

    @property
    def reads_text_track(self) -> bool:
        """Whether the subtitles are the video's own."""
        return self.subtitles == _FROM_THE_VIDEO

    @cached_property
    def compared(self) -> tuple[str, ...] | None:
        """The choices to compare, None where the answer is written. UsageError where they are none."""
        return parse_choices(self.choices) if self.choices else None

    @cached_property
    def fixed_prompt(self) -> "PromptOptions":
        """What goes into every prompt, without a video's own subtitles. Reads the subtitle file: SubtitlesError."""
        from sfvqa.inference.question import PromptOptions
        from sfvqa.video.subtitles import read_subtitle_file

        prompt = PromptOptions(self.system, self.template)
        if self.subtitles is None or self.reads_text_track:
            return prompt
        lines = read_subtitle_file(parse_file(self.subtitles))
        return replace(prompt, subtitles=lines, subtitle_tokens=self.subtitle_tokens)

    @property
    def num_prompt_tokens(self) -> int:
        """How many tokens stand in a prompt beside the question, at most, for estimates of memory."""
        from sfvqa.inference.question import MAX_SUBTITLE_TOKENS

        own = (self.subtitle_tokens or MAX_SUBTITLE_TOKENS) if self.reads_text_track else 0
        return self.fixed_prompt.num_tokens_about + own

    def check(self, model: "ModelOptions") -> None:
        """Fail now on what needs no model to be wrong: UsageError, SubtitlesError."""
        _ = self.compared, self.fixed_prompt
        if self.static_decode:
            from sfvqa.checkpoints.device import check_static_decode

            check_static_decode(model.attention, model.quant)

    def prompt(self, video: "VideoFile") -> "PromptOptions":
        """What goes into the prompt, with the video's own subtitles where they are asked for."""
        if not self.reads_text_track:
            return self.fixed_prompt
        return replace(self.fixed_prompt, subtitles=video.reader.subtitles(), subtitle_tokens=self.subtitle_tokens)

    def generation(self) -> "GenerationOptions":
        """How tokens are chosen; where choices are compared none is."""
        from sfvqa.inference.engine import GenerationOptions
        from sfvqa.inference.question import WRITING_OPTIONS
        from sfvqa.model import SlowAttention

        written = {} if self.compared else {name: getattr(self, name) for name in WRITING_OPTIONS}
        return GenerationOptions(**written, slow_attention=SlowAttention(self.slow_attention), evidence=self.evidence)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(TurnOptions):
    """The same, and what a chat cannot do: compare choices, watch the attention."""

    slow_attention: Annotated[
        SlowAttentionName,
        typer.Option(
            help="Whether new tokens look at the slow tokens: always (as trained), or prefill only (as the reference).",
            rich_help_panel=TurnOptions.panel,
        ),
        SETTING,
        RARE,
    ] = "always"
    choices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B,…",
            help="Answer with the likeliest of these, and say how likely each is. Quote one with a comma in it, "
            "as in a CSV file: --choices 'red,\"red, then blue\"'. Repeat to add more.",
            rich_help_panel=_TOLD,
        ),
    ] = None
    evidence: Annotated[
        bool,
        typer.Option(
            help="Also say which moments each answer looked at most, by its slow attention. A hint, no proof.",
            rich_help_panel=_PRINTED,
        ),
    ] = False

    def __post_init__(self) -> None:
        from sfvqa.inference.question import WRITING_OPTIONS, check_evidence

        super().__post_init__()
        if self.evidence and self.static_decode:
            check_evidence(static_decode=self.is_flag("static_decode"))
            self.overrule("static_decode", False)
        for name in WRITING_OPTIONS if self.choices else ():
            if self.is_flag(name):
                raise UsageError(
                    f"--{name.replace('_', '-')} says how an answer is written, and --choices are compared, not "
                    "written.",
                    "Leave one of them out.",
                )
        if self.choices:
            self.overrule("static_decode", False)


def parse_choices(values: Sequence[str]) -> tuple[str, ...]:
    """The choices of every `--choices`, each a row of a CSV file; UsageError when there is nothing to choose from.

    >>> parse_choices(['red, "red, then blue"', "green"])
    ('red', 'red, then blue', 'green')
    """
    from sfvqa.inference.question import check_choices

    try:
        rows = [row for value in values for row in csv.reader([value], skipinitialspace=True, strict=True)]
    except csv.Error as error:
        raise UsageError(
            f"The choices cannot be read: {error}.", "Write --choices 'A,B' or 'A,\"B, or C\"'."
        ) from error
    return check_choices([choice for row in rows for choice in row])


Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION", help="Each argument is one question; quote it.", show_default=False),
]
QuestionFile = Annotated[
    str | None,
    typer.Option("--questions", metavar="FILE", help="Also ask the questions of a text file, one a line; - is stdin."),
]

_MOST_BYTES = 16_000_000  # more than anybody asks about a video
_LINE_END = re.compile(r"\r\n|\r|\n")


def gather_questions(given: Sequence[str] | None, file: str | None, *, video: Path) -> tuple[str, ...]:
    """All of them, in order; UsageError when there is none, one is empty, or standard input is wanted twice."""
    from sfvqa.inference.question import check_question

    if file == STANDARD_INPUT and str(video) == STANDARD_INPUT:
        raise UsageError("Video and questions cannot both come from standard input.", "Name a file for one of them.")
    questions = (*(given or ()), *(() if file is None else read_questions(file)))
    if not questions:
        raise UsageError("No question was given.", "Ask one, in quotes, or name a file of them with --questions.")
    for question in questions:
        check_question(question)
    return questions


def read_questions(file: str) -> tuple[str, ...]:
    """The lines of a text file, or of standard input (`-`), without empty ones; UsageError when that cannot be read."""
    name = "standard input" if file == STANDARD_INPUT else f"“{file}”"
    try:
        text = read_given(file, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"The questions in {name} are not UTF-8 text.", "Save the file as UTF-8.") from None
    except OSError as error:
        raise UsageError(
            f"The questions in {name} cannot be read: {error.strerror or error}.",
            "Name a text file, one question a line.",
        ) from error
    lines = _LINE_END.split(text)  # str.splitlines ends lines where no editor does, at U+2028 for one
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise UsageError(f"There is no question in {name}.", "Write one question a line.")
    return questions
