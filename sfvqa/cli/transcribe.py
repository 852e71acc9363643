"""`sfvqa transcribe`: what is said in videos, as subtitles, plain text or a table."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfvqa.cli.answer_options import (
    SPEECH_LANGUAGE_HELP,
    SPEECH_MODEL_HELP,
    complete_speech_model,
    speech_options,
)
from sfvqa.cli.options import (
    CacheOptions,
    CaptionFormatName,
    ResultOptions,
    check_positive,
    option,
    parse_file,
    parse_video,
    rare_setting,
    setting,
)
from sfvqa.cli.screen import print_json, printable
from sfvqa.errors import ExitCode, SfvqaError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.speech import Transcript

HELP = """\b
[bold]Examples[/bold]
  sfvqa transcribe talk.mp4                    (subtitles, on stdout)
  sfvqa transcribe talk.mp4 --out talk.srt
  sfvqa transcribe talk.mp4 --format txt --language de
  sfvqa transcribe *.mp4 --out transcripts/ --model whisper-small

Write down what is said in videos, with times. A speech model does it: pull
one first, as in `sfvqa models pull whisper-base`. Each video is listened to
once; the cache keeps what was said."""

Videos = Annotated[
    list[Path], typer.Argument(parser=parse_video, metavar="VIDEO", help="Video files.", show_default=False)
]
Model = Annotated[
    str | None,
    setting(
        SPEECH_MODEL_HELP,
        "--model",
        "--speech-model",
        "-m",
        metavar="NAME|FOLDER",
        autocompletion=complete_speech_model,
    ),
]
Language = Annotated[str | None, setting(SPEECH_LANGUAGE_HELP, "--language", "--speech-language", metavar="CODE")]
Format = Annotated[
    CaptionFormatName | None,
    option("vtt, srt, txt, csv or jsonl (default: by the name of --out, else vtt).", metavar="NAME"),
]
Out = Annotated[
    Path | None,
    option("Write to this file, or for several videos into this folder, NAME.vtt of each.", parser=parse_file),
]
ReadTimeout = Annotated[
    float,
    rare_setting("Give up if reading takes longer than this.", metavar="SECONDS", callback=check_positive),
]


def transcribe(
    videos: Videos,
    out: Out = None,
    format: Format = None,
    speech_model: Model = None,
    speech_language: Language = None,
    read_timeout: ReadTimeout = 600.0,
    *,
    cache: CacheOptions,
    result: ResultOptions,
) -> None:
    """Check everything that can be checked, then listen to one video after the other."""
    from sfvqa.cli.video import check_video
    from sfvqa.inference.speech import Transcriber
    from sfvqa.video.readers import ReadOptions

    notices = result.notices()
    if result.json and (out is not None or format is not None):
        raise UsageError("--json prints an object, and --out and --format write files.", "Leave one of them out.")
    places = find_places(videos, out, format, json=result.json)
    for video in videos if len(videos) == 1 else ():
        check_video(video)
    transcriber = Transcriber(speech_options(speech_model, speech_language), cache.open())
    failures = 0
    for video, place in zip(videos, places, strict=True):
        try:
            steps = transcriber.transcribe_progressively(video, ReadOptions(timeout_seconds=read_timeout))
            transcript = notices.follow(steps)
        except SfvqaError as error:
            if len(videos) == 1 or error.exit_code is not ExitCode.VIDEO:
                raise
            notices.warn(error.with_flags)
            failures += 1
            continue
        tell(video, transcript, place, format, notices, json=result.json, is_one_of_many=len(videos) > 1)
    if failures:
        notices.note(f"{plural(failures, 'video')} of {len(videos)} failed.")
        raise typer.Exit(ExitCode.BATCH_FAILURES)


def find_places(
    videos: Sequence[Path], out: Path | None, format: CaptionFormatName | None, *, json: bool
) -> list[Path | None]:
    """Where each transcript goes, None for stdout; UsageError or SfvqaError where that cannot be."""
    from sfvqa.cli.whole_file import check_place, make_folder

    if out is None:
        if len(videos) > 1 and not json:
            raise UsageError("Several transcripts on stdout would run into each other.", "Add --out FOLDER, or --json.")
        return [None] * len(videos)
    if len(videos) > 1 and not out.exists():
        make_folder(out)
    is_folder = out.is_dir()
    if len(videos) > 1 and not is_folder:
        raise UsageError(f"“{out}” is a file, and the transcripts are several.", "Name a folder with --out.")
    places = [out / f"{video.stem}.{format or 'vtt'}" if is_folder else out for video in videos]
    for place in places:
        if places.count(place) > 1:
            raise UsageError(f"Two of the videos would be written to “{place}”.", "Rename one of them.")
        format_of(place, format)
        check_place(place, keep=videos)
    return list(places)


def format_of(place: Path | None, format: CaptionFormatName | None) -> str:
    """The format asked for, or else that of a file's name; UsageError where it names none."""
    from sfvqa.video.captions import CaptionFormat

    ending = "vtt" if place is None else place.suffix.lower().removeprefix(".")
    if format is None and ending not in list(CaptionFormat):
        names = ", ".join(f".{each}" for each in CaptionFormat)
        raise UsageError(f"“{place}” has no ending that names a format.", f"End it in {names}, or add --format.")
    return format or ending


def tell(
    video: Path,
    transcript: "Transcript",
    place: Path | None,
    format: CaptionFormatName | None,
    notices: "Notices",
    *,
    json: bool,
    is_one_of_many: bool,
) -> None:
    """Print or write a transcript, and say what is wrong with it."""
    from sfvqa.cli.whole_file import whole_text_file
    from sfvqa.video.captions import CaptionFormat, CaptionWriter

    if json:
        print_json(document_of(video, transcript))
    else:
        with contextlib.nullcontext(sys.stdout) if place is None else whole_text_file(place) as stream:
            captions = CaptionWriter(stream, CaptionFormat(format_of(place, format)))
            for line in transcript.lines:
                captions.write(replace(line, text=printable(line.text)))
        if place is not None:
            notices.note(f"{plural(len(transcript.lines), 'line')} written to {place}.")
    for warning in transcript.warnings:
        notices.warn(f"{video}: {warning}" if is_one_of_many else warning)
    spoken = f" in the language {transcript.language}" if transcript.language else ""
    notices.hint(f"{plural(len(transcript.lines), 'line')}{spoken}, by {transcript.model}.")


def document_of(video: Path, transcript: "Transcript") -> dict[str, Any]:
    """The object that `--json` prints, one a line; `video` is the path as it was given."""
    return {
        "video": str(video),
        "model": transcript.model,
        "language": transcript.language,
        "lines": [
            {
                "start_seconds": round(line.start_seconds, 3),
                "end_seconds": round(line.end_seconds, 3),
                "text": line.text,
            }
            for line in transcript.lines
        ],
        "warnings": list(transcript.warnings),
    }
