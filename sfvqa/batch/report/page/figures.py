"""The head of the page: the figures of the run."""

import json
from collections.abc import Sequence

from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.page.markup import Html, join, tag
from sfvqa.batch.report.summary import Summary
from sfvqa.batch.report.wording import (
    RETRY,
    advice_for,
    difference_texts,
    duration,
    percent,
    plural,
    share_text,
    span_text,
    stages_text,
)
from sfvqa.evaluation.scores import Score

_NUM_LISTED = 50


def figures_markup(name: str, summary: Summary, comparison: Comparison | None) -> Html:
    """Everything above the items; what there is nothing of does not appear."""
    when = [tag("p", span_text(summary.span))] if summary.span else []
    notices = [tag("p", notice, class_="warning") for notice in summary.notices]
    sections = [
        _stages(summary),
        _scores(summary),
        _compared(comparison),
        _errors(summary),
        _warnings(summary),
        _settings(summary),
    ]
    grid = tag("div", *sections, class_="sections")
    return tag("header", tag("h1", tag("bdi", name)), *when, *notices, _tiles(summary), grid)


def _tiles(summary: Summary) -> Html:
    tiles = [
        ("items", f"{summary.num_items:,}", plural(summary.num_videos, "video"), ""),
        ("answered", f"{summary.num_ok:,}", "", "good" if summary.num_ok else ""),
        ("failed", f"{summary.num_failed:,}", "", "bad" if summary.num_failed else ""),
    ]
    if summary.score is not None and (accuracy := summary.score.of_all.value) is not None:
        interval = summary.score.of_all.interval
        between = f"{100 * interval.low:.1f}–{100 * interval.high:.1f} (95 %)"
        tiles.append(("right", percent(accuracy), between, ""))
    if summary.span is not None and (rate := summary.span.per_minute(summary.num_items)) is not None:
        tokens = summary.span.per_second(summary.new_tokens) or 0.0
        tiles.append(("items a minute", f"{rate:,.1f}", f"{tokens:,.1f} tokens a second", ""))
    return tag("div", *(_tile(*tile) for tile in tiles), class_="tiles")


def _tile(label: str, value: str, more: str, kind: str) -> Html:
    small = [tag("small", more)] if more else []
    return tag("div", tag("span", label), tag("strong", value), *small, class_=f"tile {kind}".strip())


def _stages(summary: Summary) -> Html:
    whole = sum(stage.sum_seconds for stage in summary.stages)
    if not whole:
        return Html("")
    bars, legend, left = [], [], 0.0
    for stage in summary.stages:
        share = stage.sum_seconds / whole
        bars.append(tag("rect", x=f"{100 * left:.2f}", width=f"{100 * share:.2f}", height="8", class_=stage.stage))
        figures = f"{duration(stage.sum_seconds)} ({share:.0%}), median {duration(stage.median_seconds)}"
        legend.append(tag("li", tag("i", "", class_=stage.stage), tag("b", stage.stage), f" {figures}"))
        left += share
    bar = tag("svg", *bars, viewBox="0 0 100 8", preserveAspectRatio="none", role="img", aria_label="Shares of time")
    slowest = [
        tag("li", duration(item.total_seconds), " ", tag("bdi", item.video), ": ", tag("bdi", item.question))
        for item in summary.slowest
    ]
    more = [tag("details", tag("summary", "Slowest"), tag("ol", *slowest))] if slowest else []
    note = tag("p", stages_text(summary.stages, summary.span), class_="small")
    return _section("Where the time went", bar, tag("ul", *legend, class_="legend"), note, *more)


def _scores(summary: Summary) -> Html:
    if summary.score is None:
        return Html("")
    has_failed = summary.score.failed > 0
    names = ["failed", "errors count as wrong", "errors left out"] if has_failed else ["accuracy"]
    rows = [
        [name, *_score_cells(score, has_failed=has_failed)]
        for name, score in (("all", summary.score), *summary.groups.items())
    ]
    return _section(
        "Right answers",
        _table(["", "right", "wrong", *names], rows),
        tag("p", summary.rule.statement, class_="small"),
        tag("p", "In brackets: 95 % interval, by Wilson.", class_="small"),
        *_wrong(summary),
    )


