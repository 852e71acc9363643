"""What a batch will run as: the model by its name, and where it runs on this machine, all that its memory decides."""

from dataclasses import replace
from typing import TYPE_CHECKING

from sfvqa.cli.planning import PlannedRun, num_question_tokens
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.batch.item import Item
    from sfvqa.batch.plan import BatchModel
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import ModelRequest


def name_model(
    model: "ModelRequest",
    frames: "FrameRequest",
    items: "Sequence[Item]",
    max_new_tokens: int,
    notices: "Notices",
    num_other_tokens: int,
    batch_size: int | None,
    *,
    on_cluster: bool,
) -> "BatchModel":
    """Choose the model if none is named, and say so; what else is open stays so (a batch size that is None, too).

    UsageError for a cluster without a name: what fits this machine says nothing of others.
    """
    if on_cluster and model.name is None:
        raise UsageError("A cluster needs to be told the model.", "Name it with --model: it must be on every node.")
    with notices.waiting("Choosing the model"):  # importing torch is part of the wait
        from sfvqa.batch.group import group_items
        from sfvqa.batch.plan import BatchModel
        from sfvqa.inference.choose import choose_model
        from sfvqa.inference.sizes import read_sizes

        choice = choose_model(
            model.name if model.is_named_by_flag else None,
            configured=model.name,
            device=model.device,
            dtype=model.dtype,
            quantization=model.quantization,
        )
        trained_with = read_sizes(choice.model, random_weights=model.random_weights).trained_with
        num_videos = len(group_items(items))
    if not model.is_named_by_flag:
        notices.note(choice.reason)
    return BatchModel(
        name=choice.model,
        device=model.device,
        dtype=model.dtype,
        attention=model.attention,
        quantization=model.quantization,
        random_weights=model.random_weights,
        sampling=frames.sampling(trained_with.sampling),
        fewer_frames=frames.fewer_if_short,
        num_text_tokens=num_question_tokens(item.question for item in items) + num_other_tokens,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        num_questions=len(items),
        num_videos=num_videos,
        static_decode=model.static_decode,
    )


def plan_here(
    asked: "BatchModel", model: "ModelRequest", frames: "FrameRequest", notices: "Notices"
) -> tuple[PlannedRun, int]:
    """Choose what was left open by the memory of this machine, and say so; also how many questions go at a time."""
    planned = asked.plan()
    for notice in planned.plan.notices:
        notices.note(notice)
    run = planned.plan.run
    if planned.sampling != asked.sampling:
        frames = replace(frames, num_frames=run.num_frames)
    request = replace(model, name=asked.name, is_named_by_flag=True, quantization=run.quantization.value)
    return PlannedRun(request, frames, planned.sizes, planned.plan, planned.sampling, (), None), planned.batch_size
