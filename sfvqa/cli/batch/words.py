"""How far a batch is, in words: pure text from a Tally."""

from typing import TYPE_CHECKING

from sfvqa.cli.text import plural

if TYPE_CHECKING:
    from sfvqa.batch.tally import Tally


def describe_tally(tally: "Tally") -> str:
    """`110 of 300 items answered, 4 failed, 5 answered before, 1 failed before, 180 left`."""
    parts = [f"{tally.num_answered:,} of {plural(tally.num_items, 'item')} answered"]
    others = {
        "failed": tally.num_failed,
        "answered before": tally.num_answered_before,
        "failed before": tally.num_failed_before,
        "left": tally.num_left,
    }
    return ", ".join(parts + [f"{count:,} {what}" for what, count in others.items() if count])


def describe_rate(tally: "Tally") -> str:
    """`12.3 items a minute, 14:36 to go, 3 of 4 workers`; what there is of it, or for how long nothing finished."""
    from sfvqa.video.sampling import format_time

    rate, left = tally.items_a_minute, tally.seconds_to_go
    parts = ["nothing finished yet" if rate is None else f"{rate:.1f} items a minute"]
    if left:
        parts.append(f"{format_time(round(left))} to go")
    elif rate is not None and tally.num_left:
        parts.append(f"nothing finished for {format_time(round(tally.still_seconds))}")
    if wanted := tally.num_workers_wanted:
        missing = f"{tally.num_workers:,} of " if tally.num_workers < wanted else ""
        parts.append(f"{missing}{plural(wanted, 'worker')}")
    return ", ".join(parts)


def describe_stages(tally: "Tally") -> str:
    """`bottleneck: encoding, the model waits for frames 3 % of the time`."""
    if tally.bottleneck is None or tally.waiting_share is None:
        return "starting"
    return f"bottleneck: {tally.bottleneck}, the model waits for frames {tally.waiting_share:.0%} of the time".replace(
        "%", " %"
    )


def describe_errors(tally: "Tally") -> list[str]:
    """`Failed: 10 × UnreadableVideoError`, a line a kind, the most frequent first."""
    kinds = sorted(tally.errors.items(), key=lambda kind: (-kind[1], kind[0]))
    return [f"Failed: {count:,} × {kind}" for kind, count in kinds]
