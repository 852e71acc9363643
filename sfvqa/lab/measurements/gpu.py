"""`python -m sfvqa.lab.measurements.gpu --out DIR`: all that a GPU is to tell us, in eight minutes.

Steps run one after the other, the most important first, each in a process of its own with a time limit. After each of
them DIR/gpu.json and DIR/gpu.md are written anew: a step that fails or is stopped keeps the figures it had.
`--device cpu --model tiny --repeats 1 --new-tokens 4` is the dry run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.claims import VIDEO
from sfvqa.lab.measurements.gpu_steps import STEPS, add_setting
from sfvqa.lab.measurements.numbered_videos import find_or_write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

LIMIT_SECONDS = {"doctor": 45, "bf16": 130, "nf4": 110, "tests": 110, "launches": 90, "8bit": 80, "claims": 150}
_OTHER_LIMIT_SECONDS = 60
_LEAST_SECONDS = 15  # with less left a step is not begun
_LOG_LENGTH = 3000  # characters of what a failing step printed last


@dataclass(frozen=True)
class Wanted:
    """What a figure is to be on an H200: at most or at least `bound`."""

    bound: float
    is_upper: bool

    def __str__(self) -> str:
        return f"{'≤' if self.is_upper else '≥'} {self.bound:g}"

    def is_met(self, value: float) -> bool:
        """Whether it is."""
        return value <= self.bound if self.is_upper else value >= self.bound


WANTED = {
    ("bf16", "64 frames, ttft after reading"): Wanted(0.35, is_upper=True),
    ("bf16", "64 frames"): Wanted(180, is_upper=False),
    ("bf16", "a token, 128 over 16 frames"): Wanted(1.05, is_upper=True),
    ("nf4", "64 frames"): Wanted(250, is_upper=False),
    ("nf4", "64 frames, peak memory"): Wanted(10, is_upper=True),
    ("tests", "exit code"): Wanted(0, is_upper=True),
    # What the tests on devices that are not there allow; `measurements.roofline` has what they count.
    ("launches", "launches a token"): Wanted(650, is_upper=True),
    ("launches", "waits a token"): Wanted(1, is_upper=True),
    ("launches", "launches a replayed token"): Wanted(8, is_upper=True),
    ("launches", "waits a replayed token"): Wanted(1, is_upper=True),
    ("launches", "launches a frame"): Wanted(40, is_upper=True),
}


@dataclass
class Outcome:
    """How a step ended: `ok`, `failed`, `stopped` at its limit or `skipped` for want of time, and its figures."""

    step: str
    status: str = "skipped"
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""


def run_step(step: str, arguments: Sequence[str], folder: Path, limit_seconds: float) -> Outcome:
    """Run a step in a process of its own, which is ended with all that it started at the limit."""
    out, start = folder / f"{step}.json", time.monotonic()
    command = [sys.executable, "-m", "sfvqa.lab.measurements.gpu_steps", step, "--out", str(out), *arguments]
    with (folder / f"{step}.log").open("w+", encoding="utf-8") as log:
        alone = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=alone, start_new_session=True)
        try:
            status = "ok" if process.wait(limit_seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "stopped"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        printed = log.read()
    figures = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    said = "" if status == "ok" else printed[-_LOG_LENGTH:]
    return Outcome(step, status, time.monotonic() - start, figures, said)


def as_table(outcomes: Sequence[Outcome], *, compares: bool) -> str:
    """Markdown: a row a figure; what is wanted beside it, and whether that is met where the machine `compares`."""
    rows = []
    for outcome in outcomes:
        rows.append([f"**{outcome.step}**", f"{outcome.status}, {outcome.seconds:.0f} s", "", "", ""])
        for figure in outcome.figures:
            if figure["unit"] is None:
                continue
            value, wanted = figure["value"], WANTED.get((outcome.step, figure["name"]))
            met = "" if wanted is None or not compares else "yes" if wanted.is_met(value) else "**no**"
            shown = f"{value:.4g} {figure['unit']}".strip() if isinstance(value, int | float) else str(value)
            rows.append(["", figure["name"], shown, "" if wanted is None else str(wanted), met])
        if outcome.log:
            rows.append(["", "the last line printed", outcome.log.strip().split("\n")[-1].replace("|", "/"), "", ""])
    return markdown_table(["step", "figure", "measured", "wanted", "met"], rows, num_texts=2)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.gpu", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu.json and gpu.md")
    parser.add_argument("--limit-s", type=float, default=480, help="seconds for all steps together")
    parser.add_argument("--steps", default=",".join(STEPS), help="which, and in which order (default: all)")
    add_setting(parser)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Run every step for which there is time, and print the table; exit code 1 where one failed."""
    started, options = time.monotonic(), parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = options.steps.split(",")
    outcomes = [Outcome(step) for step in steps]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        video = options.video or find_or_write(VIDEO, folder)
        passed = [f"--{name}={getattr(options, name)}" for name in ("model", "device", "repeats")]
        passed += [f"--new-tokens={options.new_tokens}", f"--video={video.absolute()}"]
        for place, step in enumerate(steps):
            left = options.limit_s - (time.monotonic() - started)
            if left >= _LEAST_SECONDS:
                print(f"{step}: {left:.0f} s left", file=sys.stderr)
                limit = min(left - 1, LIMIT_SECONDS.get(step, _OTHER_LIMIT_SECONDS))
                outcomes[place] = run_step(step, passed, folder, limit)
            write_figures(
                options.out / "gpu.json",
                settings={name: str(value) for name, value in vars(options).items()},
                steps=[asdict(outcome) for outcome in outcomes],
            )
            table = as_table(outcomes, compares=options.device == "cuda")
            (options.out / "gpu.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    if any(outcome.status in ("failed", "stopped") for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
