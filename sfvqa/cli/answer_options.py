"""What the model is told beside the question, and what it may answer: options, and what they come to."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sfvqa.cli.options import (
    OUTPUT,
    OptionGroup,
    check_finite,
    check_positive,
    option,
    parse_file,
    rare_setting,
    setting,
)
from sfvqa.errors import UsageError
from sfvqa.given_file import STANDARD_INPUT, read_given
from sfvqa.registry import load_registry

if TYPE_CHECKING:
    from sfvqa.cli.model import ModelOptions
    from sfvqa.cli.screen import Notices
    from sfvqa.cli.video import VideoFile
    from sfvqa.inference.engine import GenerationOptions
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.schema import JsonSchema
    from sfvqa.inference.speech import SpeechOptions
    from sfvqa.video.subtitles import Subtitles


_FROM_THE_VIDEO = "auto"  # a subtitle file of that name is reached as ./auto

# The names of the library's enum, written out because importing it would import torch; a test compares.
SlowAttentionName = Literal["always", "prefill"]
StaticDecodeName = Literal["auto", "on", "off"]


def _check_seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise typer.BadParameter(f"{value} is not between 0 and 2⁶³ - 1.")
    return value


def complete_speech_model(incomplete: str) -> list[tuple[str, str]]:
    """The speech models that can be named, for the shell."""
    return [(spec.name, spec.description) for spec in load_registry().speech if spec.name.startswith(incomplete)]


SPEECH_MODEL_HELP = "A speech model of `sfvqa models list`, or its folder (default: the first that is downloaded)."
SPEECH_LANGUAGE_HELP = "The language that is spoken, as in de (default: found out by the speech model)."
SpeechModel = Annotated[
    str | None, rare_setting(SPEECH_MODEL_HELP, metavar="NAME|FOLDER", autocompletion=complete_speech_model)
]
SpeechLanguage = Annotated[str | None, rare_setting(SPEECH_LANGUAGE_HELP, metavar="CODE")]


def speech_options(model: str | None, language: str | None) -> "SpeechOptions":
    """How a video is listened to; a folder by its absolute path, which holds in other processes too."""
    from sfvqa.inference.speech import SpeechOptions

    is_folder = model is not None and "/" in model and Path(model).expanduser().is_dir()
    return SpeechOptions(str(Path(model).expanduser().absolute()) if model and is_folder else model, language)


@dataclass(frozen=True, kw_only=True)
class PromptGroup(OptionGroup):
    """What goes into the prompt beside the question. UsageError when built for what contradicts itself."""

    panel = "What the model is told"

    system: Annotated[str | None, rare_setting("System message to use instead of the model's own.")] = None
    template: Annotated[
        str | None,
        rare_setting('Text around each question, as in --template "{question} Answer in one word."'),
    ] = None
    subtitles: Annotated[
        str | None,
        option(
            "Put subtitles with their times into the prompt, from a .srt, .vtt, .ass or .sbv file, or (auto) from the "
            "video's own text track. Lines outside the sampled range are left out.",
            metavar="FILE|auto",
        ),
    ] = None
    subtitle_tokens: Annotated[
        int | None,
        rare_setting(
            "Thin subtitles, or what is said, evenly to N tokens (default: what training leaves room for, at most "
            "1024).",
            min=1,
        ),
    ] = None
    speech: Annotated[
        bool,
        option("Put what is said into the prompt, with its times: a speech model listens to the whole video first."),
    ] = False
    speech_model: SpeechModel = None
    speech_language: SpeechLanguage = None

    def __post_init__(self) -> None:
        needed = {"subtitle_tokens": self.subtitles is None and not self.speech}
        needed |= dict.fromkeys(("speech_model", "speech_language"), not self.speech)
        for name in (name for name, lacks in needed.items() if lacks and getattr(self, name) is not None):
            if self.is_flag(name):
                flag, other = f"--{name.replace('_', '-')}", "--subtitles" if "subtitle" in name else "--speech"
                raise UsageError(f"{flag} needs {other}.", f"Add {other}, or leave out {flag}.")
            self.overrule(name)
        if self.speech and self.subtitles is not None:
            raise UsageError("--speech and --subtitles contradict each other.", "Leave one of them out.")
        if self.subtitles == "":
            raise UsageError("The path of --subtitles is empty.", "Name a file, or auto.")

    @property
    def reads_text_track(self) -> bool:
        """Whether the subtitles are the video's own."""
        return self.subtitles == _FROM_THE_VIDEO

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

        own = (self.subtitle_tokens or MAX_SUBTITLE_TOKENS) if self.depends_on_video else 0
        return self.fixed_prompt.num_tokens_about + own

    @property
    def depends_on_video(self) -> bool:
        """Whether what goes into the prompt is taken from the video."""
        return self.reads_text_track or self.speech

    @cached_property
    def speech_options(self) -> "SpeechOptions | None":
        """How a video is listened to, None where it is not."""
        return speech_options(self.speech_model, self.speech_language) if self.speech else None

    def prompt(self, video: "VideoFile", notices: "Notices", *, is_only_planned: bool = False) -> "PromptOptions":
        """What goes into the prompt, with the video's own subtitles, or what is said in it, where that is asked for.

        Where it is only planned, what is not known of the video stays open.
        """
        if not self.depends_on_video:
            return self.fixed_prompt
        lines = video.reader.subtitles() if self.reads_text_track else self._said_in(video, notices, is_only_planned)
        return replace(self.fixed_prompt, subtitles=lines, subtitle_tokens=self.subtitle_tokens)

    def _said_in(self, video: "VideoFile", notices: "Notices", is_only_planned: bool) -> "Subtitles":
        from sfvqa.inference.speech import Transcriber
        from sfvqa.video.subtitles import SubtitleLine, Subtitles

        transcriber = Transcriber(self.speech_options, video.cache)
        if (kept := transcriber.kept(video.path)) is not None:
            return kept.as_subtitles
        if is_only_planned:
            return Subtitles((SubtitleLine(0.0, 0.0, "…"),), "speech")
        return notices.follow(transcriber.transcribe_open(video.reader)).as_subtitles


