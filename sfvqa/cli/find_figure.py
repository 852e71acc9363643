"""What `find` found, drawn with matplotlib: how likely each window is, over time, and the frame of each moment."""

from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfvqa.inference.find import Found
    from sfvqa.video.clip import Pixels

_COLUMNS = 5
_LINE, _MOMENT = "#3f6fb5", "#c8553d"


def draw(found: "Found", pictures: "Mapping[int, Pixels]", file: BinaryIO, file_format: str) -> None:
    """Draw it into `file`, .png or .svg; `pictures` are frames [H, W, 3] by index, those of moments."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state beside the figure

    num_rows = -(-len(found.moments) // _COLUMNS)
    figure = Figure(figsize=(13, 3.2 + 2.1 * num_rows), layout="constrained")
    figure.suptitle(f"“{found.text}” in {found.video.path.name}: {len(found.moments)} found by {found.model}")
    grid = figure.add_gridspec(1 + num_rows, _COLUMNS, height_ratios=[1.4] + [1.0] * num_rows)
    _draw_timeline(figure.add_subplot(grid[0, :]), found)
    for place, moment in enumerate(found.moments):
        axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        axes.set_axis_off()
        axes.set_title(f"{clock(moment.best_seconds)} · {percent(moment.probability)}", fontsize=9)
        if moment.best_index in pictures:
            axes.imshow(pictures[moment.best_index])
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(file, format=file_format, dpi=110)


def _draw_timeline(axes: Any, found: "Found") -> None:
    """The log-odds of the first look's windows, and where the moments are."""
    times = [(look.start_seconds + look.end_seconds) / 2 for look in found.looks]
    axes.plot(times, [look.log_odds for look in found.looks], color=_LINE, linewidth=0.8, label="first look")
    axes.axhline(found.calibration.median, color="#999999", linestyle="--", linewidth=0.8, label="median")
    for number, moment in enumerate(found.moments):
        axes.axvline(moment.best_seconds, color=_MOMENT, alpha=0.5, zorder=0, label=None if number else "moment")
    axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds))
    axes.set_ylabel("yes against all else (log-odds)")
    axes.set_xlabel("time")
    axes.margins(x=0.01)
    axes.legend(loc="lower right", ncols=3, frameon=False, fontsize=8)


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
