"""What commands do with a model: check a request before anything is loaded, load, encode once, answer in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sfvqa.cli.describe import describe_choices, describe_evidence, describe_subtitles
from sfvqa.cli.text import plural

if TYPE_CHECKING:
    import typer

    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.video_file import VideoFile
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.answer_stream import AnswerStream
    from sfvqa.inference.encoding import EncodedVideo
    from sfvqa.inference.prompt_options import PromptOptions
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.inference.video_qa import VideoQA, VideoQuestionAnswerer


class AnswerPrinter(Protocol):
    """What puts answers on stdout: streamed, one a line, or as JSON."""

    def show(self, question: str, stream: "AnswerStream") -> "Answer":
        """Print one answer to the end and return it."""
        ...


@dataclass(frozen=True)
class ModelRequest:
    """Which model is wanted, and how it is to run; `name` is None when neither flag nor configuration says.

    Of what `is_only_planned` the device need not be here.
    """

    name: str | None
    is_named_by_flag: bool
    device: str
    dtype: str
    attention: str
    quantization: str = "auto"
    random_weights: bool = False
    static_decode: bool = False
    is_only_planned: bool = False

    @classmethod
    def of(cls, context: "typer.Context") -> "ModelRequest":
        """The request in the parameters of a command that takes these options."""
        source, given = context.get_parameter_source("model"), context.params
        return cls(
            name=given["model"],
            is_named_by_flag=source is not None and source.name == "COMMANDLINE",
            device=given["device"],
            dtype=given["dtype"],
            attention=given["attention"],
            quantization=given["quant"],
            random_weights=given["random_weights"],
            static_decode=given.get("static_decode", False),
            is_only_planned=given.get("dry_run", False),
        )


def check_request(video: Path, questions: Sequence[str], model: ModelRequest, *, needs_weights: bool = True) -> None:
    """Fail now, before torch is even imported, on what needs no model to be known as wrong.

    UsageError for a question that is empty or no text, VideoError for a file that is not there or cannot be one,
    ModelError for a model that is unknown or not on this machine.
    """
    from sfvqa.inference.question import check_question
    from sfvqa.video.readers.local_file import check_local_file
    from sfvqa.video.readers.standard_input import STANDARD_INPUT

    for question in questions:
        check_question(question)
    if str(video) != STANDARD_INPUT:
        check_local_file(video)
    check_model(model, needs_weights=needs_weights)


def check_model(request: ModelRequest, *, needs_weights: bool = True) -> None:
    """ModelError for the model that is named, if one is, when it is unknown or not on this machine."""
    from sfvqa.inference.locate import find, find_for_random_weights
    from sfvqa.inference.quantized_copies import locate_for

    if (name := request.name) is None:
        return
    if request.random_weights:
        find_for_random_weights(name)
    elif needs_weights:
        locate_for(name, request.quantization)
    else:
        find(name)


def load_model(request: ModelRequest, cache: "VideoCache | None", notices: "Notices") -> "VideoQA":
    """Load the model of a request in which every choice is made, and say when a kept copy stands in for it."""
    assert request.name is not None
    with notices.waiting("Loading the model"):
        from sfvqa.inference.video_qa import VideoQA

        answerer = VideoQA.load(
            request.name,
            device=request.device,
            dtype=request.dtype,
            attention=request.attention,
            quantization=request.quantization,
            random_weights=request.random_weights,
            video_cache=cache,
        )
    if copy := answerer.checkpoint.quantized_copy:
        notices.note(f"Using the {copy.provenance.quantization} copy in {copy.folder}.")
    return answerer


def encode_video(
    model: "VideoQuestionAnswerer", video: "VideoFile", frames: "FrameRequest", notices: "Notices"
) -> "EncodedVideo":
    """Read and encode a video under a progress bar, then say what was read and what is wrong with it."""
    sampling = frames.sampling(model.default_sampling)
    steps = model.encode_progressively(video.to_encode, sampling, reading=frames.reading(), crop=frames.crop_mode())
    encoded = notices.follow(steps)
    encoded = replace(encoded, read_seconds=encoded.read_seconds + video.looking_seconds)
    notices.video(encoded, sampling)
    for warning in encoded.warnings:
        notices.warn(warning)
    return encoded


def answer_questions(
    model: "VideoQuestionAnswerer",
    encoded: "EncodedVideo",
    questions: Sequence[str],
    request: "AnswerRequest",
    prompt: "PromptOptions",
    printer: AnswerPrinter,
    notices: "Notices",
    batch_size: int = 1,
) -> "list[Answer]":
    """Answer every question in order, one by one as they are written, or in batches; the first that fails ends it."""
    options, answers = request.generation(), list["Answer"]()
    if batch_size == 1:
        streams = model.stream_all(encoded, questions, options, prompt=prompt, choices=request.choices)
    else:
        streams = _stream_batches(model, encoded, questions, request, prompt, notices, batch_size)
    for question, stream in zip(questions, streams, strict=True):
        with stream:
            answers.append(printer.show(question, stream))
        answer = answers[-1]
        about_prompt = describe_subtitles(answer) if len(answers) == 1 else []
        for line in (*describe_choices(answer), *describe_evidence(answer), *about_prompt):
            notices.note(line)
        for warning in answers[-1].warnings:
            notices.warn(warning)
    return answers


def _stream_batches(
    model: "VideoQuestionAnswerer",
    encoded: "EncodedVideo",
    questions: Sequence[str],
    request: "AnswerRequest",
    prompt: "PromptOptions",
    notices: "Notices",
    batch_size: int,
) -> "Iterator[AnswerStream]":
    from sfvqa.inference.answer_stream import AnswerStream

    for start in range(0, len(questions), batch_size):
        batch = [
            (encoded if start == 0 else encoded.paid(), question) for question in questions[start : start + batch_size]
        ]
        with notices.waiting(f"Answering {plural(len(batch), 'question')}"):
            answers = model.answer_batch(batch, request.generation(), prompt=prompt, choices=request.choices)
        yield from map(AnswerStream.of, answers)
