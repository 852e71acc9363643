"""From the options of `sfvqa batch` to its items, and to how they are run and what their ids are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from sfvqa.batch.item import Item
    from sfvqa.batch.options import BatchOptions
    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.planning import PlannedRun
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import ModelRequest
    from sfvqa.inference.video_cache.store import VideoCache

_IN_THE_ID = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed")


@dataclass(frozen=True)
class BatchRequest:
    """The items, and how they are run, with every choice made; `quantization` is as it was asked for."""

    items: "Sequence[Item]"
    planned: "PlannedRun"
    options: "BatchOptions"
    cache: "VideoCache | None"
    quantization: str

    @classmethod
    def of(cls, context: "typer.Context", notices: "Notices") -> "BatchRequest":
        """The request in the parameters of the command; finds the items, loads nothing.

        Raises UsageError for what contradicts itself, ModelError for a model that is unknown or not here.
        """
        from sfvqa.cli.answer_request import AnswerRequest
        from sfvqa.cli.batch.planning import plan_batch
        from sfvqa.cli.cache_options import video_cache
        from sfvqa.cli.frame_request import FrameRequest
        from sfvqa.cli.session import ModelRequest, check_model

        given = context.params
        frames, model, answers = FrameRequest.of(context), ModelRequest.of(context), AnswerRequest.of(context)
        _check_flags(given)
        check_model(model, needs_weights=not given["dry_run"])
        items = _gather(given, notices)
        planned, batch_size = plan_batch(
            model,
            frames,
            items,
            given["max_new_tokens"],
            notices,
            _num_prompt_tokens(answers),
            given["batch_size"].size,
        )
        cache = video_cache(context)
        settings = _requested_settings(model, planned, frames, answers)
        options = _batch_options(given, planned, settings, answers, cache, batch_size)
        return cls(items, planned, options, cache, model.quantization)


def _gather(given: Mapping[str, Any], notices: "Notices") -> "list[Item]":
    """The items of this run, at least one. Raises UsageError."""
    from sfvqa.batch.gathering import gather_items
    from sfvqa.batch.group import take_shard
    from sfvqa.batch.shard import parse_shard
    from sfvqa.cli.question_file import STANDARD_INPUT, read_questions

    if given["question_file"] == given["source"] == STANDARD_INPUT:
        raise UsageError("Manifest and questions cannot both come from standard input.", "Name a file for one of them.")
    shard = None if given["shard"] is None else parse_shard(given["shard"])
    questions = [
        *(given["questions"] or ()),
        *(read_questions(given["question_file"]) if given["question_file"] else ()),
    ]
    said: list[str] = []
    with notices.waiting("Looking for videos"):
        items = gather_items(given["source"], questions, said)
    for notice in said:
        notices.note(notice)
    if shard is None:
        return items
    share = take_shard(items, shard)
    notices.note(f"Shard {shard}: {len(share):,} of the {len(items):,} items.")
    return share


def _check_flags(given: Mapping[str, Any]) -> None:
    """UsageError for flags that contradict each other."""
    if given["overwrite"] and given["retry_errors"]:
        raise UsageError("--overwrite leaves no errors to be asked again.", "Leave out --retry-errors.")
    if given["json"] and str(given["out"]) == "-":
        raise UsageError("Records and the summary cannot both go to standard output.", "Leave out --json.")


def _batch_options(
    given: Mapping[str, Any],
    planned: "PlannedRun",
    settings: dict[str, object],
    answers: "AnswerRequest",
    cache: "VideoCache | None",
    batch_size: int,
) -> "BatchOptions":
    """How the batch runs, every choice made."""
    from sfvqa.batch.options import BatchOptions, default_num_readers
    from sfvqa.video.content_hash import hash_content

    return BatchOptions(
        settings=settings,
        sampling=planned.sampling,
        crop=planned.frames.crop_mode(),
        reading=planned.frames.reading(),
        generation=answers.generation(),
        prompt=answers.fixed_prompt,
        choices=answers.choices,
        reads_subtitles=answers.reads_text_track,
        subtitle_tokens=answers.subtitle_tokens,
        batch_size=batch_size,
        num_readers=given["readers"] or default_num_readers(),
        frames_ahead=given["frames_ahead"],
        item_timeout_seconds=given["item_timeout"],
        max_failures=given["max_failures"],
        retry_errors=given["retry_errors"],
        content_of=hash_content if cache is None else cache.content_of,
    )


def _requested_settings(
    model: "ModelRequest", planned: "PlannedRun", frames: "FrameRequest", answers: "AnswerRequest"
) -> dict[str, object]:
    """What was asked for, as far as it can change an answer: `auto` stays auto, whatever it came to this time."""
    from sfvqa.inference.video_cache.checkpoint_identity import identify_model

    assert planned.model.name is not None
    trained_with = planned.sizes.trained_with
    reading, prompt = frames.reading(), answers.fixed_prompt
    return {
        "model": planned.model.name,
        "weights": identify_model(planned.model.name, model.quantization, random_weights=model.random_weights),
        "quantization": model.quantization,
        "dtype": model.dtype,
        "attention": model.attention,
        "sampling": asdict(frames.sampling(trained_with.sampling)),
        "fewer_frames_if_short": frames.fewer_if_short,
        "crop": (frames.crop_mode() or trained_with.crop).value,
        "reader": reading.reader.value,
        **{name: value for name, value in asdict(answers.generation()).items() if name in _IN_THE_ID},
        "slow_attention": answers.slow_attention,
        "choices": answers.choices,
        "system": prompt.system,
        "template": prompt.template,
        "subtitles": "auto" if answers.reads_text_track else None,
        "subtitle_tokens": answers.subtitle_tokens,
    }


def _num_prompt_tokens(answers: "AnswerRequest") -> int:
    """How many tokens stand in a prompt beside the question, for estimates of memory."""
    from sfvqa.inference.prompt_options import MAX_SUBTITLE_TOKENS

    subtitles = (answers.subtitle_tokens or MAX_SUBTITLE_TOKENS) if answers.reads_text_track else 0
    return answers.fixed_prompt.num_tokens_about + subtitles
