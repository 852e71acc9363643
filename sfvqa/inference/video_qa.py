"""VideoQA: load a model once, encode a video once, ask about it often. What everything above inference calls."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from sfvqa.checkpoints.device import memory_errors
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.errors import UsageError, VideoError
from sfvqa.inference.answer import Answer, AnswerStream
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.chat import Chat
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, encode_progressively
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.find import Found, find_progressively
from sfvqa.inference.moments import FindOptions
from sfvqa.inference.question import PromptOptions, check_choices, check_looks, check_question
from sfvqa.inference.reading_ahead import VideoBeingRead
from sfvqa.inference.video_cache.encode import encode_through_cache, encoding_key
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.registry import QuantizationName
from sfvqa.video.fitting import CropMode, Fit
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.readers.in_memory import Frames, FramesInMemory
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.video.windows import Window, WindowOptions, WindowsReader, plan_windows

if TYPE_CHECKING:
    from sfvqa.inference.prefill import KeptPrompt


VideoSource = EncodedVideo | str | Path | None
"""What a question may be about: an encoded video, a video file, or no video at all."""
Unseen = str | Path | VideoReader | VideoBeingRead
"""What may be encoded: a video file, an open one, or one that another thread reads."""


def never(_pieces: list[str]) -> bool:
    """For answers that nobody watches or stops."""
    return False


class VideoQA:
    """A loaded model that answers questions about videos.

    >>> qa = VideoQA.load("tiny")                                             # doctest: +SKIP
    >>> video = qa.encode("clip.mp4")                                         # doctest: +SKIP
    >>> qa.ask(video, "Which way does the circle move?").text                 # doctest: +SKIP
    'The circle moves left.'
    """

    def __init__(self, checkpoint: LoadedCheckpoint, *, video_cache: VideoCache | None = None) -> None:
        self.checkpoint = checkpoint
        self.video_cache = video_cache

    @classmethod
    def load(
        cls,
        model: str | Path = "tiny",
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        attention: str = "sdpa",
        quantization: str = "auto",
        random_weights: bool = False,
        adapter: str | Path | None = None,
        video_cache: VideoCache | None = None,
    ) -> Self:
        """Load a model by its name in models.toml, or a checkpoint folder; nothing is ever downloaded.

        `device` is auto, cpu, cuda, cuda:N or mps; `dtype` auto, float32, bfloat16 or float16, or torch's own;
        `attention` sdpa, eager or flash_attention_2; `quantization` none, 8bit, 4bit, or auto: as the weights are
        stored. `random_weights` builds a model of models.toml without its weights, to measure it; `adapter` is the
        folder of a LoRA adapter of the model. Videos are looked for in `video_cache` before they are encoded, and kept
        there; without one nothing is kept on disk. Raises ModelError, UsageError, OutOfMemoryError.
        """
        settings = ModelSettings(
            model,
            device,
            str(dtype).removeprefix("torch."),
            attention,
            quantization,
            random_weights,
            None if adapter is None else str(adapter),
        )
        return cls(load_checkpoint(settings), video_cache=video_cache)

    @property
    def trained_with(self) -> TrainedWith:
        """How the model looked at videos in training, by models.toml or else its own config."""
        return self.checkpoint.trained_with

    @property
    def default_sampling(self) -> SamplingOptions:
        """Which frames `encode` takes unless told otherwise: as many as in training, chosen as in training."""
        return self.trained_with.sampling

    @property
    def default_crop(self) -> CropMode:
        """How frames become square unless told otherwise: as in training."""
        return self.trained_with.crop

    def fit(self, crop: CropMode | None = None) -> Fit:
        """What is done to each frame before it is encoded, so that another thread can do it."""
        config = self.checkpoint.model.config
        return config.family.fit(config.vision, crop or self.default_crop)

    def is_kept(
        self,
        video: Path,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> bool:
        """Whether the video cache holds this video, seen so. Raises VideoError for what could not be opened as one."""
        if self.video_cache is None:
            return False
        key = encoding_key(
            self.checkpoint,
            self.video_cache,
            video,
            sampling or self.default_sampling,
            crop=crop or self.default_crop,
            reader=(reading or ReadOptions()).reader,
        )
        return self.video_cache.peek(key, video) is not None

    def encode_progressively(
        self,
        video: Unseen,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> Generator[EncodeProgress, None, EncodedVideo]:
        """Read and encode a video, or what another thread reads of it just so, yielding progress; returns it."""
        sampling, crop = sampling or self.default_sampling, crop or self.default_crop
        if self.video_cache is not None and not isinstance(video, FramesInMemory):
            return encode_through_cache(
                self.checkpoint,
                self.video_cache,
                video,
                sampling,
                reading=reading,
                crop=crop,
                trained_with=self.trained_with,
            )
        return encode_progressively(
            self.checkpoint.model,
            video,
            sampling,
            reading=reading,
            crop=crop,
            trained_with=self.trained_with,
            quantization=QuantizationName(self.checkpoint.quantization.value),
        )

    def encode(
        self,
        video: str | Path | VideoReader,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> EncodedVideo:
        """Read and encode a video, to be asked about often. Raises VideoError, OutOfMemoryError."""
        steps = self.encode_progressively(video, sampling, reading=reading, crop=crop)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                encoded: EncodedVideo = end.value
                return encoded

    def encode_frames(
        self,
        frames: Frames,
        timestamps_seconds: Iterable[float],
        sampling: SamplingOptions | None = None,
        *,
        crop: CropMode | None = None,
    ) -> EncodedVideo:
        """Encode frames that are in memory already, all of them or those that `sampling` chooses.

        They are uint8 `[T, H, W, 3]` or `[T, 3, H, W]`, an array or a tensor, or a list of Pillow's images or of
        pictures of any size, each with the time it is shown at, in seconds; see FramesInMemory. It gives what a file
        with these frames gives; nothing is kept in the video cache. Raises UsageError, UnreadableVideoError,
        OutOfMemoryError.
        """
        reader = FramesInMemory(frames, timestamps_seconds)
        sampling = sampling or SamplingOptions(len(reader.timestamps_seconds))
        return self.encode(reader, sampling, crop=crop)

    def windows(
        self,
        video: str | Path | VideoReader,
        window: WindowOptions | Sequence[Window],
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> Generator[tuple[Window, EncodedVideo | VideoError]]:
        """Encode one window of a video after the other, in order: each is what `encode` makes of that part alone.

        The file is read once, from front to back, and no more of it is held than a window and what overlaps it;
        windows that the video cache holds are not read. (Scenes need a look over the file first, and frames chosen by
        scene one over each window.) `sampling` holds for each window; a range that it has, for all. A window of which
        no frame can be read is given with its error, and the others go on. Raises VideoError for a file of which
        nothing can be read, UsageError, OutOfMemoryError.
        """
        sampling = sampling or self.default_sampling
        with memory_errors("reading the video"):
            opened = video if isinstance(video, VideoReader) else open_video(video, reading)
        with contextlib.nullcontext() if opened is video else opened:
            path, planned = opened.info.path, window
            if isinstance(planned, WindowOptions):
                planned = plan_windows(opened, planned, sampling)
            wanted = {
                part: choose_unread(opened, part.of(sampling)).indices
                for part in planned
                if not self.is_kept(path, part.of(sampling), reading=reading, crop=crop)
            }
            in_one_pass = [] if sampling.strategy is SamplingStrategy.SCENE else list(wanted.values())
            with WindowsReader(opened, in_one_pass, self.fit(crop)) as reader:
                for part in planned:
                    source = reader if part in wanted else path
                    seen: EncodedVideo | VideoError
                    try:
                        encoded = self.encode(source, part.of(sampling), reading=reading, crop=crop)
                        seen = replace(encoded, window=part)
                    except VideoError as error:
                        seen = error
                    yield part, seen
                    reader.open_seconds = 0.0  # which the first one waited for

    def find(
        self,
        video: str | Path | VideoReader,
        text: str,
        options: FindOptions | None = None,
        *,
        sampling: SamplingOptions | None = None,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
        prompt: PromptOptions | None = None,
    ) -> Found:
        """Find the moments of a video that show `text`, or of which the question `text` is true, likeliest first.

        It is `inference.find.find_progressively`, which also yields how far it is.
        """
        steps = find_progressively(
            self, video, text, options, sampling=sampling, reading=reading, crop=crop, prompt=prompt
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Found = end.value
                return found

    def ask(
        self,
        video: VideoSource,
        question: str,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> Answer:
        """Answer a question about an encoded video, a video file, or (None) no video at all.

        `prompt` says what goes into the prompt beside them. With `choices` the answer is the likeliest of these, and
        `Answer.choices` has the probability of each (see `inference.choices`). SchemaNotMetError where it is not valid
        by the schema in `options`.
        """
        stream = self.stream(video, question, options, prompt=prompt, choices=choices)
        for _ in stream:
            pass
        return stream.answer

    def stream(
        self,
        video: VideoSource,
        question: str,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> AnswerStream:
        """Answer a question piece by piece; a video file is encoded, and the prompt checked, before this returns."""
        options = self._check_options(options, choices)
        run = AnswerRun(self.checkpoint, self._encode_all([(video, question)]), options, prompt=prompt, choices=choices)
        return run.stream()

    def stream_all(
        self,
        video: VideoSource,
        questions: Sequence[str],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> Iterator[AnswerStream]:
        """Answer one question after the other, a stream each; none of them knows of the others.

        The video is encoded once, and what the prompts begin with alike, video and all, prefilled once: the KV cache is
        forked there for each question. The first answer's timings have the cost of the video in them.
        """
        options = self._check_options(options, choices)
        kept: KeptPrompt | None = None
        for place, asked in enumerate(self._encode_all([(video, question) for question in questions])):
            if place and asked.encoded:
                asked = replace(asked, encoded=asked.encoded.paid())
            run = AnswerRun(self.checkpoint, [asked], options, prompt=prompt, choices=choices, kept=kept, keep=True)
            yield run.stream()
            kept = run.kept

    def answer_batch(
        self,
        questions: Sequence[tuple[VideoSource, str]],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
        watch: Callable[[list[str]], bool | None] = never,
    ) -> list[Answer]:
        """Answer many questions in one batch; each answer is what it would be alone, up to rounding (see AnswerRun).
        Same errors as `ask`.

        A video file that is asked about more than once is read and encoded once. `watch` is called after every token
        with the text that it adds to each answer; once it says true, the answers that are not whole stay as they are,
        `interrupted`. One that is not valid by its schema has an `error`, which is not raised: the others are good.
        """
        if not questions:
            return []
        options = self._check_options(options, choices)
        run = AnswerRun(self.checkpoint, self._encode_all(questions), options, prompt=prompt, choices=choices)
        with contextlib.closing(run.steps()) as steps:
            for pieces in steps:
                if watch(pieces):
                    break
        return run.answers()

    def chat(
        self,
        video: VideoSource,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        context_tokens: int | None = None,
    ) -> Chat:
        """Begin a conversation about an encoded video, a video file, which is encoded now, or no video at all."""
        encoded = self._encode_all([(video, _ANY_QUESTION)])[0].encoded
        return Chat(self.checkpoint, encoded, options, prompt=prompt, context_tokens=context_tokens)

    def _check_options(self, options: GenerationOptions | None, choices: Sequence[str] | None) -> GenerationOptions:
        """The options; UsageError, before minutes go into a video, for what contradicts choices or the model."""
        options = options or GenerationOptions()
        if choices is not None:
            check_choices(choices)
            options.check_for_choices()
        if options.evidence:
            check_looks(self.checkpoint.location.name, self.checkpoint.model.config.hybrid_layers)
        return options

    def _encode_all(self, questions: Sequence[tuple[VideoSource, str]]) -> list[Asked]:
        """The questions with every video file encoded; each file once. UsageError for what is no video."""
        of_file: dict[Path, EncodedVideo] = {}
        asked: list[Asked] = []
        for video, question in questions:
            check_question(question)  # before minutes go into a video
            if isinstance(video, str | Path):
                path = Path(video)
                if path not in of_file:
                    of_file[path] = self.encode(video)
                asked.append(Asked(of_file[path], question))
            elif video is None or isinstance(video, EncodedVideo):
                asked.append(Asked(video, question))
            else:
                raise UsageError(f"{video!r} is not a video.", "Give a path, what `encode` returned, or None.")
        return asked


_ANY_QUESTION = "?"
