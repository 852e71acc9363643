"""What a batch will run as: quantization, frames, questions at a time, by the memory free here. Loads nothing."""

from dataclasses import dataclass, replace

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
    fit. `batch_size` None is as many of the `num_questions`, about so many videos, as fit, at most LARGEST_BATCH.
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
    num_questions: int
    num_videos: int
    static_decode: bool = False

    def plan(self) -> "BatchPlan":
        """By the memory of this machine. UsageError for a device, dtype, attention or quantization that it has not."""
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
            num_videos=min(self.batch_size or 1, self.num_videos),
            static_decode=self.static_decode,
        )
        fewer = plan.run.num_frames < num_frames
        sampling = replace(self.sampling, num_frames=plan.run.num_frames) if fewer else self.sampling
        return BatchPlan(sizes, plan, sampling, self.batch_size or self._largest_batch(sizes, plan))

    def _largest_batch(self, sizes: ModelSizes, plan: Plan) -> int:
        """The largest that fits, of questions about one video or about several."""
        size = min(self.num_questions, LARGEST_BATCH)
        while size > 1:
            run = replace(plan.run, batch_size=size, num_videos=min(size, self.num_videos))
            if estimate_memory(sizes.sizes, sizes.fast, run).fits(plan.free_bytes):
                break
            size //= 2
        return max(size, 1)


@dataclass(frozen=True)
class BatchPlan:
    """How the batch will run on this machine."""

    sizes: ModelSizes
    plan: Plan
    sampling: SamplingOptions
    batch_size: int
