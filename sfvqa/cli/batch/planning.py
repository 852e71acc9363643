"""What a batch will run as: the model, its frames and the size of its batches, by the free memory; loads nothing."""

from dataclasses import replace
from typing import TYPE_CHECKING

from sfvqa.cli.planning import PlannedRun, num_question_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.batch.item import Item
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import ModelRequest

LARGEST_BATCH = 16
"""Questions that `auto` answers at a time: more gain little."""


def plan_batch(
    model: "ModelRequest",
    frames: "FrameRequest",
    items: "Sequence[Item]",
    max_new_tokens: int,
    notices: "Notices",
    num_other_tokens: int,
    batch_size: int | None,
) -> tuple[PlannedRun, int]:
    """Choose what was left open and say so; also how many questions are answered at a time (asked for: None is auto).

    Videos are not opened: each is taken to have as many frames as are wanted of it.
    """
    with notices.waiting("Choosing the model"):  # importing torch is part of the wait
        from sfvqa.batch.group import group_items
        from sfvqa.inference.choose import choose_model
        from sfvqa.inference.plan import make_plan
        from sfvqa.inference.sizes import read_sizes

        choice = choose_model(
            model.name if model.is_named_by_flag else None,
            configured=model.name,
            device=model.device,
            dtype=model.dtype,
            quantization=model.quantization,
        )
        sizes = read_sizes(choice.model, random_weights=model.random_weights)
        wanted = frames.sampling(sizes.trained_with.sampling)
        num_frames = len(wanted.timestamps_seconds or ()) or wanted.num_frames
        plan = make_plan(
            sizes,
            device=model.device,
            dtype=model.dtype,
            quantization=model.quantization,
            num_frames=num_frames,
            fewer_frames=frames.fewer_if_short,
            num_text_tokens=num_question_tokens(item.question for item in items) + num_other_tokens,
            max_new_tokens=max_new_tokens,
            attention=model.attention,
            batch_size=batch_size or 1,
            num_videos=min(batch_size or 1, len(group_items(items))),
        )
        if plan.run.num_frames < num_frames:
            frames = replace(frames, num_frames=plan.run.num_frames)
    for notice in ([] if model.is_named_by_flag else [choice.reason]) + list(plan.notices):
        notices.note(notice)
    planned = PlannedRun(
        model=replace(model, name=choice.model, is_named_by_flag=True, quantization=plan.run.quantization.value),
        frames=frames,
        sizes=sizes,
        plan=plan,
        sampling=frames.sampling(sizes.trained_with.sampling),
        indices=(),
        seconds=None,
    )
    return planned, batch_size or _largest_batch(planned, items)


def _largest_batch(planned: PlannedRun, items: "Sequence[Item]") -> int:
    """The largest that fits, of questions about one video or about several."""
    from sfvqa.batch.group import group_items
    from sfvqa.inference.memory import estimate_memory

    num_videos, size = len(group_items(items)), min(len(items), LARGEST_BATCH)
    while size > 1:
        run = replace(planned.plan.run, batch_size=size, num_videos=min(size, num_videos))
        if estimate_memory(planned.sizes.sizes, planned.sizes.fast, run).fits(planned.plan.free_bytes):
            break
        size //= 2
    return max(size, 1)
