"""What `find` found, drawn with matplotlib: how likely each window is, over time, and the frame of each moment."""

from typing import TYPE_CHECKING, Any, BinaryIO

from sfvqa.cli.screen import printable_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sfvqa.inference.find import Found
    from sfvqa.inference.moments import Moment
    from sfvqa.video.clip import Pixels

_COLUMNS, _MOST_PICTURES = 5, 40
_LINE, _MOMENT, _LEVELS = "#3f6fb5", "#c8553d", "#999999"
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
_MOST_TICKS = 15
_LONGEST_TEXT, _LONGEST_NAME = 70, 40  # letters of the title


def draw(found: "Found", pictures: "Mapping[int, Pixels]", file: BinaryIO, file_format: str) -> None:
    """Draw it into `file`, .png or .svg; `pictures` are frames [H, W, 3] by index, those of moments.

    Of more moments than there is room for, the likeliest have a picture.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state beside the figure

    shown = pictured(found)
    num_rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(13, 3.2 + 2.1 * num_rows), layout="constrained")
    figure.suptitle(_title(found), parse_math=False)
    grid = figure.add_gridspec(1 + num_rows, _COLUMNS, height_ratios=[1.4] + [1.0] * num_rows)
    _draw_timeline(figure.add_subplot(grid[0, :]), found)
    for place, moment in enumerate(shown):
        axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        axes.set_axis_off()
        axes.set_title(f"{clock(moment.best_seconds)} · {percent(moment.probability)}", fontsize=9)
        if moment.best_index in pictures:
            axes.imshow(pictures[moment.best_index])
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(file, format=file_format, dpi=110)


def pictured(found: "Found") -> "Sequence[Moment]":
    """The moments of which the frame is drawn."""
    return found.moments[:_MOST_PICTURES]


def _title(found: "Found") -> str:
    def short(text: str, most: int) -> str:
        words = printable_line(" ".join(text.split()))
        return words if len(words) <= most else f"{words[: most - 1]}…"

    name = short(found.video.path.name, _LONGEST_NAME)
    more = f", the {_MOST_PICTURES} likeliest below" if len(found.moments) > _MOST_PICTURES else ""
    return f"“{short(found.text, _LONGEST_TEXT)}” in {name}: {len(found.moments)} found by {found.model}{more}"


def _draw_timeline(axes: Any, found: "Found") -> None:
    """The log-odds of each window of the first look, how high counts as a moment, and where the moments are."""
    from matplotlib.ticker import MultipleLocator

    times = [time for look in found.looks for time in (look.start_seconds, look.end_seconds)]
    odds = [look.log_odds for look in found.looks for _ in range(2)]
    axes.plot(times, odds, color=_LINE, linewidth=0.8, label="first look")
    axes.axhline(found.calibration.median, color=_LEVELS, linestyle="--", linewidth=0.8, label="median")
    level = found.calibration.log_odds_at(found.options.threshold)
    axes.axhline(level, color=_LEVELS, linestyle=":", linewidth=0.8, label="threshold")
    for number, moment in enumerate(found.moments):
        axes.axvline(moment.best_seconds, color=_MOMENT, alpha=0.5, zorder=0, label=None if number else "moment")
    steps = (seconds for seconds in _TICK_SECONDS if times[-1] - times[0] <= seconds * _MOST_TICKS)
    if step := next(steps, None):
        axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds))
    axes.set_ylabel("yes against all else (log-odds)")
    axes.set_xlabel("time")
    axes.margins(x=0.01)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, frameon=False, fontsize=8, borderaxespad=0.2)


def clock(seconds: float) -> str:
    """`1:02:05`: the second in which something is.

    >>> clock(3725.9), clock(-0.5)
    ('1:02:05', '0:00')
    """
    from sfvqa.video.sampling import format_time

    return format_time(float(max(int(seconds), 0)))


def percent(probability: float) -> str:
    """In whole percent, where neither none nor all is said of what is only nearly so.

    >>> percent(0.9999), percent(0.42), percent(0.0001)
    ('> 99 %', '42 %', '< 1 %')
    """
    if probability < 0.01:
        return "< 1 %"
    return "> 99 %" if probability > 0.99 else f"{probability:.0%}".replace("%", " %")