@dataclass(frozen=True, kw_only=True)
class TurnOptions(PromptGroup):
    """How an answer is written: what a chat and every other answer have in common.

    Of the last five only AnswerOptions makes options. What is typed overrules what was set for good.
    """

    panel = "How it answers"

    max_new_tokens: Annotated[int, setting("Maximum length of an answer, in tokens.", min=1)] = 256
    temperature: Annotated[
        float,
        rare_setting("0 always takes the likeliest token; higher values vary more.", min=0.0, callback=check_finite),
    ] = 0.0
    top_p: Annotated[
        float,
        rare_setting(
            "Sample only from the likeliest tokens that together reach this probability.",
            max=1.0,
            callback=check_positive,
        ),
    ] = 1.0
    top_k: Annotated[int | None, rare_setting("Sample only from the N likeliest tokens.", min=1)] = None
    repetition_penalty: Annotated[
        float, rare_setting("Values above 1 make repetition less likely.", callback=check_positive)
    ] = 1.0
    seed: Annotated[int, rare_setting("Seed for sampling.", callback=_check_seed)] = 0
    static_decode: Annotated[
        StaticDecodeName,
        rare_setting(
            "Decode in fixed-size buffers, recorded once as a CUDA graph, which is faster. auto: with a single GPU."
        ),
    ] = "auto"
    stop: Annotated[
        list[str] | None,
        option("End each answer before this text. Repeat the option to add more.", metavar="TEXT", hidden=True),
    ] = None
    slow_attention: SlowAttentionName = "always"
    choices: list[str] | None = None
    json_schema: Path | None = None
    json_object: bool = False
    evidence: bool = False

    def __post_init__(self) -> None:
        from sfvqa.inference.question import check_text

        super().__post_init__()
        for text in self.stop or ():
            if not text.isspace():
                check_text(text, "text to stop at", "Give every --stop a text.")
        self.overrule("stop", tuple(self.stop or ()))

    @cached_property
    def schema(self) -> "JsonSchema | None":
        """The schema by which answers are written. Reads its file: UsageError."""
        from sfvqa.inference.schema import JsonSchema

        if self.json_schema is None:
            return JsonSchema.any_object() if self.json_object else None
        return JsonSchema(_read_schema(self.json_schema))

    @cached_property
    def compared(self) -> tuple[str, ...] | None:
        """The choices to compare, None where the answer is written. UsageError where they are none."""
        return parse_choices(self.choices) if self.choices else None

    def check(self, model: "ModelOptions") -> None:
        """Fail now on what needs no model to be wrong: UsageError, SubtitlesError; ModelError for a speech model."""
        _ = self.compared, self.schema, self.fixed_prompt
        if self.speech:
            from sfvqa.inference.speech import Transcriber

            Transcriber(self.speech_options)  # for its checks
        if self.static_decode == "on":
            from sfvqa.model.decode_step import check_static_decode, why_not_static

            against = why_not_static(attention=model.attention, quantization=model.quant, evidence=self.evidence)
            check_static_decode("on", against)

    def generation(self) -> "GenerationOptions":
        """How tokens are chosen."""
        from sfvqa.inference.engine import GenerationOptions

        return GenerationOptions(**self.generation_fields(), schema=self.schema)

    def generation_fields(self) -> dict[str, Any]:
        """The same by name, without torch and a schema; where choices are compared no token is chosen."""
        from sfvqa.inference.question import WRITING_OPTIONS

        written = {} if self.compared else {name: getattr(self, name) for name in WRITING_OPTIONS}
        return {**written, "slow_attention": self.slow_attention, "evidence": self.evidence}


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(TurnOptions):
    """The same, and what a chat cannot do: compare choices, follow a schema, watch the attention."""

    slow_attention: Annotated[
        SlowAttentionName,
        rare_setting(
            "When tokens attend to slow tokens: always (as in training) or at prefill only (as in the reference)."
        ),
    ] = "always"
    choices: Annotated[
        list[str] | None,
        option(
            "Answer with the likeliest of these, and show how likely each is. Quote a choice that contains a comma, as "
            "in CSV: --choices 'red,\"red, then blue\"'. Repeat the option to add more.",
            metavar="A,B,…",
        ),
    ] = None
    json_schema: Annotated[
        Path | None,
        option("Answer in JSON that is valid by the JSON schema in FILE.", parser=parse_file, hidden=True),
    ] = None
    json_object: Annotated[bool, option("Answer in a JSON object, of any kind.", hidden=True)] = False
    evidence: Annotated[
        bool,
        option(
            "Also show the moments that each answer's slow attention favoured: a hint, not proof.",
            rich_help_panel=OUTPUT,
        ),
    ] = False

    def __post_init__(self) -> None:
        from sfvqa.inference.question import WRITING_OPTIONS

        super().__post_init__()
        forms = [name for name in ("choices", "stop", "json_schema", "json_object") if getattr(self, name)]
        if len(forms) > 1:
            one, other = (f"--{name.replace('_', '-')}" for name in forms[:2])
            raise UsageError(f"{one} and {other} contradict each other.", "Leave one of them out.")
        if self.evidence and not self.is_flag("static_decode"):
            self.overrule("static_decode", "auto")
        for name in WRITING_OPTIONS if self.choices else ():
            if self.is_flag(name):
                raise UsageError(
                    f"--{name.replace('_', '-')} has no effect on --choices, which are compared, not written.",
                    "Leave one of them out.",
                )
        if self.choices:
            self.overrule("static_decode", "auto")


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
    typer.Argument(metavar="QUESTION", help="One question per argument; quote it.", show_default=False),
]
QuestionFile = Annotated[
    str | None,
    option(
        "Also ask the questions in a text file, one per line; - reads standard input.", "--questions", metavar="FILE"
    ),
]


