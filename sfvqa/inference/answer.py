"""What comes out: an answer, whole or as it streams, what the model saw, and where the time went. No tensors."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from sfvqa.errors import SchemaNotMetError
from sfvqa.video.windows import Window

SCHEMA_VERSION = 1

_STANDS_OUT = 1.5  # times an even share


class FinishReason(StrEnum):
    """Why an answer ends where it does."""

    STOP = "stop"
    """The model said that it is done, came to a text at which it was to stop, or to what is whole by its schema."""
    LENGTH = "length"
    """`max_new_tokens` was reached: the answer may be cut in the middle."""
    INTERRUPTED = "interrupted"
    """The stream was left before the model was done."""
    CHOICE = "choice"
    """It is the likeliest of the given choices; nothing was written."""


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one answer: `prompt` positions (with the `fast` tokens in them), `slow` tokens beside, `new` ones.

    `new` counts what the model computed, its end token included; of a choice, its own tokens. `reused` of the prompt's
    tokens needed no prefill, because an earlier prompt, or another of the batch, begins with them too.
    """

    prompt: int
    fast: int
    slow: int
    new: int
    reused: int = 0


@dataclass(frozen=True)
class Timings:
    """Where the time of one answer went, by the wall clock, in seconds; a GPU is waited for where a stage ends.

    - `load_seconds`: finding the checkpoint and putting model and tokenizer on the device. Once a process; in no sum.
    - `read_seconds`: video bytes → resized frames, without waiting until there is room for more of them, and without
      what `ask` and `chat` read while they load the model, which nobody waits for; of a video that the video cache
      holds, finding it there and reading its visual tokens.
    - `encode_seconds`: frames → slow and fast tokens (normalise, vision tower, projector, pooling). Of a GPU, which
      works on while frames are waited for, only what the program had to wait for.
    - `overlap_seconds`: how much of reading and encoding ran at the same time, so that both together took
      read + encode - overlap.
    - `prefill_seconds`: question → logits of the first new token (tokenising, and the pass over the whole prompt).
    - `ttft_seconds`: time to first token, from the start of reading until it is chosen: read + encode - overlap +
      prefill + choosing. Loading is left out, and reading meanwhile. Of several questions about one video the first
      waits for its reading and encoding; for the others these are 0. Answers of one batch all wait for those of their
      video.
    - `decode_seconds`: from the first token to the last, without what the caller does between pieces.
    - `total_seconds`: ttft + decode.
    - `tokens_per_second`: tokens after the first, over `decode_seconds`; None when there are none.

    In a batch, prefill and decode are those of the whole batch, of `asked_together` questions.
    """

    load_seconds: float
    read_seconds: float
    encode_seconds: float
    overlap_seconds: float
    prefill_seconds: float
    ttft_seconds: float
    decode_seconds: float
    total_seconds: float
    tokens_per_second: float | None
    asked_together: int = 1


@dataclass(frozen=True)
class SampledFrames:
    """The frames the model saw: places in the file, times in seconds, and how they were chosen (None: no video)."""

    indices: tuple[int, ...] = ()
    timestamps_seconds: tuple[float, ...] = ()
    strategy: str | None = None


@dataclass(frozen=True)
class ChoiceProbability:
    """One choice: its share of what all choices are likely together, and its own log-probability (see choices)."""

    text: str
    probability: float
    log_probability: float


@dataclass(frozen=True)
class TokenProbability:
    """A token that was chosen, the text that it adds, and how likely the model found it.

    `log_probability` is that of the model's own scores, before a penalty, a schema or a temperature changes them. The
    first tokens of a character add no text, nor does an end token.
    """

    token_id: int
    text: str
    log_probability: float


@dataclass(frozen=True)
class FrameEvidence:
    """A moment an answer looked at: when, the frame's place in the file, and its share of all slow attention."""

    timestamp_seconds: float
    index: int
    weight: float


def standing_out(evidence: Sequence[FrameEvidence], most: int) -> list[FrameEvidence]:
    """The frames that a person is shown: those of half as much again as an even share, strongest first; at least one.

    >>> frames = [FrameEvidence(second, 24 * second, weight) for second, weight in enumerate((0.2, 0.1, 0.6, 0.1))]
    >>> [frame.timestamp_seconds for frame in standing_out(frames, most=3)]
    [2]
    """
    ranked = sorted(evidence, key=lambda frame: -frame.weight)
    return [frame for frame in ranked[:most] if frame.weight * len(ranked) >= _STANDS_OUT] or ranked[:1]


@dataclass(frozen=True)
class SubtitleUse:
    """What a prompt holds of the subtitles: where from, lines in it, lines of the sampled range cut, tokens taken."""

    source: str
    lines: int
    cut: int
    tokens: int


