"""From the options of `sfvqa batch` to its items, and to how they are run and what their ids are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.errors import UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from sfvqa.batch.cluster.loading import ModelLoader
    from sfvqa.batch.cluster.options import ClusterOptions
    from sfvqa.batch.item import Item
    from sfvqa.batch.options import BatchOptions
    from sfvqa.batch.plan import BatchModel
    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.planning import PlannedRun
    from sfvqa.cli.render import Notices
    from sfvqa.inference.video_cache.store import VideoCache

_IN_THE_ID = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed", "static_decode")


@dataclass(frozen=True)
class BatchRequest:
    """The items, and how they are run, with every choice made that is made here.

    `asked` is the model as it was asked for, `planned` what that comes to on this machine. On a `cluster` each worker
    plans for itself: there `planned` is None, and `loader` loads the model.
    """

    items: "Sequence[Item]"
    asked: "BatchModel"
    options: "BatchOptions"
    cache: "VideoCache | None"
    planned: "PlannedRun | None"
    cluster: "ClusterOptions | None" = None
    loader: "ModelLoader | None" = None

    @classmethod
    def of(cls, context: "typer.Context", notices: "Notices") -> "BatchRequest":
        """The request in the parameters of the command; finds the items, loads nothing.

        Raises UsageError for what contradicts itself, ModelError for a model that is unknown or not here.
        """
        from sfvqa.cli.answer_request import AnswerRequest
        from sfvqa.cli.batch.cluster_options import cluster_options
        from sfvqa.cli.batch.planning import name_model, plan_here
        from sfvqa.cli.cache_options import video_cache
        from sfvqa.cli.frame_request import FrameRequest
        from sfvqa.cli.session import ModelRequest, check_model

        given = context.params
        frames, model, answers = FrameRequest.of(context), ModelRequest.of(context), AnswerRequest.of(context)
        _check_flags(given)
        cluster = cluster_options(context)
        check_model(model, needs_weights=not given["dry_run"])
        items = _gather(given, notices)
        asked = name_model(
            model,
            frames,
            items,
            given["max_new_tokens"],
            notices,
            _num_prompt_tokens(answers),
            given["batch_size"].size,
            on_cluster=cluster is not None,
        )
        cache = video_cache(context)
        options = _batch_options(given, asked, frames, answers, cache)
        if cluster is not None:
            return cls(items, asked, options, cache, None, cluster, _loader(given, asked, options, cache))
        planned, batch_size = plan_here(asked, model, frames, notices)
        options = replace(options, sampling=planned.sampling, batch_size=batch_size)
        return cls(items, asked, options, cache, planned)


def _gather(given: Mapping[str, Any], notices: "Notices") -> "list[Item]":
    """The items of this run, at least one. Raises UsageError."""
    from sfvqa.batch.gathering import gather_items
    from sfvqa.batch.group import take_shard
    from sfvqa.batch.shard import parse_shard
    from sfvqa.cli.question_file import read_questions
    from sfvqa.given_file import STANDARD_INPUT

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
    notices.note(f"Shard {shard}: {len(share):,} of the {plural(len(items), 'item')}.")
    return share


def _check_flags(given: Mapping[str, Any]) -> None:
    """UsageError for flags that contradict each other."""
    if given["overwrite"] and given["retry_errors"]:
        raise UsageError("--overwrite leaves no errors to be asked again.", "Leave out --retry-errors.")
    if given["json"] and str(given["out"]) == "-":
        raise UsageError("Records and the summary cannot both go to standard output.", "Leave out --json.")


def _batch_options(
    given: Mapping[str, Any],
    asked: "BatchModel",
    frames: "FrameRequest",
    answers: "AnswerRequest",
    cache: "VideoCache | None",
) -> "BatchOptions":
    """How the batch runs, as far as that needs no plan."""
    from sfvqa.batch.options import BatchOptions, default_num_readers
    from sfvqa.video.content_hash import hash_content

    return BatchOptions(
        settings=_requested_settings(asked, frames, answers),
        sampling=asked.sampling,
        crop=frames.crop_mode(),
        reading=frames.reading(),
        generation=answers.generation(),
        prompt=answers.fixed_prompt,
        choices=answers.choices,
        reads_subtitles=answers.reads_text_track,
        subtitle_tokens=answers.subtitle_tokens,
        num_readers=given["readers"] or default_num_readers(),
        frames_ahead=given["frames_ahead"],
        item_timeout_seconds=given["item_timeout"],
        max_failures=given["max_failures"],
        retry_errors=given["retry_errors"],
        content_of=hash_content if cache is None else cache.content_of,
    )


def _loader(
    given: Mapping[str, Any], asked: "BatchModel", options: "BatchOptions", cache: "VideoCache | None"
) -> "ModelLoader":
    """What a worker does to have the model."""
    from sfvqa.batch.cluster.loading import CacheOptions, ModelLoader
    from sfvqa.inference.locate import find

    found = find(asked.name)
    if isinstance(found, Path):  # workers are in other folders
        asked = replace(asked, name=str(found.absolute()))
    kept = None if cache is None else CacheOptions(cache.limit_bytes, given["full_hash"])
    return ModelLoader(asked, str(options.settings["weights"]), kept, given["readers"])


def _requested_settings(asked: "BatchModel", frames: "FrameRequest", answers: "AnswerRequest") -> dict[str, object]:
    """What was asked for, as far as it can change an answer: `auto` stays auto, whatever it came to this time."""
    from sfvqa.inference.sizes import read_sizes
    from sfvqa.inference.video_cache.checkpoint_identity import identify_model

    reading, prompt = frames.reading(), answers.fixed_prompt
    trained_with = read_sizes(asked.name, random_weights=asked.random_weights).trained_with
    return {
        "model": _short_name(asked.name),
        "weights": identify_model(asked.name, asked.quantization, random_weights=asked.random_weights),
        "quantization": asked.quantization,
        "dtype": asked.dtype,
        "attention": asked.attention,
        "sampling": asdict(asked.sampling),
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
        **({"evidence": True} if answers.evidence else {}),  # without it the ids are those of before there was any
    }


def _short_name(model: str) -> str:
    """A registered name as it is; a folder by its own name, however the way to it was written."""
    from sfvqa.inference.locate import find

    found = find(model)
    return found.absolute().name if isinstance(found, Path) else model


def _num_prompt_tokens(answers: "AnswerRequest") -> int:
    """How many tokens stand in a prompt beside the question, for estimates of memory."""
    from sfvqa.inference.prompt_options import MAX_SUBTITLE_TOKENS

    subtitles = (answers.subtitle_tokens or MAX_SUBTITLE_TOKENS) if answers.reads_text_track else 0
    return answers.fixed_prompt.num_tokens_about + subtitles
