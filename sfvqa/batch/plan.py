"""What a batch is asked for, and what of it is decided by the machine: frames, quantization, questions at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.memory import estimate_memory
from sfvqa.checkpoints.plan import Plan, make_plan
from sfvqa.errors import UsageError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.speech import SpeechOptions
from sfvqa.video.clip import CHUNK_SIZE
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions, num_available_cores
from sfvqa.video.readers.local_file import hash_content
from sfvqa.video.sampling import SamplingOptions

STILL_SECONDS = 3600.0
"""How long the model may hang where no time limit was asked for: no step takes so long on a fit machine."""

_MOST_READERS = 8


def default_num_readers(num_cores: int | None = None) -> int:
    """One for every two cores (None: of this machine), at least two, so that a slow video holds up no other."""
    return min(max(2, (num_cores or num_available_cores()) // 2), _MOST_READERS)


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is run; UsageError for what cannot be.

    - `settings` are those asked for, as records show them; with the video and the question they make an item's id.
    - `sampling`, `crop`, `reading`, `prompt` are those of VideoQA; an item's own range overrides that of `sampling`.
      `generation` writes the answers, or `choices` are compared, unless an item has its own.
    - `reads_subtitles`: put each video's own text track into the prompt, cut to `subtitle_tokens`; with `speech`, what
      is said in it.
    - `batch_size` questions are answered at a time, about one video or several.
    - `num_readers` videos are read at a time, and at most `frames_ahead` frames are read and not yet encoded.
    - `item_timeout_seconds` limits reading a video, encoding it, and each answer; without it, an item is given up after
      STILL_SECONDS without progress.
    - `max_failures` ends the batch; `retry_errors` asks items with an error record again.
    - `content_of` hashes a video; several threads call it.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    crop: CropMode | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    choices: tuple[str, ...] | None = None
    reads_subtitles: bool = False
    speech: SpeechOptions | None = None
    subtitle_tokens: int | None = None
    batch_size: int = 1
    num_readers: int = field(default_factory=default_num_readers)
    frames_ahead: int = 256  # 113 MB at 384 × 384 pixels
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
        """How an answer is written, or with choices compared."""
        written = self.generation
        if choices is None:
            return written
        return GenerationOptions(slow_attention=written.slow_attention, evidence=written.evidence)

    @property
    def still_seconds(self) -> float:
        """How long the model may hang."""
        return self.item_timeout_seconds or STILL_SECONDS

    @property
    def reading_within_limits(self) -> ReadOptions:
        """How files are read here: within both time limits, with the cores shared among the readers."""
        asked = self.reading
        threads = asked.num_threads or max(1, num_available_cores() // self.num_readers)
        limit_seconds = min(asked.timeout_seconds, self.item_timeout_seconds or asked.timeout_seconds)
        return replace(asked, num_threads=threads, timeout_seconds=limit_seconds)


LARGEST_BATCH = 16
"""Questions that `auto` answers at a time at most: more gain little."""


@dataclass(frozen=True)
class BatchModel:
    """The model that is to answer, and what a batch needs of it; what is open is decided where `plan` is called.

    `fewer_frames` allows fewer frames where memory is short. `batch_size` None is as many of the `num_questions`, about
    `num_videos`, as fit, at most LARGEST_BATCH.
    """

    settings: ModelSettings
    fewer_frames: bool
    num_text_tokens: int
    batch_size: int | None
    num_questions: int
    num_videos: int

    def plan(self, options: BatchOptions) -> tuple[Plan, BatchOptions]:
        """Plan by this machine's memory; the options get the frames and the batch size that fit.

        Videos are not opened: each counts as having as many frames as are wanted. UsageError for a device, dtype,
        attention or quantization that this machine lacks.
        """
        sizes = read_sizes(self.settings.name, self.settings.adapter)
        sampling = options.sampling
        num_frames = len(sampling.timestamps_seconds or ()) or sampling.num_frames
        plan = make_plan(
            self.settings,
            sizes,
            num_frames=num_frames,
            fewer_frames=self.fewer_frames,
            num_text_tokens=self.num_text_tokens,
            max_new_tokens=options.generation.max_new_tokens,
            batch_size=self.batch_size or 1,
            num_videos=min(self.batch_size or 1, self.num_videos),
            static_decode=options.generation.static_decode,
        )
        if plan.run.num_frames < num_frames:
            sampling = replace(sampling, num_frames=plan.run.num_frames)
        return plan, replace(options, sampling=sampling, batch_size=self.batch_size or self._largest_batch(plan))

    def _largest_batch(self, plan: Plan) -> int:
        """The largest batch that fits, of questions about one video or several."""
        size = min(self.num_questions, LARGEST_BATCH)
        while size > 1:
            run = replace(plan.run, batch_size=size, num_videos=min(size, self.num_videos))
            if estimate_memory(plan.sizes.sizes, plan.sizes.fast, run).fits(plan.free_bytes):
                break
            size //= 2
        return max(size, 1)