@dataclass(frozen=True)
class AnswerSettings:
    """Everything that was set, so that an answer can be had again."""

    quantization: str
    random_weights: bool
    attention: str
    slow_attention: str
    device: str
    dtype: str
    reader: str | None
    crop: str | None
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    seed: int
    static_decode: bool = False
    system: str | None = None
    template: str | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the model said to one question, and all there is to know about how.

    `video` is the path as given, None for a question without one. `revision` is the commit of a downloaded
    checkpoint or the hash of the bundled one, None for a folder. `peak_memory_bytes` is the process's so far: GPU
    memory on CUDA, resident memory elsewhere, None where the system does not tell. `choices` are empty and
    `subtitles` None where none were given. `from_video_cache` says that the video was neither read nor encoded.
    `evidence` weighs every sampled frame, in order, with 1 in all (see `inference.evidence`); None where it was not
    asked for, empty where nothing was looked at, of a question without a video for one. With a schema, `fields` is the
    value that the text spells, or `error` says why it spells none; both are None of an answer that was interrupted.
    `window` is the part of the video that was asked about, where it was asked about in windows. `log_probabilities`
    are those of its `tokens.new` tokens, None where they were not asked for.
    """

    text: str
    question: str
    video: str | None
    model: str
    revision: str | None
    finish_reason: FinishReason
    frames: SampledFrames
    tokens: TokenCounts
    timings: Timings
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]
    settings: AnswerSettings
    choices: tuple[ChoiceProbability, ...] = ()
    subtitles: SubtitleUse | None = None
    from_video_cache: bool = False
    evidence: tuple[FrameEvidence, ...] | None = None
    fields: object = None
    error: SchemaNotMetError | None = None
    window: Window | None = None
    log_probabilities: tuple[TokenProbability, ...] | None = None

    def to_dict(self) -> dict[str, object]:
        """The object `sfvqa ask --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "video": self.video,
            "window": self.window and self.window.to_dict(),
            "question": self.question,
            "answer": self.text,
            "fields": self.fields,
            "choices": [asdict(choice) for choice in self.choices] or None,
            "evidence": None if self.evidence is None else [asdict(frame) for frame in self.evidence],
            "log_probabilities": None
            if self.log_probabilities is None
            else [asdict(token) for token in self.log_probabilities],
            "model": self.model,
            "revision": self.revision,
            "finish_reason": self.finish_reason.value,
            "frames": {
                "count": len(self.frames.indices),
                "indices": list(self.frames.indices),
                "timestamps_seconds": list(self.frames.timestamps_seconds),
                "strategy": self.frames.strategy,
            },
            "from_video_cache": self.from_video_cache,
            "subtitles": asdict(self.subtitles) if self.subtitles else None,
            "tokens": dict(vars(self.tokens)),
            "timings": dict(vars(self.timings)),
            "peak_memory_bytes": self.peak_memory_bytes,
            "warnings": list(self.warnings),
            "settings": vars(self.settings) | {"stop": list(self.settings.stop)},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The answer of which `to_dict` made this, also after it was JSON; an `error` is no part of it."""
        frames, subtitles, evidence = document["frames"], document["subtitles"], document["evidence"]
        window, log_probabilities = document.get("window"), document.get("log_probabilities")
        return cls(
            text=document["answer"],
            finish_reason=FinishReason(document["finish_reason"]),
            frames=SampledFrames(tuple(frames["indices"]), tuple(frames["timestamps_seconds"]), frames["strategy"]),
            tokens=TokenCounts(**document["tokens"]),
            timings=Timings(**document["timings"]),
            warnings=tuple(document["warnings"]),
            settings=AnswerSettings(**document["settings"] | {"stop": tuple(document["settings"]["stop"])}),
            choices=tuple(ChoiceProbability(**choice) for choice in document["choices"] or ()),
            subtitles=SubtitleUse(**subtitles) if subtitles else None,
            evidence=None if evidence is None else tuple(FrameEvidence(**frame) for frame in evidence),
            window=Window(**window) if window else None,
            log_probabilities=None
            if log_probabilities is None
            else tuple(TokenProbability(**token) for token in log_probabilities),
            **{name: document[name] for name in _AS_THEY_ARE},
        )


_AS_THEY_ARE = ("question", "video", "model", "revision", "peak_memory_bytes", "from_video_cache", "fields")


@dataclass(frozen=True)
class ContextUse:
    """The tokens a conversation takes, and the most it may take with the next answer in it."""

    num_tokens: int
    limit: int

    @property
    def room(self) -> int:
        """Tokens that are left."""
        return max(self.limit - self.num_tokens, 0)


class AnswerStream:
    """Pieces of an answer as they come; `answer` is what there is so far, whole once the pieces are at an end.

    Where it is not valid by its schema then, its error is raised in place of the end.

    Leaving early (`close`, the end of a `with` block, an exception such as Ctrl-C) keeps what came: `answer` then
    says `interrupted`.
    """

    def __init__(self, steps: Generator[list[str], None, None], answer_so_far: Callable[[], Answer]) -> None:
        self._steps = steps
        self._answer_so_far = answer_so_far

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """The stream of an answer that is whole already: one piece."""
        return cls(([text] for text in [answer.text]), lambda: answer)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """The text of the next step that completes a character."""
        for (piece,) in self._steps:
            if piece:
                return piece
        if (error := self.answer.error) is not None:
            raise error
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._answer_so_far()

    def close(self) -> None:
        """Stop generating and free what it holds; harmless when it is over already."""
        self._steps.close()
