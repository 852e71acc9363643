"""How a run gets on: loss, learning rate and the time left, behind a bar on a terminal, else in lines of the log."""

import logging
import sys
import time
from typing import Any

from rich import progress
from rich.console import Console
from transformers import TrainerCallback, TrainerState

logger = logging.getLogger(__name__)


class StderrHandler(logging.Handler):
    """Writes to stderr as it is now: a bar that is shown lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print(self.format(record), file=sys.stderr)


class ProgressLine(TrainerCallback):
    """Says after each log what the figures are, and after each validation."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)
        self._began_seconds, self._began_step = 0.0, 0

    def on_train_begin(self, *given: Any, **_: Any) -> None:
        """Note where the run goes on."""
        state: TrainerState = given[1]
        self._began_seconds, self._began_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = progress.Progress(
                progress.SpinnerColumn(),
                progress.BarColumn(bar_width=None),  # what the words leave, which say more
                progress.TextColumn("{task.description}"),
                console=self._console,
                transient=True,
                expand=True,
            )
            start = f"step {state.global_step:,} of {state.max_steps:,}"
            self._task = self._bar.add_task(start, completed=state.global_step, total=state.max_steps)
            self._bar.start()

    def on_log(self, *given: Any, **named: Any) -> None:
        """Say the loss since the last time."""
        state: TrainerState = given[1]
        logs: dict[str, float] = named["logs"]
        if not state.is_world_process_zero or "loss" not in logs:
            return
        done = state.global_step - self._began_step
        left_seconds = (time.monotonic() - self._began_seconds) / done * (state.max_steps - state.global_step)
        said = (
            f"step {state.global_step:,} of {state.max_steps:,}: loss {logs['loss']:.4g}, "
            f"learning rate {logs['learning_rate']:.3g}, {time_left(left_seconds)} left"
        )
        if self._bar is None:
            logger.info(said)
        else:
            self._bar.update(self._task, completed=state.global_step, description=said)

    def on_evaluate(self, *given: Any, **named: Any) -> None:
        """Say what was measured."""
        state: TrainerState = given[1]
        metrics: dict[str, float] = named["metrics"]
        if state.is_world_process_zero:
            logger.info(
                "Validation at step %s: loss %.4g, %.1f %% exact, %.1f %% relaxed",
                f"{state.global_step:,}",
                metrics["eval_loss"],
                100 * metrics["eval_exact"],
                100 * metrics["eval_relaxed"],
            )

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """The same, also where a run fails."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def time_left(seconds: float) -> str:
    """In hours, minutes and seconds.

    >>> time_left(59.6), time_left(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
