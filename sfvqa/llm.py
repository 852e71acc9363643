"""The plugin of `llm`: `llm -m sfvqa "What happens?" -a video.mp4`. Only `llm` imports this, with every command of its.

So nothing heavy is imported before a question is asked.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llm
from llm.parts import AttachmentPart, TextPart
from pydantic import Field

from sfvqa.errors import ModelError, SfvqaError, UsageError, VideoError
from sfvqa.registry import CropName, QuantizationName, load_registry

if TYPE_CHECKING:
    from sfvqa.inference.engine import GenerationOptions
    from sfvqa.inference.video_qa import VideoQA

_LOG = logging.getLogger(__name__)

ATTACHMENT_TYPES = frozenset((
    *("video/3gpp", "video/3gpp2", "video/avi", "video/dv", "video/dvd", "video/mp4", "video/mpeg", "video/ogg"),
    *("video/quicktime", "video/webm", "video/x-flv", "video/x-matroska", "video/x-ms-asf", "video/x-ms-wmv"),
    *("video/x-msvideo", "video/x-ogm+ogg", "video/x-yuv4mpeg"),
    *("application/ogg", "application/vnd.ms-asf", "application/vnd.rn-realmedia"),
    "application/x-typescript",  # what `llm` takes an MPEG transport stream for, by its name
    *("image/avif", "image/gif", "image/heic", "image/heif", "image/jpeg", "image/png", "image/tiff", "image/webp"),
))  # fmt: skip
"""The types that `llm` finds of files that we read; whoever names one of them with --at can attach any file."""


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """`sfvqa`, the model that `sfvqa ask` would choose, and `sfvqa/NAME` for those of `sfvqa models list`."""
    register(VideoModel(None))
    try:
        registry = load_registry()
    except ModelError:  # of the user's own models.toml; `sfvqa` says so, and every other model of `llm` still works
        return
    for spec in registry:
        if spec.has_weights:
            register(VideoModel(spec.name), aliases=[f"sfvqa/{alias}" for alias in spec.aliases])


class VideoModel(llm.Model):
    """A model of `sfvqa models list`, or (None) the one that `sfvqa ask` would choose."""

    can_stream = True
    supports_schema = True
    attachment_types = ATTACHMENT_TYPES

    class Options(llm.Options):
        """What may be given with -o, named as in Python, but for `max_tokens`."""

        num_frames: int | None = Field(None, description="How many frames to look at (default: as in training)")
        start_seconds: float | None = Field(None, description="Look at the video from here on")
        end_seconds: float | None = Field(None, description="Look at the video up to here")
        crop: CropName | None = Field(None, description="How a frame is made square (default: as in training)")
        max_tokens: int | None = Field(None, description="Longest answer, in tokens (default: 256)")
        temperature: float | None = Field(None, description="0 takes the likeliest token, more draws (default: 0)")
        top_p: float | None = Field(None, description="Draw from the likeliest tokens of this share (default: 1)")
        seed: int | None = Field(None, description="Of drawing (default: 0)")
        device: str = Field("auto", description="auto, cpu, mps, cuda or cuda:N")
        quantization: QuantizationName = Field(QuantizationName.AUTO, description="none, 8bit, 4bit or auto")

    def __init__(self, name: str | None) -> None:
        self.model_id = "sfvqa" if name is None else f"sfvqa/{name}"
        self._name = name

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Answer piece by piece; all there is to know of the answer becomes the response's JSON.

        Raises llm.ModelError, which says what happened and what to do.
        """
        del stream, conversation  # whose turns are in the prompt's messages
        try:
            yield from self._answer(prompt, response)
        except SfvqaError as error:
            raise llm.ModelError(str(error).replace("max_new_tokens", "max_tokens")) from error

    def _answer(self, prompt: llm.Prompt, response: llm.Response) -> Iterator[str]:
        options: Any = prompt.options
        history, question = turns_of(prompt.messages)
        attachment = the_only_attachment(prompt.messages)
        with local_file(attachment) as path:
            from sfvqa.inference.answering import AnswerRun, Asked
            from sfvqa.inference.question import PromptOptions, check_question
            from sfvqa.video.fitting import CropMode

            check_question(question)
            generation = generation_of(options, prompt.schema)
            system = PromptOptions(system=prompt.system or text_of("system", prompt.messages) or None)
            qa = load(self._name, options.device, options.quantization.value)
            sampling = replace(
                qa.default_sampling,
                num_frames=qa.default_sampling.num_frames if options.num_frames is None else options.num_frames,
                start_seconds=options.start_seconds,
                end_seconds=options.end_seconds,
            )
            encoded = qa.encode(path, sampling, crop=None if options.crop is None else CropMode(options.crop))
        if attachment.content:  # by `-a -`; the copy is gone
            encoded = encoded.lying_at(Path("standard input"))
        run = AnswerRun(qa.checkpoint, [Asked(encoded, question, history)], generation, prompt=system)
        with run.stream() as pieces:
            yield from pieces
        answer = pieces.answer
        response.response_json = answer.to_dict()
        response.set_usage(input=answer.tokens.prompt, output=answer.tokens.new)
        response.set_resolved_model(answer.model)
        for warning in answer.warnings:
            _LOG.warning(warning)


