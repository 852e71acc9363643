"""OpenAI's chat completions as far as a video model has them: what is sent, read strictly, and what is sent back.

What would change the answer and cannot be done is refused, not ignored.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sfvqa.errors import UsageError
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.schema import JsonSchema
from sfvqa.model import SlowAttention
from sfvqa.registry import CropName, SamplingName
from sfvqa.serve.request import Answered
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy, parse_time
from sfvqa.video.windows import WindowOptions

_FINISH_REASONS = {FinishReason.LENGTH: "length"}
_MOST_MESSAGES, _MOST_PARTS, _MOST_CHOICES, _MOST_STOPS = 512, 64, 64, 4
_MOST_TIMES = 10_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


class VideoAddress(_Strict):
    """Where the video is: `data:`, `file://`, or the id of an upload."""

    url: str


class VideoPart(_Strict):
    """The video of a conversation."""

    type: Literal["video_url"]
    video_url: VideoAddress


class FileId(_Strict):
    """The id of an upload."""

    file_id: str


class FilePart(_Strict):
    """The video of a conversation, uploaded before."""

    type: Literal["file"]
    file: FileId


Part = Annotated[TextPart | VideoPart | FilePart, Field(discriminator="type")]


class Message(_Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=_MOST_PARTS)]
    # what clients send along that give back an answer as they got it
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


class OwnSettings(_Strict):
    """What OpenAI's form has no place for: `sfvqa` in a request. Times as on the command line: 90, "1:30"."""

    frames: Annotated[int | None, Field(ge=1)] = None
    sampling: SamplingName | None = None
    fps: float | None = None
    timestamps: Annotated[list[float | str], Field(max_length=_MOST_TIMES)] | None = None
    start: float | str | None = None
    end: float | str | None = None
    window: float | str | None = None
    overlap: float | str | None = None
    crop: CropName | None = None
    template: str | None = None
    choices: Annotated[list[str], Field(max_length=_MOST_CHOICES)] | None = None
    evidence: bool = False
    top_k: Annotated[int | None, Field(ge=1)] = None
    repetition_penalty: float = 1.0
    slow_attention: Literal["always", "prefill"] = "always"
    progress: bool = False

    def sampling_options(self, default: SamplingOptions, most_frames: int) -> SamplingOptions:
        """The frames to take; where none are asked for, as many as the model takes and is allowed. UsageError."""
        return SamplingOptions(
            num_frames=self.frames or min(default.num_frames, most_frames),
            strategy=SamplingStrategy.implied(self.sampling, self.fps, self.timestamps, default.strategy),
            fps=self.fps,
            timestamps_seconds=None if self.timestamps is None else tuple(map(_seconds, self.timestamps)),
            start_seconds=None if self.start is None else _seconds(self.start),
            end_seconds=None if self.end is None else _seconds(self.end),
        )

    def windows(self) -> WindowOptions | None:
        """The windows to ask about, None for the whole range at once. UsageError."""
        if self.window is not None:
            return WindowOptions.parse(str(self.window), None if self.overlap is None else str(self.overlap))
        if self.overlap is not None:
            raise UsageError("`overlap` is that of windows.", "Give `window` too, or leave it out.")
        return None


def _seconds(time: float | str) -> float:
    return parse_time(time) if isinstance(time, str) else float(time)


class StreamOptions(_Strict):
    """What a stream tells beside the text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(_Strict):
    """Text, as without it."""

    type: Literal["text"]

    def schema_to_write_by(self) -> None:
        """None."""


class ObjectFormat(_Strict):
    """Any JSON object."""

    type: Literal["json_object"]

    def schema_to_write_by(self) -> JsonSchema:
        """The schema of all of them."""
        return JsonSchema.any_object()


class NamedSchema(_Strict):
    """A JSON schema, by which answers are written strictly, whether that is asked for or not."""

    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(_Strict):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def schema_to_write_by(self) -> JsonSchema:
        """UsageError for one by which no answer can be written."""
        return JsonSchema(json.dumps(self.json_schema.schema_))


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(_Strict):
    """The body of `/v1/chat/completions`. Fields that change nothing here are taken and ignored, others refused."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=_MOST_STOPS)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    sfvqa: OwnSettings = OwnSettings()
    # accepted only as what it is without them
    n: Literal[1] | None = None
    top_logprobs: Literal[0] | None = None
    frequency_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    presence_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    # about the caller, not the answer
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None

    def generation(self) -> GenerationOptions:
        """How the answer is written; a schema takes a moment to be tried. UsageError."""
        if self.max_tokens and self.max_completion_tokens not in (None, self.max_tokens):
            raise UsageError("max_tokens and max_completion_tokens contradict each other.", "Leave one of them out.")
        written = {
            "max_new_tokens": self.max_completion_tokens or self.max_tokens,
            "stop": (self.stop,) if isinstance(self.stop, str) else None if self.stop is None else tuple(self.stop),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }
        return GenerationOptions(
            **{name: value for name, value in written.items() if value is not None},  # type: ignore[arg-type]
            top_k=self.sfvqa.top_k,
            repetition_penalty=self.sfvqa.repetition_penalty,
            log_probabilities=bool(self.logprobs),
            slow_attention=SlowAttention(self.sfvqa.slow_attention),
            evidence=self.sfvqa.evidence,
            schema=None if self.response_format is None else self.response_format.schema_to_write_by(),
        )


