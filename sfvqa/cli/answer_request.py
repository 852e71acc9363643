"""How questions are put and how they are answered; contradictions are found here, before anything is loaded."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    import typer

    from sfvqa.cli.video_file import VideoFile
    from sfvqa.inference.generation import GenerationOptions
    from sfvqa.inference.prompt_options import PromptOptions

FROM_THE_VIDEO = "auto"
"""What --subtitles says for the video's own text track; a file of that name is reached as ./auto."""


@dataclass(frozen=True)
class AnswerRequest:
    """What the options of `ask` say of prompt and answer; `written_with` are those that say how one is written.

    `fixed_prompt` has no subtitles yet where these come from the video, see `prompt`.
    """

    written_with: dict[str, int | float]
    slow_attention: str
    choices: tuple[str, ...] | None
    fixed_prompt: "PromptOptions"
    subtitle_tokens: int | None
    reads_text_track: bool
    evidence: bool = False

    @classmethod
    def of(cls, context: "typer.Context") -> "AnswerRequest":
        """The request in the parameters of a command that takes these options; reads the subtitle file, if any.

        Raises UsageError for what contradicts itself, SubtitlesError.
        """
        from sfvqa.cli.options import parse_file
        from sfvqa.inference.prompt_options import PromptOptions
        from sfvqa.inference.question import WRITING_OPTIONS, check_evidence, check_static_decode
        from sfvqa.video.subtitles import read_subtitle_file

        given = dict(context.params)
        evidence = bool(given.get("evidence") or given.get("evidence_out"))
        if evidence and given["static_decode"]:  # as a variable or in the config file the flag overrules it
            check_evidence(static_decode=_is_flag(context, "static_decode"))
            given["static_decode"] = False
        choices = parse_choices(given["choices"]) if _is_flag(context, "choices") else None
        if choices is not None:
            _refuse_writing_options(context, WRITING_OPTIONS)
        if given["static_decode"]:
            check_static_decode(given["attention"], given["quant"])
        where, tokens = given["subtitles"], given["subtitle_tokens"]
        if where is None and tokens is not None:
            if _is_flag(context, "subtitle_tokens"):
                raise UsageError("--subtitle-tokens is for --subtitles.", "Give subtitles, or leave it out.")
            tokens = None
        if where == "":
            raise UsageError("The path of --subtitles is empty.", "Name a file, or auto.")
        prompt = PromptOptions(given["system"], given["template"])
        if where is not None and where != FROM_THE_VIDEO:
            prompt = replace(prompt, subtitles=read_subtitle_file(parse_file(where)), subtitle_tokens=tokens)
        return cls(
            written_with={} if choices else {name: given[name] for name in WRITING_OPTIONS},
            slow_attention=given.get("slow_attention", "always"),  # a chat has no other
            choices=choices,
            fixed_prompt=prompt,
            subtitle_tokens=tokens,
            reads_text_track=where == FROM_THE_VIDEO,
            evidence=evidence,
        )

    def generation(self) -> "GenerationOptions":
        """How tokens are chosen, where an answer is written."""
        from sfvqa.inference.generation import GenerationOptions
        from sfvqa.model import SlowAttention

        return GenerationOptions(
            **self.written_with,  # type: ignore[arg-type]
            slow_attention=SlowAttention(self.slow_attention),
            evidence=self.evidence,
        )

    def prompt(self, video: "VideoFile") -> "PromptOptions":
        """What goes into the prompt, with the video's own subtitles where they are asked for."""
        if not self.reads_text_track:
            return self.fixed_prompt
        return replace(self.fixed_prompt, subtitles=video.reader.subtitles(), subtitle_tokens=self.subtitle_tokens)


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


def _refuse_writing_options(context: "typer.Context", names: Sequence[str]) -> None:
    """A flag contradicts choices; what a variable or the config file says is overruled by them."""
    for name in names:
        if _is_flag(context, name):
            raise UsageError(
                f"--{name.replace('_', '-')} says how an answer is written, and --choices are compared, not written.",
                "Leave one of them out.",
            )


def _is_flag(context: "typer.Context", name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