def _read_schema(file: Path) -> str:
    try:
        return read_given(file, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"The JSON schema in “{file}” is not UTF-8 text.", "Save the file as UTF-8.") from None
    except OSError as error:
        raise UsageError(
            f"The JSON schema in “{file}” cannot be read: {error.strerror or error}.", "Name a file that holds one."
        ) from error


_MOST_BYTES = 16_000_000  # more than anybody asks about a video
_LINE_END = re.compile(r"\r\n|\r|\n")


def gather_questions(given: Sequence[str] | None, file: str | None, *, video: Path) -> tuple[str, ...]:
    """All of them, in order; UsageError when there is none, one is empty, or standard input is wanted twice."""
    from sfvqa.inference.question import check_question

    if file == STANDARD_INPUT and str(video) == STANDARD_INPUT:
        raise UsageError("Video and questions cannot both come from standard input.", "Name a file for one of them.")
    questions = (*(given or ()), *(() if file is None else read_questions(file)))
    if not questions:
        raise UsageError("No question was given.", "Add one in quotes, or name a file with --questions.")
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
            "Name a text file with one question per line.",
        ) from error
    lines = _LINE_END.split(text)  # str.splitlines ends lines where no editor does, at U+2028 for one
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise UsageError(f"There is no question in {name}.", "Write one question per line.")
    return questions
