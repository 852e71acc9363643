"""The figures of a run as a page of a terminal, plain text elsewhere. Names and answers never move the cursor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sfvqa.batch.report.wording import (
    COMPARISON_METHOD,
    RETRY,
    advice_for,
    comparison_groups_table,
    comparison_table,
    comparison_texts,
    duration,
    field_table,
    headline,
    place_text,
    score_table,
    setting_difference_rows,
    span_text,
    stages_text,
)
from sfvqa.cli.screen import printable_line
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.batch.report.against import Comparison
    from sfvqa.batch.report.summary import Summary


_BAR_WIDTH = 24
_NUM_SHOWN = 12  # kinds, groups or changes
_LONGEST = 240  # characters of a question or a message


def report_page(summary: "Summary") -> Group:
    """Everything worth a line, section by section; those with nothing in them do not appear."""
    sections = {
        "Time": _time(summary),
        "Where the time went": _stages(summary),
        "Slowest": _slowest(summary),
        "Errors": _errors(summary),
        "Warnings, one of each kind": _warnings(summary),
        "Right answers (with the 95 % interval in brackets)": _scores(summary),
        "Wrong answers": _wrong(summary),
        "Fields": _fields(summary),
        "Answered by": _settings(summary),
    }
    headline = Text.assemble(
        (plural(summary.num_items, "item"), "bold"),
        f" about {plural(summary.num_videos, 'video')}: ",
        (f"{summary.num_ok:,} answered", "green" if summary.num_ok else ""),
        ", ",
        (f"{summary.num_failed:,} failed", "red" if summary.num_failed else ""),
    )
    return _page(headline, sections)


def comparison_page(comparison: "Comparison") -> Group:
    """How two runs compare: which is better in one line, and then why, in sections."""
    method: Lines = [Text(COMPARISON_METHOD, style="dim")] if comparison.counts.total else []
    sections: dict[str, Lines] = {
        "Right answers (with the 95 % interval in brackets)": [*_rows(comparison_table(comparison)), *method],
        "By group": _rows(comparison_groups_table(comparison)),
        "Agreement and time": [Text(printable_line(text)) for text in comparison_texts(comparison)],
        "Made with": _rows(setting_difference_rows(comparison), left=(0, 1, 2)),
        "Answers that differ": _changes(comparison),
    }
    return _page(Text(printable_line(headline(comparison)), style="bold"), sections)


Lines = list[RenderableType]


def _page(headline: Text, sections: dict[str, Lines]) -> Group:
    parts: Lines = [headline]
    for title, lines in sections.items():
        if lines:
            parts += [Text(f"\n{title}", style="bold"), *(_indented(line, 2) for line in lines)]
    return Group(*parts)


def _rows(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> Lines:
    """A header and rows as a table; nothing where there are none."""
    if not rows:
        return []
    table = _table(*map(_line, rows[0]), left=left)
    for row in rows[1 : 1 + _NUM_SHOWN]:
        table.add_row(*map(_line, row))
    return [table, *_more(rows[1:], "row")]


_SIGNS = {"better": ("+ ", "green"), "worse": ("− ", "red")}


def _changes(comparison: "Comparison") -> Lines:
    lines: Lines = []
    for pair in comparison.changes[:_NUM_SHOWN]:
        what = _line(f"{place_text(pair.new)}: {pair.new.question}")
        lines.append(Text.assemble(_SIGNS.get(pair.outcome, ("≠ ", "yellow")), what))
        if pair.expected is not None:
            lines.append(_indented(Text.assemble("expected ", (f"“{_line(pair.expected)}”", "green")), 2))
        for name, item in ((comparison.new_name, pair.new), (comparison.old_name, pair.old)):
            said = item.failure.kind if item.answer is None and item.failure else f"“{item.answer}”"
            lines.append(_indented(Text(_line(f"{name} {said}")), 2))
    return [*lines, *_more(comparison.changes, "item")]


def _time(summary: "Summary") -> Lines:
    if summary.span is None:
        return []
    known = [f"{rate:,.1f} {name.replace('_per_', ' a ')}" for name, rate in summary.rates.items() if rate is not None]
    return [Text(line) for line in (span_text(summary.span), ", ".join(known)) if line]


def _stages(summary: "Summary") -> Lines:
    whole = sum(stage.sum_seconds for stage in summary.stages)
    if not whole:
        return []
    table = _table("", "sum", "share", "", "median", left=(0, 3))
    for stage in summary.stages:
        share = stage.sum_seconds / whole
        bar = Text("█" * round(share * _BAR_WIDTH), style="cyan")
        table.add_row(stage.stage, duration(stage.sum_seconds), f"{share:.0%}", bar, duration(stage.median_seconds))
    return [table, Text(stages_text(summary.stages, summary.span), style="dim")]


def _slowest(summary: "Summary") -> Lines:
    table = _table("", "most of it", "video", "question", left=(1, 2, 3))
    for item in summary.slowest:
        table.add_row(duration(item.total_seconds), item.longest_stage, _line(item.video), _line(item.question))
    return [table] if summary.slowest else []


def _errors(summary: "Summary") -> Lines:
    lines: Lines = []
    for error in summary.errors[:_NUM_SHOWN]:
        what = (f"{error.count:,} × {_line(error.kind)}", "red")
        lines.append(Text.assemble(what, f", such as {_line(error.video)}"))
        more = [_line(error.message), advice_for(error.kind)]
        lines += [_indented(Text(line, style="dim"), 2) for line in more if line]
    return [*lines, *_more(summary.errors, "kind"), Text(RETRY)] if lines else lines


def _warnings(summary: "Summary") -> Lines:
    shown = [
        Text.assemble((f"{warning.count:,} × ", "yellow"), _line(warning.example))
        for warning in summary.warnings[:_NUM_SHOWN]
    ]
    return [*shown, *_more(summary.warnings, "kind")]


def _scores(summary: "Summary") -> Lines:
    if summary.score is None:
        return []
    header, *rows = score_table(summary)
    table = _table(*header, left=(0,))
    for name, *cells in rows[: 1 + _NUM_SHOWN]:
        table.add_row(_line(name), *cells)
    return [table, *_more(rows[1:], "group"), Text(summary.rule.statement, style="dim")]


def _wrong(summary: "Summary") -> Lines:
    lines: Lines = []
    for item in summary.wrong[:_NUM_SHOWN]:
        lines.append(Text(f"{_line(item.video)}: {_line(item.question)}"))
        expected, answer = (f"“{_line(text)}”" for text in (item.expected, item.answer))
        lines.append(_indented(Text.assemble("expected ", (expected, "green"), ", answered ", (answer, "red")), 2))
    return [*lines, *_more(summary.wrong, "wrong answer")]


def _fields(summary: "Summary") -> Lines:
    if not summary.fields:
        return []
    header, *rows = field_table(summary)
    table = _table(*header, left=(0, 2))
    for row in rows[:_NUM_SHOWN]:
        table.add_row(*map(_line, row))
    return [table, *_more(rows, "field")]


def _settings(summary: "Summary") -> Lines:
    lines: Lines = []
    for answerer in summary.answerers:
        revision = f" {answerer.revision[:12]}" if answerer.revision else ""
        used = [
            str(answerer.settings[name]) for name in ("device", "dtype", "quantization") if name in answerer.settings
        ]
        facts = ", ".join([*used, plural(answerer.count, "item")])
        lines.append(Text(printable_line(f"{answerer.model}{revision}: {facts}")))
    for use in summary.settings if len(summary.settings) > 1 else ():
        differing = ", ".join(f"{name} {value}" for name, value in use.differing.items())
        lines.append(Text.assemble((f"{use.count:,} × ", "yellow"), printable_line(differing)))
    return lines


def _more(entries: Sequence[object], noun: str) -> list[Text]:
    """The line that says how many are not shown."""
    left = len(entries) - _NUM_SHOWN
    return [Text(f"and {plural(left, noun)} more; --json has all", style="dim")] if left > 0 else []


def _table(*headers: str, left: Sequence[int]) -> Table:
    """A table without lines; the columns that are not `left` hold numbers."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place in left else "right", overflow="fold")
    return table


def _indented(part: RenderableType, by: int) -> Padding:
    return Padding(part, (0, 0, 0, by), expand=False)


def _line(text: str) -> str:
    """One line of it, safe to print, and not without end."""
    spelt = printable_line(text)
    return spelt if len(spelt) <= _LONGEST else f"{spelt[:_LONGEST]}…"
