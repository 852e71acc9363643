"""`python -m sfvqa.lab.comparison.tables`: what an experiment found, as tables and a plot."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.errors import SfvqaError
from sfvqa.evaluation.scores import Interval, paired_difference_interval, wilson_interval
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.comparison.cells import HYBRID_EVERY, MAIN, SMALL, Cell, Tokens, Variant, plan
from sfvqa.lab.comparison.questions import BenchmarkFamily, Skill
from sfvqa.lab.comparison.run import read_settings, result_path
from sfvqa.profiling.plot import FORMATS, check_matplotlib

if TYPE_CHECKING:
    import argparse

TITLES = {MAIN: "The comparison", SMALL: "One thing changed at a time (one seed, fewer steps)"}
NOT_RUN = "not run"
_ALL_RIGHT = 0.99
_SLOW_FAST_SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08306b")
_OTHER_COLOURS = ("#e6842a", "#4a4a4a", "#c8553d")
_FIELDS = {"seed", "families", "prefill_flops", "test_set", "training_seconds", "scoring_seconds", "machine"}
TICKS = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]  # GFLOP


@dataclass(frozen=True)
class Share:
    """`right` of `total` answers, of `num_seeds` models that were asked the same questions."""

    right: int
    total: int
    num_seeds: int

    @property
    def value(self) -> float:
        """0 to 1."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> Interval:
        """Of 95 %, for other questions; how far seeds lie apart is shown beside it."""
        return wilson_interval(self.right / self.num_seeds, self.total / self.num_seeds)

    def __str__(self) -> str:
        if not self.total:
            return "–"
        half = (self.interval.high - self.interval.low) / 2
        return f"{self.value:.1%} ± {100 * half:.1f}"


@dataclass(frozen=True)
class Row:
    """A variant of a group with the results of the seeds that were run."""

    group: str
    variant: Variant
    num_seeds: int
    results: tuple[dict[str, Any], ...]

    @property
    def prefill_flops(self) -> float:
        """Of the decoder, for a prompt of mean length."""
        return float(self.results[0]["prefill_flops"])

    def share(self, skill: Skill | None = None) -> Share:
        """Of all seeds together; of one skill's questions, or of all."""
        families = [family for result in self.results for family in result["families"].values()]
        chosen = [family for family in families if skill is None or family["skill"] == skill]
        right, total = (sum(family[name] for family in chosen) for name in ("right", "total"))
        return Share(right, total, len(self.results))

    def seed_shares(self) -> list[float]:
        """Of each seed, over all questions."""
        return [Row(self.group, self.variant, 1, (result,)).share().value for result in self.results]


def read_rows(folder: Path) -> list[Row]:
    """Every variant of the plan in its order; SfvqaError where there is no experiment or its results do not match."""
    by_variant: dict[tuple[str, Variant], list[Cell]] = {}
    for cell in plan(read_settings(folder)):
        by_variant.setdefault((cell.group, cell.variant), []).append(cell)
    rows = []
    for (group, variant), cells in by_variant.items():
        paths = [result_path(folder, cell) for cell in cells]
        results = tuple(_read_result(path) for path in paths if path.exists())
        rows.append(Row(group, variant, len(cells), results))
    test_sets = {result["test_set"] for row in rows for result in row.results}
    if len(test_sets) > 1:
        raise SfvqaError(
            f"The results in {folder} are of {len(test_sets)} test sets.", "Train the cells again in another folder."
        )
    return rows


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = sorted(_FIELDS - result.keys())
    except (OSError, ValueError, AttributeError) as error:
        raise SfvqaError(f"The result {path} cannot be read: {error}.", "Remove it, and run its cell again.") from error
    if missing:
        raise SfvqaError(f"The result {path} lacks {', '.join(missing)}.", "Remove it, and run its cell again.")
    return result


