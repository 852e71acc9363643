"""The figures of a profile, as tables, a chart and sentences for people."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
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


_SIGNS = (("░", "bright_black"), ("▒", "yellow"), ("█", "blue"), ("▓", "cyan"), ("#", "red"), ("+", "magenta"))
_WIDTH, _NARROWEST = 56, 12
_BESIDE = len("   128 frames ") + len(" 12.3 ms ")  # before and behind a bar
_ENTRY = 22  # of the legend


def chart_lines(points: "Sequence[ProfilePoint]", width: int) -> "Iterator[Text]":
    """A bar a number of frames, the longest `_WIDTH` characters or what `width` leaves for it, and then a legend."""
    from sfvqa.profiling.profile import layers_of

    stacks = [layers_of(point) for point in points]
    longest = max(sum(layer.seconds for layer in stack) for stack in stacks)
    room = max(_NARROWEST, min(_WIDTH, width - _BESIDE))
    for point, stack in zip(points, stacks, strict=True):
        edges = [0.0, *accumulate(layer.seconds for layer in stack)]
        cells = [round(edge / longest * room) for edge in edges]  # of the edges, so that lengths do not drift
        bars = [
            (sign * (stop - start), style)
            for (sign, style), (start, stop) in zip(_SIGNS, pairwise(cells), strict=False)
        ]
        time = seconds_text(point.median("ttft_seconds"))
        yield Text.assemble(f"{point.num_frames:>6} frames ", *bars, f" {time}")
    signs = zip(_SIGNS, stacks[0], strict=False)
    legend = [Text.assemble((f" {sign} ", style), (f"{layer.name:<{_ENTRY}}", "dim")) for (sign, style), layer in signs]
    num_beside = max(1, min(3, width // (_ENTRY + 3)))
    for first in range(0, len(legend), num_beside):
        line = Text.assemble(*legend[first : first + num_beside])
        line.rstrip()
        yield line


def _tables(profile: "Profile", rows: Mapping[str, Sequence[str]], width: int) -> Iterator[RenderableType]:
    """Rows under numbers of frames: as many columns side by side as fit, at least one; rows without cells are left out.

    Rich would make columns narrower instead, and cut numbers.
    """
    counts = [f"{point.num_frames}" for point in profile.points]
    widths = [max(map(len, column)) for column in zip(counts, *rows.values(), strict=True)]
    stop = 0
    while rows and stop < len(counts):
        start, taken = stop, max(map(len, rows))
        while stop < len(counts) and (stop == start or taken + _GAP + widths[stop] <= width):
            taken, stop = taken + _GAP + widths[stop], stop + 1
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, _GAP, 0, 0))
        table.add_column("frames", no_wrap=True)
        for count in counts[start:stop]:
            table.add_column(count, justify="right", no_wrap=True)
        for words, cells in rows.items():
            if any(cells[start:stop]):
                table.add_row(words, *cells[start:stop])
        yield Padding(table, (1 if start else 0, 0, 0, 0), expand=False)


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
_INDENT, _GAP = 2, 2
_NARROWEST_PAGE, _FILE_WIDTH = 60, 1000
_RESTLESS = 0.1  # noise from which it is said that the machine had other things to do


def print_profile(profile: "Profile", comparison: "Comparison | None" = None) -> None:
    """Print the page on stdout; tables too wide for a terminal go on below, and in a file each stays whole."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, _NARROWEST_PAGE) if console.is_terminal else _FILE_WIDTH
    console.print(profile_page(profile, comparison, console.width - _INDENT))


def profile_page(profile: "Profile", comparison: "Comparison | None" = None, width: int = 100) -> Group:
    """Everything worth a line, section by section; `width` is that of charts and tables."""
    sections: dict[str, Iterable[RenderableType]] = {
        "Time, medians (± half the range of the repeats)": _tables(profile, _times(profile), width),
        "To the first token": chart_lines(profile.points, width),
        "Size and work of one question": _tables(profile, _work(profile), width),
        "Against other modes of the same model": _baselines(profile, width),
        "Against the least time this device could take": _floors(profile, width),
        "Changes since the earlier profile": [] if comparison is None else _compared(comparison),
        "How reliable": _noise(profile),
    }
    parts: list[RenderableType] = list(_headline(profile))
    for title, lines in sections.items():
        padded = [Padding(line, (0, 0, 0, _INDENT), expand=False) for line in lines]
        parts += [Text(f"\n{title}", style="bold"), *padded] if padded else []
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


