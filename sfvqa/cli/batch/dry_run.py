"""`sfvqa batch --dry-run`: how many items there are, are done and are left, and what would run. Writes nothing."""

import json as jsonlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.cli.text import plural, readable_size
from sfvqa.errors import ExitCode

if TYPE_CHECKING:
    from sfvqa.batch.item import Item
    from sfvqa.batch.options import BatchOptions
    from sfvqa.cli.batch.request import BatchRequest
    from sfvqa.cli.render import Notices


def show_what_is_left(
    request: "BatchRequest", out: Path, notices: "Notices", *, overwrite: bool, json: bool
) -> ExitCode:
    """Print it on stdout; the exit code says whether the model fits."""
    planned, items, options = request.planned, request.items, request.options
    with notices.waiting("Looking for what is done"):
        counts = _count(items, {} if overwrite else _statuses(out, notices), options)
    run, fit = planned.plan.run, planned.plan.fit
    document = {
        "schema_version": 1,
        "dry_run": True,
        "items": len(items),
        "videos": len({item.video for item in items}),
        **counts,
        "model": planned.plan.model,
        "device": str(planned.plan.device),
        "dtype": run.dtype,
        "quantization": run.quantization.value,
        "frames": run.num_frames,
        "batch_size": options.batch_size,
        "readers": options.num_readers,
        "memory": {
            "fits": fit.fits,
            "needed_bytes": fit.estimate.needed_bytes,
            "free_bytes": planned.plan.free_bytes,
        },
    }
    sys.stdout.write((jsonlib.dumps(document) if json else "\n".join(_lines(document))) + "\n")
    sys.stdout.flush()
    return ExitCode.OK if fit.fits else ExitCode.OUT_OF_MEMORY


def _statuses(out: Path, notices: "Notices") -> dict[str, str]:
    """Of the items that have a record, the last one's; an answer stays one."""
    from sfvqa.batch.record import read_records

    said: list[str] = []
    found: dict[str, str] = {}
    if str(out) != "-" and out.exists():
        for record in read_records(out, said):
            if found.get(record["item_id"]) != "ok":
                found[record["item_id"]] = record["status"]
    for notice in said:
        notices.warn(notice)
    return found


def _count(items: "Sequence[Item]", statuses: Mapping[str, str], options: "BatchOptions") -> dict[str, int]:
    from sfvqa.batch.group import group_items
    from sfvqa.batch.preparing import identify

    found = Counter(
        statuses.get(question.item_id, "new")
        for group in group_items(items)
        for question in identify(group, options)[0]
    )
    num_left = found["new"] + (found["error"] if options.retry_errors else 0)
    return {"answered": found["ok"], "failed": found["error"], "left": num_left}


def _lines(document: Mapping[str, Any]) -> list[str]:
    memory = document["memory"]
    free = "unknown" if memory["free_bytes"] is None else readable_size(memory["free_bytes"])
    return [
        f"items   {plural(document['items'], 'item')} about {plural(document['videos'], 'video')}",
        f"done    {document['answered']:,} answered, {document['failed']:,} failed",
        f"left    {document['left']:,}",
        f"model   {document['model']} on {document['device']} in {document['dtype']}, "
        f"quantization {document['quantization']}",
        f"frames  up to {document['frames']}; questions at a time: {document['batch_size']}",
        f"needed  {readable_size(memory['needed_bytes'])}; free: {free}",
        f"fits    {'yes' if memory['fits'] else 'no'}",
    ]
