"""A profile as a page of a terminal, plain text elsewhere: a column a number of frames."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.text import Text

from sfvqa.cli.profile.chart import chart_lines
from sfvqa.cli.profile.figures import noise_text, operations_text, seconds_text, times_text
from sfvqa.cli.profile.frame_table import FrameTable
from sfvqa.cli.text import plural, printable_line, readable_size

if TYPE_CHECKING:
    from sfvqa.profiling.compare import Change, Comparison
    from sfvqa.profiling.profile import Profile, ProfilePoint

_STAGES = {
    "open_seconds": "open",
    "read_seconds": "read",
    "preprocess_seconds": "preprocess",
    "vision_tower_seconds": "vision tower",
    "projector_seconds": "projector, pooling",
    "overlap_seconds": "at the same time",
    "prefill_seconds": "prefill",
    "slow_keys_values_seconds": "  slow keys, values",
    "ttft_seconds": "first token (TTFT)",
    "ttft_after_reading_seconds": "  after reading",
    "decode_seconds_per_token": "each further token",
    "total_seconds": "total",
}
_INDENT = 2
_RESTLESS = 0.1  # noise from which it is said that the machine had other things to do


def print_profile(profile: "Profile", comparison: "Comparison | None" = None) -> None:
    """Print the page on stdout; tables too wide for a terminal go on below, and in a file each stays whole."""
    console = Console(highlight=False, markup=False, emoji=False)
    tables = [_times(profile), _work(profile), *_baselines(profile)[:1], *_floors(profile)[:1]]
    unlimited = console.options.update(max_width=1000)
    widths = [Measurement.get(console, unlimited, table) for table in tables]
    needed = [_INDENT + (width.minimum if console.is_terminal else width.maximum) for width in widths]
    console.width = max(console.width, *needed)
    console.print(profile_page(profile, comparison, console.width - _INDENT))


def profile_page(profile: "Profile", comparison: "Comparison | None" = None, width: int = 100) -> Group:
    """Everything worth a line, section by section; `width` is the chart's."""
    sections: tuple[tuple[str, Sequence[RenderableType]], ...] = (
        ("Time, medians (± half the range of the repeats)", [_times(profile)]),
        ("To the first token", list(chart_lines(profile.points, width))),
        ("Size and work of one question", [_work(profile)]),
        ("Against the same model computing otherwise", _baselines(profile)),
        ("Against the least this device could take", _floors(profile)),
        ("Since the earlier profile", [] if comparison is None else list(_compared(comparison))),
        ("How sure", list(_noise(profile))),
    )
    parts: list[RenderableType] = list(_headline(profile))
    for title, lines in sections:
        if lines:
            parts += [
                Text(f"\n{title}", style="bold"),
                *(Padding(line, (0, 0, 0, _INDENT), expand=False) for line in lines),
            ]
    return Group(*parts)


def _headline(profile: "Profile") -> Iterable[Text]:
    model, settings = profile.model, profile.settings
    kinds = [str(model["dtype"]), str(model["attention"])]
    kinds += [] if model["quantization"] == "none" else [str(model["quantization"])]
    kinds += ["random weights"] if model["random_weights"] else []
    yield Text.assemble((str(model["name"]), "bold"), f" ({', '.join(kinds)}) on {profile.device.title}")
    yield Text(
        f"{printable_line(str(settings['video']))}; {plural(int(str(settings['num_repeats'])), 'run')} of each after "
        f"{settings['num_warmups']} to warm up; {plural(int(str(settings['num_new_tokens'])), 'new token')}; "
        + ("reading ahead of encoding" if settings["overlap"] else "one stage after the other")
        + ("; static decoding" if settings["static_decode"] else ""),
        style="dim",
    )


def _table(profile: "Profile") -> FrameTable:
    return FrameTable([point.num_frames for point in profile.points])


def _times(profile: "Profile") -> FrameTable:
    table = _table(profile)
    for name, words in _STAGES.items():
        spreads = [point.spreads[name] for point in profile.points]
        if any(spread.median for spread in spreads):
            table.add_row(words, *(f"{seconds_text(spread.median)}{noise_text(spread)}" for spread in spreads))
    table.add_row("tokens a second", *(f"{point.median('tokens_per_second'):.1f}" for point in profile.points))
    return table


def _work(profile: "Profile") -> FrameTable:
    table = _table(profile)
    rows: dict[str, Callable[[ProfilePoint], str]] = {
        "prompt tokens": lambda point: f"{point.num_prompt_tokens:,}",
        "  fast tokens": lambda point: f"{point.num_fast_tokens:,}",
        "slow tokens": lambda point: f"{point.num_slow_tokens:,}",
        "vision tower": lambda point: operations_text(point.flops.vision_tower),
        "LLM prefill": lambda point: operations_text(point.flops.prefill),
        "  cross-attention": lambda point: f"{point.flops.cross_attention / point.flops.prefill:.1%}",
        "decode a token": lambda point: operations_text(point.flops.decode_per_token),
        "counted / formula": _counted,
        "peak host memory": lambda point: _size(point.peak_host_bytes),
        "peak device memory": lambda point: _size(point.peak_device_bytes),
    }
    for words, cell in rows.items():
        cells = [cell(point) for point in profile.points]
        if any(cells):
            table.add_row(words, *cells)
    return table


