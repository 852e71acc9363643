"""How a worker loads the model: planned by its own memory, with its own video cache, for its share of the cores."""

from dataclasses import dataclass, replace

from sfvqa.batch.cluster.placement import WorkerSize
from sfvqa.batch.cluster.worker import Loaded
from sfvqa.batch.options import BatchOptions, default_num_readers
from sfvqa.batch.plan import BatchModel, BatchPlan
from sfvqa.errors import ModelError
from sfvqa.inference.plan import does_not_fit
from sfvqa.inference.video_cache.checkpoint_identity import identify_model
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video.content_hash import hash_content


@dataclass(frozen=True)
class CacheOptions:
    """The video cache of each machine, in the folder that is its own."""

    limit_bytes: int
    whole_files: bool


@dataclass(frozen=True)
class ModelLoader:
    """Loads `model`, whose weights must be `weights`; `num_readers` None is by the worker's cores."""

    model: BatchModel
    weights: str
    cache: CacheOptions | None
    num_readers: int | None

    def __call__(self, options: BatchOptions, size: WorkerSize) -> Loaded:
        """Here, and now. Raises ModelError, UsageError, and OutOfMemoryError where what was left open cannot fit."""
        # A worker without a GPU of its own must not take one that Ray gave to another.
        keeps_off = self.model.device == "auto" and not size.num_gpus
        model = replace(self.model, device="cpu") if keeps_off else self.model
        found = identify_model(model.name, model.quantization, random_weights=model.random_weights)
        if found != self.weights:
            raise ModelError(
                f"The weights of {model.name} are others ({found}) than where the batch was started ({self.weights}).",
                "Have the same model on every node.",
            )
        planned = model.plan()
        notices = (*planned.plan.notices, *_check_fit(planned, model.quantization))
        cache = None if self.cache is None else VideoCache(**vars(self.cache))
        answerer = VideoQA.load(
            model.name,
            device=model.device,
            dtype=model.dtype,
            attention=model.attention,
            quantization=planned.plan.run.quantization.value,
            random_weights=model.random_weights,
            video_cache=cache,
        )
        return Loaded(answerer, self._options_here(options, planned, cache, size), notices)

    def _options_here(
        self, options: BatchOptions, planned: BatchPlan, cache: VideoCache | None, size: WorkerSize
    ) -> BatchOptions:
        num_readers = self.num_readers or default_num_readers(size.num_cpus)
        threads = options.reading.num_threads or max(1, size.num_cpus // num_readers)
        return replace(
            options,
            sampling=planned.sampling,
            batch_size=planned.batch_size,
            num_readers=num_readers,
            reading=replace(options.reading, num_threads=threads),
            content_of=hash_content if cache is None else cache.content_of,
        )


def _check_fit(planned: BatchPlan, quantization: str) -> tuple[str, ...]:
    """The notice that what was asked for by name may not fit: it is tried. What was ours to choose is not."""
    if planned.plan.fit.fits:
        return ()
    error = does_not_fit(planned.sizes, planned.plan)
    if quantization == "auto" and planned.plan.was_chosen:
        raise error
    return (error.with_flags,)
