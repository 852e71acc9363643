"""The model `sfvqa` of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval), which finds it by its entry point.

`python -m lmms_eval --model sfvqa --model_args model=slowfast-7b-64f --tasks videomme`: its tasks ask, and frames are
sampled and read, prompts built, and answers written or choices compared as `sfvqa ask` does.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL.Image import Image
from tqdm import tqdm

from sfvqa.errors import UsageError, VideoError
from sfvqa.inference import Answer, EncodedVideo, GenerationOptions, VideoQA
from sfvqa.model import SlowAttention
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

logger = logging.getLogger(__name__)

_DRAWING = ("temperature", "top_p", "top_k", "seed")
_WRITING = ("max_new_tokens", "repetition_penalty", *_DRAWING)

Named = TypeVar("Named", bound=StrEnum)

_ANOTHER = "\ue000"
"""What no answer begins with: one continuation alone has to be compared with something."""


def manifest() -> ModelManifest:
    """What the entry point names."""
    return ModelManifest("sfvqa", simple_class_path=f"{__name__}.{SlowFastModel.__name__}")


class SlowFastModel(lmms):  # type: ignore[misc]
    """Any model that `sfvqa ask --model` takes, for lmms-eval.

    `num_frames`, `sampling`, and `crop` are as in training unless given; `slow_attention` `prefill` decodes as the
    reference does. Answers come one after the other, as a generator: lmms-eval's cache (`--use_cache FOLDER`) writes
    each down when it comes, and a run that was killed goes on there, if `LMMS_CACHE_RUN_ID` names it. A question that
    cannot be answered, as where a video cannot be read, is answered by nothing, with a warning; where choices are
    compared, that is an error. Raises UsageError, ModelError, OutOfMemoryError.
    """

    def __init__(
        self,
        model: str = "tiny",
        *,
        adapter: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        quantization: str = "auto",
        num_frames: int | None = None,
        sampling: str | None = None,
        crop: str | None = None,
        slow_attention: str = "always",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1 or max_batch_size is not None:
            raise UsageError(f"--batch_size is {batch_size}.", "Give a number, without --max_batch_size.")
        strategy = None if sampling is None else _named(SamplingStrategy, "sampling", sampling)
        self._crop = None if crop is None else _named(CropMode, "crop", crop)
        self._slow_attention = _named(SlowAttention, "slow_attention", slow_attention)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if self._world_size > 1 else torch.device("cpu")  # of what is gathered
        if self._world_size > 1:
            device = str(self.device)
        self._answerer = VideoQA.load(
            model, adapter=adapter, device=device or "auto", dtype=dtype, attention=attention, quantization=quantization
        )
        default = self._answerer.default_sampling
        count = default.num_frames if num_frames is None else num_frames
        self._sampling = SamplingOptions(count, strategy or default.strategy)
        self._batch_size = int(batch_size)
        self._last: tuple[str | Path, EncodedVideo] | None = None
        """The video that was seen last: benchmarks ask about one several times in a row."""

    def generate_until(self, requests: Sequence[Instance]) -> Iterator[GenerationResult]:
        """The answers, in order; those of up to `batch_size` questions with the same settings are written together."""
        times_asked: Counter[tuple[Any, ...]] = Counter()

        def options_for(request: Instance) -> GenerationOptions:
            """What is drawn again for the same question, as a task with `repeats` wants it, takes the next seed."""
            options = options_of(request.args[1], self._slow_attention)
            if options.temperature == 0:
                return options
            question, _, _, *row = request.args
            times_asked[question, *row] += 1
            return replace(options, seed=options.seed + times_asked[question, *row] - 1)

        with tqdm(total=len(requests), disable=self.rank > 0, desc="Answering", unit="question") as progress:
            for options, group in groupby(requests, key=options_for):
                for batch in _batches(group, self._batch_size):
                    for answer in self._answers(batch, options):
                        counts = None if answer is None else TokenCounts(answer.tokens.prompt, answer.tokens.new)
                        yield GenerationResult("" if answer is None else answer.text, counts)
                    progress.update(len(batch))

    def loglikelihood(self, requests: Sequence[Instance]) -> Iterator[GenerationResult]:
        """For each continuation its loss, the negative log-probability as an answer, and whether it would be written.

        The continuations of one question, one request each in a row, are compared as choices (see choices). lmms-eval
        takes the smallest: https://github.com/EvolvingLMMs-Lab/lmms-eval/issues/370. Raises UsageError for a question
        that cannot be answered: whatever its losses were, lmms-eval would count one of the choices as chosen.
        """
        for request in requests:
            if len(request.args) < 6:
                raise UsageError("A task compares choices without their video.", "Leave acc_mutual_info out of it.")
        with tqdm(total=len(requests), disable=self.rank > 0, desc="Comparing", unit="choice") as progress:
            for _, group in groupby(requests, key=lambda request: (request.args[0], request.args[3:])):
                asked = list(group)
                yield from (GenerationResult(_Loss(found)) for found in self._losses(asked))
                progress.update(len(asked))

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[list[str]]:
        """Not supported. Raises UsageError."""
        raise UsageError(f"The task {requests[0].args[4]} asks in several rounds.", "Choose one that asks once.")

    def _answers(self, batch: Sequence[Instance], options: GenerationOptions) -> list[Answer | None]:
        """An answer each, None where there is none."""
        try:
            return [*self._answerer.answer_batch([(self._see(each), each.args[0]) for each in batch], options)]
        except (UsageError, VideoError) as error:
            if len(batch) == 1:
                logger.warning("%s: %s", _place(batch[0]), error)
                return [None]
        return [answer for each in batch for answer in self._answers([each], options)]

    def _losses(self, asked: Sequence[Instance]) -> list[tuple[float, bool]]:
        """For each of the continuations of one question."""
        question, wanted = asked[0].args[0], [self._continuation(each).strip() for each in asked]
        try:
            video = self._see(asked[0])
            compared = list(dict.fromkeys([*wanted, _ANOTHER]))
            options = GenerationOptions(slow_attention=self._slow_attention)
            found = self._answerer.ask(video, question, options, choices=compared).choices or ()
            written = self._answerer.ask(video, question, options)
        except (UsageError, VideoError) as error:
            raise UsageError(
                f"{_place(asked[0])}: {error}", "Mend it, or leave it out: lmms-eval would score one of its choices."
            ) from error
        by_text = {one.text: one.log_probability for one in found}
        return [(-by_text[text], written.text.startswith(text)) for text in wanted]

    def _continuation(self, request: Instance) -> str:
        """What a request for a likelihood asks about: a text, or a function of the task's row that gives it."""
        _, wanted, _, row, task, split = request.args
        return wanted if isinstance(wanted, str) else str(wanted(self.task_dict[task][split][row]))

    def _see(self, request: Instance) -> EncodedVideo | None:
        """The video of a request, encoded; None where it has none. Raises VideoError, UsageError."""
        _, _, visuals_of, row, task, split = request.args
        visuals = visuals_of(self.task_dict[task][split][row]) or []
        if len(visuals) > 1:
            raise UsageError(f"It shows {len(visuals)} videos or images.", "sfvqa looks at one.")
        if not visuals:
            return None
        [shown] = visuals
        if isinstance(shown, Image):
            return self._answerer.encode_frames([shown.convert("RGB")], [0.0], crop=self._crop)
        if not isinstance(shown, str | Path):
            raise UsageError(
                f"It shows something of type {type(shown).__name__}.", "sfvqa looks at a video or an image."
            )
        if self._last is None or self._last[0] != shown:
            self._last = None  # before the next one takes its memory
            self._last = shown, self._answerer.encode(shown, self._sampling, crop=self._crop)
        return self._last[1]