def _times(profile: "Profile") -> dict[str, list[str]]:
    spreads = {words: [point.spreads[name] for point in profile.points] for name, words in _STAGES.items()}
    rows = {
        words: [f"{seconds_text(spread.median)}{noise_text(spread)}" for spread in of_stage]
        for words, of_stage in spreads.items()
        if any(spread.median for spread in of_stage)
    }
    return rows | {"tokens a second": [f"{point.median('tokens_per_second'):.1f}" for point in profile.points]}


def _work(profile: "Profile") -> dict[str, list[str]]:
    cells: dict[str, Callable[[ProfilePoint], str]] = {
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
    return {words: [cell(point) for point in profile.points] for words, cell in cells.items()}


def _counted(point: "ProfilePoint") -> str:
    """Of all operations up to the first token, those that torch counted over those of the formula."""
    if point.flops_counted is None:
        return ""
    counted, formula = (
        flops.vision_tower + flops.projector + flops.prefill for flops in (point.flops_counted, point.flops)
    )
    return f"{counted / formula:.3f}"


def _size(num_bytes: int | None) -> str:
    return "" if num_bytes is None else readable_size(num_bytes)


def _baselines(profile: "Profile", width: int) -> Iterator[RenderableType]:
    """How many times as long the others take, a row a mode and what is timed."""
    from sfvqa.profiling.baselines import Baseline

    if profile.baselines is None:
        return
    ratios, fewest = profile.ratios(), profile.model["num_fast_frames"]
    found = {
        (ratio.baseline, figure, ratio.num_frames): times_text(getattr(ratio, figure))
        for ratio in ratios
        for figure in ("prefill", "decode")
    }
    modes = {
        f"{fewest} frames, self-attention only: prefill": (Baseline.SELF_ATTENTION_ONLY, "prefill"),
        f"{fewest} frames, self-attention only: each token": (Baseline.SELF_ATTENTION_ONLY, "decode"),
        "all tokens in self-attention: prefill": (Baseline.ALL_IN_SELF_ATTENTION, "prefill"),
        "all tokens in self-attention: each token": (Baseline.ALL_IN_SELF_ATTENTION, "decode"),
        "slow keys, values recomputed: each token": (Baseline.SLOW_RECOMPUTED, "decode"),
    }
    rows = {
        words: [found.get((*mode, point.num_frames), "") for point in profile.points] for words, mode in modes.items()
    }
    yield from _tables(profile, rows, width)
    yield Text("The other mode's time over the slow-fast model's: above 1×, the other is slower.", style="dim")


def _floors(profile: "Profile", width: int) -> Iterator[RenderableType]:
    """A row a stage that has a floor: how many times as long it takes, and the floor itself."""
    if (rates := profile.rates) is None:
        return
    floors = {name: [(point.floors or {}).get(name) for point in profile.points] for name in _STAGES}
    rows = {
        _STAGES[name]: [
            f"{times_text(point.median(name) / floor)} of {seconds_text(floor)}" if floor else ""
            for point, floor in zip(profile.points, of_stage, strict=True)
        ]
        for name, of_stage in floors.items()
        if any(of_stage)
    }
    yield from _tables(profile, rows, width)
    rate = operations_text(rates.flops_per_second)
    yield Text(f"Measured here: {rate}/s in matrix products, {rates.bytes_per_second / 1e9:,.0f} GB/s copied.", "dim")


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
        f"{steady} did not" + (f"; {untold} cannot be judged: measured once, or zero." if untold else "."),
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
        yield Text("Each was measured once, so the spread of the figures is unknown.", style="yellow")
    else:
        name, num_frames, noise = noisiest
        words = _STAGES.get(name, "tokens a second").strip()
        yield Text(
            f"The least stable figure is “{words}” with {plural(num_frames, 'frame')}: "
            f"its repeats lie {noise:.0%} apart."
            + (" Something else may have been running, or there were too few repeats." if noise > _RESTLESS else ""),
            style="yellow" if noise > _RESTLESS else "dim",
        )
    if load is not None:
        yield Text(f"Load of the machine before the first run: {load:.1f} of {profile.device.num_cores} cores.", "dim")