def as_table(rows: list[Row]) -> str:
    """Accuracy by skill with its interval of 95 %, beside what a prompt takes; in Markdown."""
    return markdown_table(["variant", *Skill, "all", "seeds", "prefill"], [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    if not row.results:
        return [row.variant.name, *[NOT_RUN] * (len(Skill) + 1), f"0 of {row.num_seeds}", "–"]
    seeds = row.seed_shares()
    spread = f" ({min(seeds):.1%}–{max(seeds):.1%})" if len(seeds) > 1 else ""
    shares = [str(row.share(skill)) for skill in (*Skill, None)]
    runs = f"{len(seeds)} of {row.num_seeds}{spread}"
    return [row.variant.name, *shares, runs, f"{row.prefill_flops / 1e9:.2f} GFLOP"]


def families_table(rows: list[Row]) -> str:
    """Accuracy by family and what guessing reaches, of the variants that were run; in Markdown."""
    present = [row for row in rows if row.results]
    if not present:
        return ""
    lines = []
    for family in BenchmarkFamily:
        found = [
            [result["families"][family] for result in row.results if family in result["families"]] for row in present
        ]
        if all(found):
            shares = [sum(of["right"] for of in results) / sum(of["total"] for of in results) for results in found]
            chance = found[0][0]["chance"]
            lines.append([f"{family} ({family.skill})", f"{chance:.0%}", *(f"{share:.0%}" for share in shares)])
    return markdown_table(["family", "chance", *(row.variant.name for row in present)], lines)


def differences_table(rows: list[Row]) -> str:
    """Each variant less the usual one, answer by answer on the same seeds, with the interval, in points; in Markdown.

    The usual one is the first whose hybrid layers are as far apart as in others; all are of one depth.
    """
    base = next((row for row in rows if row.variant.hybrid_every == HYBRID_EVERY), None)
    compared = [row for row in rows if base is not None and row is not base and any(_paired_counts(base, row))]
    if base is None or not compared:
        return ""
    lines = [
        [row.variant.name, *(_difference(_paired_counts(base, row, skill)) for skill in (*Skill, None))]
        for row in compared
    ]
    return markdown_table([f"less {base.variant.name}, in points", *Skill, "all"], lines)


def _difference(counts: tuple[float, float, float, float]) -> str:
    if not sum(counts):
        return "–"
    both, only_base, only_row, none = counts
    interval = paired_difference_interval(both, only_row, only_base, none)
    difference = (only_row - only_base) / sum(counts)
    return f"{100 * difference:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def _paired_counts(base: Row, row: Row, skill: Skill | None = None) -> tuple[float, float, float, float]:
    """Answers that both have right, the first only, the second only, neither: means over the seeds that both have."""
    counts = Counter[str]()
    by_seed = {result["seed"]: result for result in base.results}
    pairs = [(by_seed[result["seed"]], result) for result in row.results if result["seed"] in by_seed]
    for own, other in pairs:
        for name, family in own["families"].items():
            if skill in (None, family["skill"]):
                outcomes = zip(family["outcomes"], other["families"][name]["outcomes"], strict=True)
                counts.update("".join(pair) for pair in outcomes)
    both, only_base, only_row, none = (counts[pair] / max(len(pairs), 1) for pair in ("11", "10", "01", "00"))
    return both, only_base, only_row, none


def draw(rows: list[Row], path: Path) -> None:
    """Accuracy against the FLOPs of prefill, a panel a skill; SfvqaError where matplotlib is missing."""
    check_matplotlib()
    from matplotlib.figure import Figure  # without pyplot: no window, no state beside the figure

    if path.suffix not in FORMATS:
        raise SfvqaError(f"{path} is no picture that can be drawn.", f"Name one of: {', '.join(FORMATS)}.")
    present = [row for row in rows if row.group == MAIN and row.results]
    skills = [skill for skill in Skill if any(row.share(skill).value < _ALL_RIGHT for row in present)] or list(Skill)
    figure = Figure(figsize=(4.2 * len(skills), 4.6), layout="constrained")
    panels = figure.subplots(1, len(skills), sharey=True, squeeze=False)[0]
    if left_out := ", ".join(skill for skill in Skill if skill not in skills):
        figure.suptitle(f"not drawn, because all have at least {_ALL_RIGHT:.0%}: {left_out}", fontsize=10)
    for axes, skill in zip(panels, skills, strict=True):
        _draw_skill(axes, skill, present)
    panels[0].set_ylabel("share of right answers, with intervals of 95 %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=FORMATS[path.suffix], dpi=150)
    except OSError as error:
        raise SfvqaError(f"{path} cannot be written: {error}.", "Name another place.") from error


def _colours(rows: list[Row]) -> dict[str, str]:
    """Slow-fast from light to dark by what it takes; the others in colours of their own."""
    ordered = sorted(rows, key=lambda row: row.prefill_flops)
    grown = [row.variant.name for row in ordered if row.variant.tokens is Tokens.SLOW_FAST]
    others = [row.variant.name for row in rows if row.variant.name not in grown]
    shades = _SLOW_FAST_SHADES[-len(grown) :] if grown else ()
    return dict(zip(grown, shades, strict=False)) | dict(zip(others, _OTHER_COLOURS, strict=False))


def _draw_skill(axes: Any, skill: Skill, rows: list[Row]) -> None:
    grown = sorted(
        (row.prefill_flops / 1e9, row.share(skill).value) for row in rows if row.variant.tokens is Tokens.SLOW_FAST
    )
    axes.plot(*np.array(grown).reshape(-1, 2).T, color="#bbbbbb", zorder=0)  # from few frames to many
    colours = _colours(rows)
    for row in rows:
        share = row.share(skill)
        whisker = [[share.value - share.interval.low], [share.interval.high - share.value]]
        marker = "o" if row.variant.tokens is Tokens.SLOW_FAST else "s"
        look = {"fmt": marker, "capsize": 3, "color": colours[row.variant.name], "label": row.variant.name}
        axes.errorbar([row.prefill_flops / 1e9], [share.value], whisker, **look)
    if rows:
        families = [family for family in rows[0].results[0]["families"].values() if family["skill"] == skill]
        chance = sum(family["chance"] * family["total"] for family in families) / sum(f["total"] for f in families)
        axes.axhline(chance, color="#999999", linestyle=":")
        axes.annotate(
            "chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="#777777"
        )
    axes.set_xscale("log")
    costs = [row.prefill_flops / 1e9 for row in rows] or [1.0]
    low, high = min(costs) / 2, max(costs) * 2
    axes.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)  # marks at 1 whole
    axes.set_xlabel("GFLOP of prefill (log scale)")
    axes.set_title(skill)
    axes.grid(visible=True, color="#e5e5e5")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("comparison.tables", __doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/experiment"), help="the folder of the experiment")
    parser.add_argument("--plot", type=Path, help="where the picture goes, .png or .svg")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Print the tables, draw the plot."""
    options = parse_arguments(arguments)
    rows = read_rows(options.run)
    if options.plot is not None:
        draw(rows, options.plot)
    for group, title in TITLES.items():
        of_group = [row for row in rows if row.group == group]
        print(f"## {title}\n\n{as_table(of_group)}\n")
        depths = [[row for row in of_group if row.variant.deep == deep] for deep in (False, True)]
        for table in (families_table(of_group), *map(differences_table, depths)):
            if table:
                print(table + "\n")
    results = [result for row in rows for result in row.results]
    if results:
        print("chance: always the commonest answer, or one of those the question or what is shown leaves open\n")
        minutes = sum(result["training_seconds"] + result["scoring_seconds"] for result in results) / 60
        machines = ", ".join(sorted({result["machine"] for result in results}))
        print(f"Test set {results[0]['test_set']}; {len(results)} cells took {minutes:.0f} minutes on {machines}.")


if __name__ == "__main__":
    main()
