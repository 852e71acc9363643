"""Draw a profile with matplotlib: where the time to the first token goes, and what more frames cost the LLM."""

from importlib.util import find_spec
from typing import Any, BinaryIO

from sfvqa.errors import SfvqaError
from sfvqa.profiling.baselines import Baseline
from sfvqa.profiling.profile import Profile, layers_of
from sfvqa.wording import plural

FORMATS = {".png": "png", ".svg": "svg"}

_COLOURS = ("#9aa5b1", "#d9b44a", "#3f6fb5", "#86b6e3", "#c8553d", "#e8a598")
_SLOW_FAST, _EVERYTHING = "#c8553d", "#4a4a4a"
_INCHES = (13, 6.2)
_LEAST_BARS = 3  # fewer would fill the panel


def check_matplotlib() -> None:
    """Raise SfvqaError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise SfvqaError("Drawing needs matplotlib, which is not installed.", 'Install it: pip install "sfvqa[plot]".')


def draw(profile: Profile, file: BinaryIO, file_format: str) -> None:
    """Draw a profile into `file` in one of FORMATS."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state beside the figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    stages, costs = figure.subplots(1, 2)
    figure.suptitle(_title(profile), fontsize=11)
    _draw_stages(stages, profile)
    _draw_costs(costs, profile)
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(file, format=file_format, dpi=150)


def _title(profile: Profile) -> str:
    model, settings = profile.model, profile.settings
    weights = ", random weights" if model["random_weights"] else ""
    bits = "" if model["quantization"] == "none" else f", {model['quantization']}"
    repeats, num_text = plural(settings["num_repeats"], "run"), profile.points[0].num_text_tokens
    return (
        f"sfvqa profile: {model['name']} ({model['dtype']}{bits}, {model['attention']}{weights}) "
        f"on {profile.device.title}\n"
        f"each stage the median of {repeats}; "
        f"{num_text} text tokens in the prompt, {settings['num_new_tokens']} new ones"
    )


def _draw_stages(axes: Any, profile: Profile) -> None:
    """Stacked bars, one a number of frames, with a whisker for how far the repeats lay apart."""
    points = profile.points
    places = range(len(points))
    bottoms = [0.0] * len(points)
    stacks = [layers_of(point) for point in points]
    for number, colour in enumerate(_COLOURS):
        heights = [stack[number].seconds for stack in stacks]
        axes.bar(places, heights, bottom=bottoms, color=colour, width=0.65, label=stacks[0][number].name)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    ttft = [point.spreads["ttft_seconds"] for point in points]
    below = [spread.median - spread.least for spread in ttft]
    above = [spread.most - spread.median for spread in ttft]
    medians = [spread.median for spread in ttft]
    if any(spread.num_repeats > 1 for spread in ttft):  # of a single run nothing is known of how far runs lie apart
        axes.errorbar(places, medians, [below, above], fmt="none", ecolor="black", capsize=4, label="least and most")
    for place, spread in zip(places, ttft, strict=True):
        axes.annotate(
            f"{spread.median:.3g} s", (place, spread.most), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    axes.set_xticks(places, [str(point.num_frames) for point in points])
    if len(points) < _LEAST_BARS:
        axes.set_xlim(-_LEAST_BARS / 2, len(points) - 1 + _LEAST_BARS / 2)
    axes.set_ylim(0, max(spread.most for spread in ttft) * 1.12)
    axes.set_xlabel("frames")
    axes.set_ylabel("seconds to the first token")
    overlapped = ", reading ahead of encoding" if profile.settings["overlap"] else ", one stage after the other"
    axes.set_title(f"Where the time goes{overlapped}")
    # Below: wherever it stood within, a bar may reach it.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)


def _draw_costs(axes: Any, profile: Profile) -> None:
    """The LLM's prefill over that of self-attention only: by operations, and by time where baselines were measured."""
    frames = [point.num_frames for point in profile.points]
    base_frames, base_flops = profile.model["num_fast_frames"], profile.prefill_flops_self_attention_only
    slow_fast = [point.flops.prefill / base_flops for point in profile.points]
    everything = [point.prefill_flops_all_in_self_attention / base_flops for point in profile.points]
    axes.plot(
        frames, everything, color=_EVERYTHING, marker="s", label="all visual tokens in self-attention, operations"
    )
    axes.plot(frames, slow_fast, color=_SLOW_FAST, marker="o", label="slow-fast, operations")
    axes.axhline(1, color="#999999", linestyle="--", zorder=0, label=f"{base_frames} frames in self-attention only")
    _draw_measured(axes, profile)
    for values, colour in ((everything, _EVERYTHING), (slow_fast, _SLOW_FAST)):
        axes.annotate(
            f"{values[-1]:.2f}×" if values[-1] < 2 else f"{values[-1]:.1f}×",
            (frames[-1], values[-1]),
            xytext=(9, 4),
            textcoords="offset points",
            color=colour,
        )
    axes.set_xscale("log", base=2)
    axes.set_xlim(frames[0] / 1.15, frames[-1] * 1.4)  # room for what stands beside the last points
    axes.set_yscale("log")
    axes.set_xticks(frames, [str(count) for count in frames], minor=False)
    lowest, highest = min(1.0, *slow_fast, *everything), max(*slow_fast, *everything)
    axes.set_ylim(lowest / 1.6, highest * 4)  # the legend stands above the lines
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if lowest / 1.6 <= tick <= 2 * highest]
    axes.set_yticks(ticks, [f"{tick:g}×" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(visible=True, axis="y", color="#dddddd")
    axes.set_xlabel("frames (log scale)")
    axes.set_ylabel(f"LLM prefill, {base_frames} frames in self-attention only = 1× (log scale)")
    axes.set_title("What more frames cost the LLM")
    handles = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1])
    axes.legend([handle for handle, _ in handles], [label for _, label in handles], loc="upper left", frameon=False)


def _draw_measured(axes: Any, profile: Profile) -> None:
    """Time over time, of medians; nothing where no baselines were measured."""
    modes = {mode: [of for of in profile.baselines or () if of.baseline is mode] for mode in Baseline}
    if not modes[Baseline.SELF_ATTENTION_ONLY]:
        return
    base = modes[Baseline.SELF_ATTENTION_ONLY][0].spreads["prefill_seconds"].median
    axes.plot(
        [point.num_frames for point in profile.points],
        [point.median("prefill_seconds") / base for point in profile.points],
        color=_SLOW_FAST, linestyle=":", marker="o", fillstyle="none", label="slow-fast, measured time",
    )  # fmt: skip
    everything = modes[Baseline.ALL_IN_SELF_ATTENTION]
    axes.plot(
        [of.num_frames for of in everything],
        [of.spreads["prefill_seconds"].median / base for of in everything],
        color=_EVERYTHING, linestyle=":", marker="s", fillstyle="none",
        label="all visual tokens in self-attention, measured time",
    )  # fmt: skip