def generation_of(options: Any, schema: Any) -> "GenerationOptions":
    """How the answer is written. UsageError for what cannot be."""
    from sfvqa.inference.engine import GenerationOptions
    from sfvqa.inference.schema import JsonSchema

    given = {"max_new_tokens": options.max_tokens, "schema": JsonSchema(json.dumps(schema)) if schema else None}
    given |= {name: getattr(options, name) for name in ("temperature", "top_p", "seed")}
    return GenerationOptions(**{name: value for name, value in given.items() if value is not None})


def turns_of(messages: Sequence[llm.Message]) -> tuple[tuple[tuple[str, str], ...], str]:
    """The turns before, a question and an answer each, and the question. UsageError where they are no conversation."""
    said = groupby((message for message in messages if message.role != "system"), key=lambda message: message.role)
    texts = [(role, text_of(role, list(of_role))) for role, of_role in said]
    if [role for role, _ in texts] != ["user", *["assistant", "user"] * (len(texts) // 2)]:
        raise UsageError("The messages are no conversation.", "User and assistant take turns, from user to user.")
    questions, answers = [text for _, text in texts[::2]], [text for _, text in texts[1::2]]
    return tuple(zip(questions, answers, strict=False)), questions[-1]


def text_of(role: str, messages: Sequence[llm.Message]) -> str:
    """All text in the messages of a role."""
    parts = [part for message in messages if message.role == role for part in message.parts]
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def the_only_attachment(messages: Sequence[llm.Message]) -> llm.Attachment:
    """The video of a conversation, however often it is attached. UsageError for none, or several."""
    parts = [part for message in messages for part in message.parts]
    found = [part.attachment for part in parts if isinstance(part, AttachmentPart) and part.attachment]
    if not found:
        raise UsageError("There is no video to ask about.", "Attach one, as in `llm -m sfvqa … -a video.mp4`.")
    videos = {(each.path, each.url, each.content) for each in found}
    if len(videos) > 1:
        raise UsageError(f"The conversation has {len(videos)} videos.", "Ask about one video, in any number of turns.")
    return found[0]


@contextmanager
def local_file(attachment: llm.Attachment) -> Iterator[Path]:
    """The path of what is attached, or of a copy of bytes that is gone after the block.

    VideoError for what can be no video, a URL too: nothing is ever fetched.
    """
    from sfvqa.video.readers.local_file import check_local_file

    if not attachment.content:
        yield check_local_file(attachment.path or attachment.url or "")
        return
    with tempfile.TemporaryDirectory(prefix="sfvqa-") as folder:
        path = Path(folder, "attachment")
        path.write_bytes(attachment.content)
        try:
            yield check_local_file(path)
        except VideoError as error:
            raise type(error)(error.message.replace(f"“{path}”", "The attachment"), error.remedy) from error


@lru_cache(maxsize=1)  # of several models that a program asks in turn, one is in memory
def load(name: str | None, device: str, quantization: str) -> "VideoQA":
    """The model with the settings that `sfvqa ask` would choose. Raises ModelError, OutOfMemoryError, UsageError."""
    from sfvqa.checkpoints.find import ModelSettings, locate
    from sfvqa.checkpoints.known import read_sizes
    from sfvqa.checkpoints.load import load_checkpoint
    from sfvqa.checkpoints.plan import choose_model, make_plan
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.inference.video_qa import VideoQA

    load.cache_clear()  # before, not behind it: the one that was asked last makes room
    if name is None:
        choice = choose_model(device=device)
        name = choice.model
        if choice.is_for_want_of_another:
            _LOG.warning(choice.reason)
    locate(name)
    plan = make_plan(ModelSettings(name, device=device, quantization=quantization), read_sizes(name))
    for sentence in (*plan.notices, *plan.check()):
        _LOG.warning(sentence)
    return VideoQA(load_checkpoint(plan.settings), video_cache=VideoCache())
