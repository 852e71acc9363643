"""Figures of a profile in words: seconds, operations, shares; for people, not for programs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sfvqa.cli.screen import printable_line
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.profiling.compare import Change, Comparison
    from sfvqa.profiling.profile import Profile, ProfilePoint, Spread


_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def seconds_text(seconds: float) -> str:
    """Three digits of it.

    >>> seconds_text(0.0123), seconds_text(4.5), seconds_text(123.4), seconds_text(0)
    ('12.3 ms', '4.50 s', '123 s', '0')
    """
    if seconds == 0:
        return "0"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)} ms"
    return f"{_three_digits(seconds)} s"


def noise_text(spread: "Spread") -> str:
    """` ±4%`: how far the outermost repeat lies from the middle of all; nothing below a half percent."""
    half = (spread.noise or 0) / 2
    return f" ±{half:.0%}" if half >= 0.005 else ""


def operations_text(operations: float) -> str:
    """`18.6 TFLOP`."""
    for size, prefix in _PREFIXES:
        if operations >= size:
            return f"{_three_digits(operations / size)} {prefix}FLOP"
    return f"{operations:.0f} FLOP"


def times_text(ratio: float) -> str:
    """`8.7×`, with two digits behind the point near 1."""
    return f"{ratio:.2f}×" if ratio < 2 else f"{ratio:.1f}×"


def _three_digits(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:,.0f}"


_SIGNS = "░▒█▓#+"
_STYLES = ("bright_black", "yellow", "blue", "cyan", "red", "magenta")
_WIDTH, _NARROWEST = 56, 12
_BESIDE = len("   128 frames ") + len(" 12.3 ms ")  # before and behind a bar
_ENTRY = 24  # of the legend


def chart_lines(points: "Sequence[ProfilePoint]", width: int) -> "Iterator[Text]":
    """A bar a number of frames, the longest `_WIDTH` characters or what `width` leaves for it, and below them what the
    signs mean.
    """
    from sfvqa.profiling.profile import layers_of

    stacks = [layers_of(point) for point in points]
    longest = max(sum(layer.seconds for layer in stack) for stack in stacks)
    room = max(_NARROWEST, min(_WIDTH, width - _BESIDE))
    for point, stack in zip(points, stacks, strict=True):
        line = Text(f"{point.num_frames:>6} frames ")
        edges = [0.0]
        for layer in stack:
            edges.append(edges[-1] + layer.seconds)
        cells = [round(edge / longest * room) for edge in edges]  # of the edges, so that lengths do not drift
        for number, (start, stop) in enumerate(pairwise(cells)):
            line.append(_SIGNS[number] * (stop - start), style=_STYLES[number])
        line.append(f" {seconds_text(point.median('ttft_seconds'))}")
        yield line
    num_beside = max(1, min(3, (width - 1) // _ENTRY))
    names = [layer.name for layer in stacks[0]]
    for first in range(0, len(names), num_beside):
        row = range(len(names))[first : first + num_beside]
        legend = Text(" ")
        for number in row:
            legend.append(f"{_SIGNS[number]} ", style=_STYLES[number])
            legend.append(names[number].ljust(_ENTRY - 2 if number != row[-1] else 0), style="dim")
        yield legend


class FrameTable:
    """Rows under numbers of frames. As many columns stand side by side as fit, at least one; none is cut off."""

    def __init__(self, frame_counts: Sequence[int]) -> None:
        self._frame_counts = frame_counts
        self._rows: list[tuple[str, tuple[str, ...]]] = []

    def add_row(self, words: str, *cells: str) -> None:
        """What the row is about, and what is said of it for each number of frames."""
        self._rows.append((words, cells))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        alone = [self._width(console, options, slice(place, place + 1)) for place in range(len(self._frame_counts))]
        return Measurement(max(alone), self._width(console, options, slice(None)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        start, end = 0, len(self._frame_counts)
        while start < end:
            stop = start + 1
            while stop < end and self._width(console, options, slice(start, stop + 1)) <= options.max_width:
                stop += 1
            if start:
                yield ""
            yield self._table(slice(start, stop))
            start = stop

    def _width(self, console: Console, options: ConsoleOptions, columns: slice) -> int:
        unlimited = options.update(max_width=1000)
        return console.measure(self._table(columns), options=unlimited).maximum

    def _table(self, columns: slice) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("frames", no_wrap=True)
        for count in self._frame_counts[columns]:
            table.add_column(f"{count}", justify="right", no_wrap=True)
        for words, cells in self._rows:
            if any(cells[columns]):
                table.add_row(words, *cells[columns])
        return table


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
