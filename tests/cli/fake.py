"""A scripted VideoQA: answers what it is told to, as slowly or as badly as it is told to. No weights, no files."""

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sfvqa.inference.answer import (
    Answer,
    AnswerSettings,
    AnswerStream,
    ContextUse,
    FinishReason,
    FrameEvidence,
    SampledFrames,
    Timings,
    TokenCounts,
)
from sfvqa.inference.chat import Chat, ChatTurn
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, EncodeStage
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions, check_question
from sfvqa.inference.reading_ahead import VideoBeingRead
from sfvqa.inference.video_qa import Unseen, VideoQA, never
from sfvqa.model import VisualTokens
from sfvqa.video import CropMode, ReadOptions, SamplingOptions, VideoInfo, VideoReader
from sfvqa.video.fitting import Fit, FitSquare


@dataclass(frozen=True)
class Press:
    """Presses Ctrl-C where a piece would come; `becomes` is what a library makes of the KeyboardInterrupt."""

    becomes: Exception | None = None

    def __call__(self) -> None:
        """Press it, and be interrupted."""
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if self.becomes is None:
                raise
            raise self.becomes from None


Piece = str | BaseException | Press  # an exception is raised where the piece would come
Source = EncodedVideo | str | Path | None


@dataclass
class ScriptedVideoQA(VideoQA):
    """Gives `script[n]` as the pieces of its n-th answer; keeps what it was asked in `asked`."""

    script: Sequence[Sequence[Piece]] = (("The circle ", "moves left."),)
    warnings: tuple[str, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    tokens_a_turn: int = 40
    size: tuple[int, int] = (64, 64)
    overlap_seconds: float = 0.0
    while_encoding: Callable[[], None] = lambda: None
    sampled: list[SamplingOptions] = field(default_factory=list)
    read_with: list[ReadOptions] = field(default_factory=list)
    cropped: list[CropMode | None] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    asked: list[tuple[str, GenerationOptions]] = field(default_factory=list)
    chats: list["ScriptedChat"] = field(default_factory=list)
    prompted: list[tuple[PromptOptions | None, Sequence[str] | None]] = field(default_factory=list)

    @property
    def default_sampling(self) -> SamplingOptions:
        """Thirty-two frames, as for tiny."""
        return SamplingOptions(num_frames=32)

    def fit(self, crop: CropMode | None = None) -> Fit:
        """Frames of a few pixels."""
        return FitSquare(8, crop or CropMode.CENTER)

    def is_kept(
        self,
        video: Path,  # noqa: ARG002
        sampling: SamplingOptions | None = None,  # noqa: ARG002
        *,
        reading: ReadOptions | None = None,  # noqa: ARG002
        crop: CropMode | None = None,  # noqa: ARG002
    ) -> bool:
        """It has no cache."""
        return False

    def encode_progressively(
        self,
        video: Unseen,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,  # noqa: ARG002  a fake reads nothing
        crop: CropMode | None = None,
    ) -> Generator[EncodeProgress, None, EncodedVideo]:
        """Pretend to read and encode as many frames as are asked for, four a second."""
        sampling = sampling or self.default_sampling
        self.sampled.append(sampling)
        self.cropped.append(crop)
        opened = video.reader if isinstance(video, VideoBeingRead) else video
        path = opened.info.path if isinstance(opened, VideoReader) else Path(opened)
        count = sampling.num_frames
        for stage in EncodeStage:
            for done in range(1, count + 1):
                yield EncodeProgress(stage, done, count)
        self.while_encoding()
        return EncodedVideo(
            visual_tokens=VisualTokens(slow=torch.zeros(count * 16, 8), fast=torch.zeros(count, 8)),
            indices=tuple(range(count)),
            timestamps_seconds=tuple(index / 4 for index in range(count)),
            strategy=sampling.strategy.value,
            reader="pyav",
            crop=crop or CropMode.CENTER,
            video=VideoInfo(path, count, 4.0, count / 4, *self.size, "h264", 0),
            warnings=self.warnings,
            read_seconds=0.25,
            encode_seconds=0.5,
            overlap_seconds=self.overlap_seconds,
        )

    def stream(
        self,
        video: Source,
        question: str,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> AnswerStream:
        """The next answer of the script."""
        assert isinstance(video, EncodedVideo)
        options = options or GenerationOptions()
        self.prompted.append((prompt, choices))
        pieces = self.script[len(self.asked)]
        self.asked.append((question, options))
        said: list[str] = []

        def play() -> Generator[list[str], None, None]:
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
                if isinstance(piece, Press):
                    piece()
                    continue
                said.append(piece)
                yield [piece]

        return AnswerStream(play(), lambda: self._answer(video, question, options, "".join(said)))

    def stream_all(
        self,
        video: Source,
        questions: Sequence[str],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> Iterator[AnswerStream]:
        """One stream after the other."""
        for question in questions:
            yield self.stream(video, question, options, prompt=prompt, choices=choices)

    def answer_batch(
        self,
        questions: Sequence[tuple[Source, str]],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
        watch: Callable[[list[str]], bool | None] = never,  # noqa: ARG002  pieces come at once
    ) -> list[Answer]:
        """One after the other."""
        self.batches.append([question for _, question in questions])
        return [self.ask(video, question, options, prompt=prompt, choices=choices) for video, question in questions]

    def chat(
        self,
        video: Source,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        context_tokens: int | None = None,
    ) -> "ScriptedChat":
        """A chat that answers by the same script."""
        assert isinstance(video, EncodedVideo)
        self.chats.append(ScriptedChat(self, video, options, prompt, context_tokens or 2048))
        return self.chats[-1]

    def _evidence(self, video: EncodedVideo) -> tuple[FrameEvidence, ...]:
        """Half on the fourth frame, a quarter on the second, the rest on all others alike."""
        rest = 0.25 / (len(video.indices) - 2)
        weights = [{3: 0.5, 1: 0.25}.get(index, rest) for index in video.indices]
        return tuple(map(FrameEvidence, video.timestamps_seconds, video.indices, weights))

    def _answer(self, video: EncodedVideo, question: str, options: GenerationOptions, text: str) -> Answer:
        return Answer(
            text=text,
            question=question,
            video=str(video.video.path),
            model="scripted",
            revision=None,
            finish_reason=self.finish_reason,
            frames=SampledFrames(video.indices, video.timestamps_seconds, video.strategy),
            tokens=TokenCounts(
                prompt=40,
                fast=len(video.visual_tokens.fast),
                slow=len(video.visual_tokens.slow),
                new=6,
                reused=30,
            ),
            timings=Timings(1.0, 0.25, 0.5, video.overlap_seconds, 0.1, 0.875, 0.5, 1.375, 10.0),
            peak_memory_bytes=123_000_000,
            warnings=video.warnings,
            evidence=self._evidence(video) if options.evidence else None,
            settings=AnswerSettings(
                "none", False, "sdpa", options.slow_attention.value, "cpu", "float32", video.reader, video.crop.value,
                options.temperature, options.top_p, options.repetition_penalty, options.max_new_tokens, options.seed,
            ),
        )  # fmt: skip


@dataclass
class ScriptedChat(Chat):
    """Every turn takes `tokens_a_turn` of `limit` tokens, and the video ten; the oldest turns go when that is full."""

    model: ScriptedVideoQA
    encoded: EncodedVideo
    options: GenerationOptions | None
    prompt: PromptOptions | None
    limit: int
    turns: tuple[ChatTurn, ...] = ()
    num_dropped: int = 0

    @property
    def context(self) -> ContextUse:
        """What the turns take."""
        return ContextUse(10 + self.model.tokens_a_turn * len(self.turns), self.limit)

    @property
    def will_drop(self) -> bool:
        """Whether another turn is too many."""
        return self.context.room < self.model.tokens_a_turn

    def stream(self, question: str) -> AnswerStream:
        """The next answer of the script; the turn counts once something came of it."""
        check_question(question)
        dropping = self.will_drop
        if dropping:
            self.turns, self.num_dropped = self.turns[1:], self.num_dropped + 1
        stream = self.model.stream(self.encoded, question, self.options, prompt=self.prompt)
        reason = FinishReason.INTERRUPTED

        def answer() -> Answer:
            dropped = ("The oldest turn was dropped.",) if dropping else ()
            return replace(stream.answer, warnings=(*stream.answer.warnings, *dropped), finish_reason=reason)

        def play() -> Generator[list[str], None, None]:
            nonlocal reason
            try:
                yield from ([piece] for piece in stream)
                reason = self.model.finish_reason
            finally:
                if stream.answer.text:
                    self.turns = (*self.turns, ChatTurn(question, answer()))

        return AnswerStream(play(), answer)

    def ask(self, question: str) -> Answer:
        """The same in one go."""
        stream = self.stream(question)
        for _ in stream:
            pass
        return stream.answer

    def reset(self) -> None:
        """Forget the turns."""
        self.turns = ()
