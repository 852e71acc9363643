"""What a batch is asked for: how videos are seen and answers written, how much at a time, and when it gives up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.errors import UsageError
from sfvqa.inference.generation import GenerationOptions
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.reading_ahead import CHUNK_SIZE
from sfvqa.video.content_hash import hash_content
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.readers.interface import num_available_cores
from sfvqa.video.sampling import SamplingOptions

FRAMES_AHEAD = 256
"""Frames that are held in all, read and not yet seen by the model: of 384 × 384 pixels 113 MB."""

STILL_SECONDS = 3600.0
"""How long nothing may move in the model without a time-out: no step of it takes so long on a machine that is fit."""

_MOST_READERS = 8


def default_num_readers(num_cores: int | None = None) -> int:
    """One for every two cores (None: all of this machine), at least two, so that a slow video holds up no other."""
    return min(max(2, (num_cores or num_available_cores()) // 2), _MOST_READERS)


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is run; UsageError when built for what cannot be.

    - `settings` are those asked for, as records show them; with the video and the question they make an item's id.
    - `sampling`, `crop`, `reading`, `prompt`: as of VideoQA; an item's own range comes before that of `sampling`.
      `generation` writes the answers, `choices` are compared instead for items that bring none of their own.
    - `reads_subtitles`: put each video's own text track into the prompt, cut to `subtitle_tokens`.
    - `batch_size` questions are answered at a time, about one video or about several that were seen by then.
    - `num_readers` videos are read at a time, while `frames_ahead` frames at most are held in all.
    - `item_timeout_seconds`: what reading a video may take, and what seeing it, and what an answer. Without it
      an item is given up where nothing moves for STILL_SECONDS.
    - `max_failures`: stop after as many; `retry_errors`: ask again what has an error record.
    - `content_of` hashes a video; called by several threads.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    crop: CropMode | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    choices: tuple[str, ...] | None = None
    reads_subtitles: bool = False
    subtitle_tokens: int | None = None
    batch_size: int = 1
    num_readers: int = field(default_factory=default_num_readers)
    frames_ahead: int = FRAMES_AHEAD
    item_timeout_seconds: float | None = None
    max_failures: int | None = None
    retry_errors: bool = False
    content_of: Callable[[Path], str] = hash_content

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_readers", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}.", "It must be at least 1.")
        if self.frames_ahead < CHUNK_SIZE:
            raise UsageError(
                f"{self.frames_ahead} frames may be held.",
                f"Allow at least {CHUNK_SIZE}, which are encoded at a time.",
            )
        if self.item_timeout_seconds is not None and not self.item_timeout_seconds > 0:
            raise UsageError(f"item_timeout_seconds is {self.item_timeout_seconds}.", "It must be above 0.")

    def choices_for(self, item: Item) -> tuple[str, ...] | None:
        """What an item is answered with, None where the answer is written."""
        return item.choices or self.choices

    def generation_for(self, choices: tuple[str, ...] | None) -> GenerationOptions:
        """How an answer is written, or (with choices) that it is compared."""
        written = self.generation
        if choices is None:
            return written
        return GenerationOptions(slow_attention=written.slow_attention, evidence=written.evidence)

    @property
    def still_seconds(self) -> float:
        """How long nothing may move in the model."""
        return self.item_timeout_seconds or STILL_SECONDS

    @property
    def reading_within_limits(self) -> ReadOptions:
        """How files are read here: as long as both time-outs allow, with the cores shared among the readers."""
        asked = self.reading
        threads = asked.num_threads or max(1, num_available_cores() // self.num_readers)
        return ReadOptions(
            asked.reader,
            num_threads=threads,
            timeout_seconds=min(asked.timeout_seconds, self.item_timeout_seconds or asked.timeout_seconds),
            isolated=asked.isolated,
        )
