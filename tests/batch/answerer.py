"""A model without weights that takes what the runner has read, answers with what it was asked, and fails on demand."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import torch

from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, EncodeStage
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.reading_ahead import VideoBeingRead
from sfvqa.inference.video_qa import Unseen, VideoSource, never
from sfvqa.model import VisualTokens
from sfvqa.video import CropMode, ReadOptions, SamplingOptions
from sfvqa.video.reading import ReadProgress
from tests.cli.fake import ScriptedVideoQA


@dataclass
class FakeAnswerer(ScriptedVideoQA):
    """Says `NAME: QUESTION (N frames)`; `on_chunk` and `on_answer` are called before it works, and may raise."""

    on_chunk: Callable[[str, int], None] = lambda _name, _num_wanted: None
    on_answer: Callable[[list[str], Callable[[], bool]], None] = lambda _questions, _stop: None
    seen: list[str] = field(default_factory=list)

    def encode_progressively(
        self,
        video: Unseen,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,  # noqa: ARG002
        crop: CropMode | None = None,
    ) -> Generator[EncodeProgress, None, EncodedVideo]:
        """Take every chunk, and keep a number of it."""
        assert isinstance(video, VideoBeingRead)
        assert sampling is not None
        video.check(sampling, self.fit(crop))
        name, total, sums = video.reader.info.path.name, 0, list[float]()
        self.seen.append(name)
        while True:
            try:
                item = next(video.chunks)
            except StopIteration as end:
                facts = end.value
                break
            if isinstance(item, ReadProgress):
                total = item.total
            else:
                self.on_chunk(name, total)
                sums += [float(frame.sum()) for frame in item]
            yield EncodeProgress(EncodeStage.ENCODE, len(sums), total)
        return EncodedVideo(
            visual_tokens=VisualTokens(slow=torch.tensor(sums)[:, None], fast=torch.zeros(1, 1)),
            indices=facts.indices,
            timestamps_seconds=facts.timestamps_seconds,
            strategy=facts.strategy,
            reader=facts.reader,
            crop=crop or CropMode.CENTER,
            video=facts.video,
            warnings=facts.warnings,
            read_seconds=0.25,
            encode_seconds=0.5,
        )

    def answer_batch(
        self,
        questions: Sequence[tuple[VideoSource, str]],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,  # noqa: ARG002
        choices: Sequence[str] | None = None,
        watch: Callable[[list[str]], bool | None] = never,
    ) -> list[Answer]:
        """The answers, `interrupted` once `watch` says so."""
        asked = [question for _, question in questions]
        self.batches.append(asked)
        self.prompted.append((None, choices))
        self.on_answer(asked, lambda: bool(watch([])))
        answers = []
        for video, question in questions:
            assert isinstance(video, EncodedVideo)
            text = f"{video.video.path.name}: {question} ({len(video.indices)} frames)"
            answer = self._answer(video, question, options or GenerationOptions(), text)
            answers.append(replace(answer, finish_reason=FinishReason.INTERRUPTED) if watch([]) else answer)
        return answers
