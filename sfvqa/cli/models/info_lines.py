"""What is known of a model, in lines."""

from collections.abc import Mapping
from typing import Any

from sfvqa.cli.models.copies import copy_line
from sfvqa.cli.text import plural, readable_size


def fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """A line a fact, from the object that `models info --json` prints."""
    lines = []
    if "license" in facts:
        lines += [
            facts["description"],
            f"Licence of the weights: {facts['license']}; {readable_size(facts['size_bytes'])}.",
            _where(facts),
            *(f"{copy_line(copy)}." for copy in facts["copies"]),
        ]
        if facts["aliases"]:
            lines.append(f"Also called {', '.join(facts['aliases'])}.")
    trained, fast = facts["trained_with"], facts["fast_tokens"]
    frames = "an unknown number of frames" if trained["num_frames"] is None else plural(trained["num_frames"], "frame")
    lines += [
        f"{facts['described_as']}.",
        f"Trained with {frames}, {trained['sampling']} sampling, {trained['crop']} crop; fast tokens are averages of "
        f"{plural(fast['temporal_stride'], 'frame')}, at least {fast['min_fast_frames']}.",
        f"Quantization unless told otherwise: {facts['quantization']}.",
    ]
    if "memory_hint" in facts:
        lines.append(facts["memory_hint"])
    return lines


def _where(facts: Mapping[str, Any]) -> str:
    at = f" at commit {facts['revision']}" if facts["revision"] else ""
    here = "not on this machine" if facts["folder"] is None else f"in {facts['folder']}{at}"
    if facts["repo_id"]:
        return f"Repository: {facts['repo_id']}; {here}."
    return f"Bundled, {here}." if facts["folder"] else "There are no weights of it: it runs with --random-weights only."