def _wrong(summary: Summary) -> list[Html]:
    """What was answered for what, to be opened."""
    if not summary.wrong:
        return []
    items = [
        tag(
            "li",
            *(tag("bdi", item.video), ": ", tag("bdi", item.question), tag("br")),
            *("expected “", tag("bdi", item.expected), "”, answered “", tag("bdi", item.answer), "”"),
        )
        for item in summary.wrong[:_NUM_LISTED]
    ]
    first = f", the first {_NUM_LISTED}" if len(summary.wrong) > _NUM_LISTED else ""
    title = f"{plural(len(summary.wrong), 'wrong answer')}{first}"
    return [tag("details", tag("summary", title), tag("ul", *items))]


def _score_cells(score: Score, *, has_failed: bool) -> list[str]:
    counts = [f"{score.right:,}", f"{score.wrong:,}"]
    if has_failed:
        return [*counts, f"{score.failed:,}", share_text(score.of_all), share_text(score.of_answered)]
    return [*counts, share_text(score.of_all)]


def _compared(comparison: Comparison | None) -> Html:
    if comparison is None:
        return Html("")
    counts = comparison.counts
    rows = [
        ["right now", f"{counts.both:,}", f"{counts.only_new:,}"],
        ["not right now", f"{counts.only_old:,}", f"{counts.neither:,}"],
    ]
    parts = [_table(["", "right before", "not right before"], rows)] if counts.total else []
    parts += [tag("p", text) for text in difference_texts(comparison)]
    changes = [
        tag("li", tag("bdi", change.video), ": ", tag("bdi", change.question), f" ({change.old} → {change.new})")
        for change in comparison.changes[:_NUM_LISTED]
    ]
    if changes:
        first = f", the first {_NUM_LISTED}" if len(comparison.changes) > _NUM_LISTED else ""
        title = f"{plural(len(comparison.changes), 'item')} changed{first}"
        parts.append(tag("details", tag("summary", title), tag("ul", *changes)))
    note = "Item by item; an item without an answer is not right. 95 % interval by Newcombe, McNemar's exact test."
    return _section("Against the other run", *parts, tag("p", note, class_="small"))


def _errors(summary: Summary) -> Html:
    if not summary.errors:
        return Html("")
    kinds = []
    for error in summary.errors:
        example = [tag("bdi", error.video), ": ", error.message]
        advice = [tag("br"), advice_for(error.kind)]
        kinds.append(tag("li", tag("b", f"{error.count:,} × {error.kind}"), " ", *example, *advice))
    return _section("Errors", tag("ul", *kinds), tag("p", RETRY, class_="small"))


def _warnings(summary: Summary) -> Html:
    if not summary.warnings:
        return Html("")
    kinds = [tag("li", tag("b", f"{warning.count:,} ×"), " ", warning.example) for warning in summary.warnings]
    return _section("Warnings, one of each kind", tag("ul", *kinds))


def _settings(summary: Summary) -> Html:
    groups = []
    for answerer in summary.answerers:
        title = f"{answerer.model} {(answerer.revision or '')[:12]}: {plural(answerer.count, 'item')}"
        groups.append(_values(title, answerer.settings))
    for number, use in enumerate(summary.settings, start=1):
        which = f" {number}" if len(summary.settings) > 1 else ""
        groups.append(_values(f"Asked for{which}: {plural(use.count, 'item')}", use.requested))
    groups += [_values("Versions", versions) for versions in summary.versions]
    return _section("Answered by", *groups) if groups else Html("")


def _values(title: str, values: dict[str, object]) -> Html:
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in values.items()]
    return tag("details", tag("summary", title), _table([], rows))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """The first cell of each row names it; the others are numbers under a header, values without one."""
    kind = "number" if header else None
    head = [tag("tr", *(tag("th", cell) for cell in header))] if header else []
    body = [
        tag("tr", tag("th", tag("bdi", row[0])), *(tag("td", cell, class_=kind) for cell in row[1:])) for row in rows
    ]
    return tag("div", tag("table", join([*head, *body])), class_="scroll")


def _section(title: str, *parts: Html) -> Html:
    return tag("section", tag("h2", title), *parts)
