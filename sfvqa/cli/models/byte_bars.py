"""A bar for steps that go through bytes: how many, how fast, how long still. On a terminal only."""

import contextlib
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sfvqa.cli.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Generator

    from sfvqa.cli.render import Notices
    from sfvqa.inference.hub.progress import ByteProgress

T = TypeVar("T")
_STAGES = {"download": "Downloading", "check": "Checking"}
_ROOM_FOR_FILE = 110  # columns of the terminal, for the name of the file beside the bar
_SPEED_SECONDS = 5.0  # stages alternate: what a stage did before the other had its turn says nothing of its speed


def follow_bytes(steps: "Generator[ByteProgress, None, T]", notices: "Notices") -> T:
    """Run `steps` to the end under a bar that leaves no trace; return what comes of it."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]
    if console.width >= _ROOM_FOR_FILE:
        columns.append(TextColumn("{task.fields[file]}", style="dim", markup=False))
    with (
        contextlib.closing(steps),
        Progress(
            *columns,
            console=console,
            transient=True,
            disable=not notices.live,
            speed_estimate_period=_SPEED_SECONDS,
        ) as bars,
    ):
        tasks: dict[str, TaskID] = {}
        try:
            while True:
                step = next(steps)
                if step.stage not in tasks:
                    # Speeds are those of this run: what was here before does not count.
                    tasks[step.stage] = bars.add_task(_STAGES[step.stage], completed=step.done_bytes, file="")
                for stage, task in tasks.items():
                    bars.update(task, visible=stage == step.stage)
                file = printable_line(step.file)
                bars.update(tasks[step.stage], completed=step.done_bytes, total=step.total_bytes, file=file)
        except StopIteration as end:
            result: T = end.value
            return result
