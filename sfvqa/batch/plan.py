"""What a batch will run as: quantization, frames and how many questions at a time, by the memory free here; loads nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sfvqa.batch.item import Item
from sfvqa.inference.memory import estimate_memory
from sfvqa.inference.plan import Plan, make_plan
from sfvqa.inference.sizes import ModelSizes, read_sizes
from sfvqa.video.sampling import SamplingOptions

LARGEST_BATCH = 16
"""Questions that `auto` answers at a time: more gain little."""


@dataclass(frozen=True)
class BatchModel:
    """The model that is to answer, and how; what is `auto` is decided where `plan` is called.

    Videos are not opened: each is taken to have as many frames as are wanted of it, or with `fewer_frames` as many as
    fit. `batch_size` None is as many questions as fit, up to the `most_questions` there are about one video.
    """

    name: str
    device: str
    dtype: str
    attention: str
    quantization: str
    random_weights: bool
    sampling: SamplingOptions
    fewer_frames: bool
    num_text_tokens: int
    max_new_tokens: int
    batch_size: int | None
    most_questions: int

    def plan(self) -> "BatchPlan":
        """By the memory of this machine. Raises UsageError for a device, dtype, attention or quantization it has not."""
        sizes = read_sizes(self.name, random_weights=self.random_weights)
        num_frames = len(self.sampling.timestamps_seconds or ()) or self.sampling.num_frames
        plan = make_plan(
            sizes,
            device=self.device,
            dtype=self.dtype,
            quantization=self.quantization,
            num_frames=num_frames,
            fewer_frames=self.fewer_frames,
            num_text_tokens=self.num_text_tokens,
            max_new_tokens=self.max_new_tokens,
            attention=self.attention,
            batch_size=self.batch_size or 1,
        )
        fewer = plan.run.num_frames < num_frames
        sampling = replace(self.sampling, num_frames=plan.run.num_frames) if fewer else self.sampling
        return BatchPlan(sizes, plan, sampling, self.batch_size or _largest_batch(sizes, plan, self.most_questions))


@dataclass(frozen=True)
class BatchPlan:
    """How the batch will run on this machine."""

    sizes: ModelSizes
    plan: Plan
    sampling: SamplingOptions
    batch_size: int


def most_questions_of_a_video(items: Iterable[Item]) -> int:
    """The most that can be answered at a time."""
    return max(Counter((item.video, item.start_seconds, item.end_seconds) for item in items).values(), default=1)


def _largest_batch(sizes: ModelSizes, plan: Plan, most: int) -> int:
    size = min(most, LARGEST_BATCH)
    while size > 1:
        if estimate_memory(sizes.sizes, sizes.fast, replace(plan.run, batch_size=size)).fits(plan.free_bytes):
            break
        size //= 2
    return max(size, 1)