@dataclass(frozen=True)
class Conversation:
    """Messages as a model takes them: the last question, the turns before it, and the address of the one video."""

    question: str
    history: tuple[tuple[str, str], ...]
    system: str | None
    video: str | None


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Check that messages are a conversation about at most one video. UsageError."""
    system: list[str] = []
    while messages and messages[0].role in ("system", "developer"):
        system.append(_text_of(messages[0]))
        messages = messages[1:]
    turns: list[tuple[str, str]] = []
    for place, message in enumerate(messages):
        if message.role != ("user", "assistant")[place % 2]:
            raise UsageError(
                f"Message {place + 1} after the system's is the {message.role}'s.",
                "User and assistant take turns, the user first.",
            )
    if len(messages) % 2 == 0:
        raise UsageError("The last message is not the user's.", "End with a question.")
    for asked, answered in zip(messages[::2], messages[1::2], strict=False):
        turns.append((_text_of(asked), _text_of(answered)))
    addresses = [address for message in messages for address in _addresses_in(message)]
    if len(set(addresses)) > 1:
        raise UsageError(
            f"The conversation has {len(set(addresses))} videos.",
            "Ask about one video, in any number of turns.",
        )
    return Conversation(
        _text_of(messages[-1]), tuple(turns), "\n".join(system) or None, addresses[0] if addresses else None
    )


def _text_of(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _addresses_in(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        return
    for part in message.content:
        if isinstance(part, VideoPart):
            yield part.video_url.url
        elif isinstance(part, FilePart):
            yield part.file.file_id
    if message.role == "assistant" and not all(isinstance(part, TextPart) for part in message.content):
        raise UsageError("The assistant sends a video.", "Put the video into a message of the user.")


def completion(answer: Answered, completion_id: str, created: int) -> dict[str, Any]:
    """The object of a whole answer; `sfvqa` in it is what `sfvqa ask --json` prints, for each window if there are."""
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": logprobs(answer),
                "finish_reason": finish_reason(answer),
            }
        ],
        "usage": usage(answer),
        "sfvqa": answer.to_dict(),
    }


def chunk(completion_id: str, created: int, model: str, **more: Any) -> dict[str, Any]:
    """One event of a stream: `delta`, `logprobs` and `finish_reason` of its choice; or `usage` or `sfvqa` alone."""
    choices = []
    if "delta" in more:
        own = {name: more.pop(name, None) for name in ("delta", "logprobs", "finish_reason")}
        choices = [{"index": 0, **own}]
    return {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
        **more,
    }


def finish_reason(answer: Answered) -> str:
    """`length` of an answer that was cut, `stop` of any other."""
    return _FINISH_REASONS.get(answer.finish_reason, "stop")


def logprobs(answer: Answered) -> dict[str, Any] | None:
    """How likely the tokens of an answer are, where that was asked for; of windows, `sfvqa` has those of each."""
    if not isinstance(answer, Answer) or answer.log_probabilities is None:
        return None
    said = [
        {"token": each.text, "logprob": each.log_probability, "bytes": list(each.text.encode()), "top_logprobs": []}
        for each in answer.log_probabilities
    ]
    return {"content": said, "refusal": None}


def usage(answer: Answered) -> dict[str, Any]:
    """The tokens of an answer, as OpenAI counts them."""
    tokens = answer.tokens
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.new,
        "total_tokens": tokens.prompt + tokens.new,
        "prompt_tokens_details": {"cached_tokens": tokens.reused},
    }
