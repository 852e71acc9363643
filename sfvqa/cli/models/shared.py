"""The options that the commands on models share."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
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

from sfvqa.cli.model import complete_model
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator

    from sfvqa.checkpoints.download import ByteProgress
    from sfvqa.cli.notices import Notices


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A name from `sfvqa models list`.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
NameOrFolder = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FOLDER",
        help="A name from `sfvqa models list`, or a checkpoint folder.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON object on stdout; errors too.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Only warnings, errors and questions on stderr.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do it without asking.")]
Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Use what is on this machine, as with HF_HUB_OFFLINE=1.")
]


def confirm(question: str, what: str, *, yes: bool) -> bool:
    """Ask, unless `yes`; UsageError without a terminal. `what` is the sentence on what is about to be done."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what} There is no terminal to ask on whether to go on.", "Add --yes.")
    return typer.confirm(question, err=True)


T = TypeVar("T")
_STAGES = {"download": "Downloading", "check": "Checking"}
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
                    tasks[step.stage] = bars.add_task(
                        _STAGES[step.stage], completed=step.done_bytes, total=step.total_bytes
                    )
                for stage, task in tasks.items():
                    bars.update(task, visible=stage == step.stage)
                bars.update(tasks[step.stage], completed=step.done_bytes, total=step.total_bytes)
        except StopIteration as end:
            result: T = end.value
            return result