def _counted(point: "ProfilePoint") -> str:
    """Of all operations up to the first token, those that torch counted over those of the formula."""
    counted, formula = point.flops_counted, point.flops
    if counted is None:
        return ""
    parts = [flops.vision_tower + flops.projector + flops.prefill for flops in (counted, formula)]
    return f"{parts[0] / parts[1]:.3f}"


def _size(num_bytes: int | None) -> str:
    return "" if num_bytes is None else readable_size(num_bytes)


def _baselines(profile: "Profile") -> list[RenderableType]:
    """How many times as long the others take, a row a mode and what is timed."""
    from sfvqa.profiling.baselines import Baseline

    if profile.baselines is None:
        return []
    ratios = {(ratio.baseline, ratio.num_frames): ratio for ratio in profile.ratios()}
    table, fewest = _table(profile), profile.model["num_fast_frames"]
    rows = (
        (f"{fewest} frames, self-attention only: prefill", Baseline.SELF_ATTENTION_ONLY, "prefill"),
        (f"{fewest} frames, self-attention only: each token", Baseline.SELF_ATTENTION_ONLY, "decode"),
        ("all tokens in self-attention: prefill", Baseline.ALL_IN_SELF_ATTENTION, "prefill"),
        ("all tokens in self-attention: each token", Baseline.ALL_IN_SELF_ATTENTION, "decode"),
        ("slow keys, values recomputed: each token", Baseline.SLOW_RECOMPUTED, "decode"),
    )
    for words, mode, figure in rows:
        found = [ratios.get((mode, point.num_frames)) for point in profile.points]
        table.add_row(words, *("" if one is None else times_text(getattr(one, figure)) for one in found))
    return [table, Text("The other's time over the slow-fast model's: above 1× the other is slower.", style="dim")]


def _floors(profile: "Profile") -> list[RenderableType]:
    """A row a stage that has a floor: how many times as long it takes, and the floor itself."""
    rates, table = profile.rates, _table(profile)
    if rates is None:
        return []
    for name, words in _STAGES.items():
        floors = [(point.floors or {}).get(name) for point in profile.points]
        if any(floors):
            cells = [
                f"{times_text(point.median(name) / floor)} of {seconds_text(floor)}" if floor else ""
                for point, floor in zip(profile.points, floors, strict=True)
            ]
            table.add_row(words, *cells)
    rate = operations_text(rates.flops_per_second)
    return [
        table,
        Text(f"Measured here: {rate}/s in matrix products, {rates.bytes_per_second / 1e9:,.0f} GB/s copied.", "dim"),
    ]


def _compared(comparison: "Comparison") -> Iterable[Text]:
    for difference in comparison.differences:
        yield Text(f"Not the same: {printable_line(difference)}.", style="yellow")
    changed = comparison.beyond_noise
    for change in changed:
        yield _change(change)
    untold = sum(change.is_beyond_noise is None for change in comparison.changes)
    steady = len(comparison.changes) - len(changed) - untold
    yield Text(
        f"{plural(len(changed), 'figure')} changed beyond noise (ranges of the repeats apart, medians by 5 % or more), "
        f"{steady} did not" + (f", of {untold} it cannot be told: measured once, or nothing." if untold else "."),
        style="dim",
    )


def _change(change: "Change") -> Text:
    is_rate = change.name == "tokens_per_second"
    assert change.ratio is not None
    is_better = (change.ratio > 1) is is_rate
    name = "tokens a second" if is_rate else _STAGES.get(change.name, change.name).strip()
    values = [f"{spread.median:.1f}" if is_rate else seconds_text(spread.median) for spread in (change.old, change.new)]
    return Text(
        f"{plural(change.num_frames, 'frame')}, {name}: {values[0]} before, {values[1]} now ({change.ratio - 1:+.0%})",
        style="green" if is_better else "red",
    )


def _noise(profile: "Profile") -> Iterable[Text]:
    noisiest, load = profile.noisiest(), profile.device.load_average
    if noisiest is None:
        yield Text("Each was measured once: how much the figures vary is unknown.", style="yellow")
    else:
        name, num_frames, noise = noisiest
        words = _STAGES.get(name, "tokens a second").strip()
        yield Text(
            f"The least steady figure is “{words}” with {plural(num_frames, 'frame')}: "
            f"its repeats lie {noise:.0%} apart."
            + (" Something else was running, or there were too few repeats." if noise > _RESTLESS else ""),
            style="yellow" if noise > _RESTLESS else "dim",
        )
    if load is not None:
        yield Text(f"Load of the machine before the first run: {load:.1f} of {profile.device.num_cores} cores.", "dim")