class _Loss(tuple[float, bool]):
    """A loss and whether it is that of the likeliest answer, where lmms-eval 0.7.3 would have a text.

    It makes a text of any other tuple, and of those that it takes out of its cache: so none gets in there.
    """

    def strip(self) -> str:
        """Nothing, which is not cached."""
        return ""


def options_of(settings: Mapping[str, Any], slow_attention: SlowAttention) -> GenerationOptions:
    """The `generation_kwargs` of a task: what they say of writing; what has no effect here is left out.

    A temperature above 0 draws, unless `do_sample` is false; else the likeliest token is taken, and what says how to
    draw has no effect: tasks then write 0 for it. `until` are stop strings; an empty one stops nothing. Raises
    UsageError for a search with beams, and for values that cannot be.
    """
    if settings.get("num_beams") not in (None, 1):
        raise UsageError(f"The task searches with {settings['num_beams']} beams.", "Give --gen_kwargs num_beams=1.")
    given = {name: settings[name] for name in _WRITING if settings.get(name) is not None}
    if not (settings.get("do_sample", True) and given.get("temperature")):
        given = {name: value for name, value in given.items() if name not in _DRAWING}
    until = settings.get("until") or ()
    stop = tuple(filter(None, [until] if isinstance(until, str) else until))
    return GenerationOptions(**given, slow_attention=slow_attention, stop=stop)


def _named(kind: type[Named], setting: str, name: str) -> Named:
    """The member of an enum by its name; UsageError for another."""
    try:
        return kind(name)
    except ValueError:
        raise UsageError(f"{setting} is {name!r}.", f"It must be one of {', '.join(kind)}.") from None


def _batches(requests: Iterable[Instance], size: int) -> Iterator[list[Instance]]:
    left = iter(requests)
    while batch := list(islice(left, size)):
        yield batch


def _place(request: Instance) -> str:
    return f"{request.args[4]}, row {request.args[3]}"
