"""`sfvqa batch --dry-run`: how many items there are, are done and are left, and what would run. Writes nothing."""

import json as jsonlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.errors import ExitCode
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.batch.plan import BatchOptions
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.batch.command import PlannedBatch
    from sfvqa.cli.screen import Notices


def show_what_is_left(
    request: "PlannedBatch", out: Path, notices: "Notices", *, overwrite: bool, json: bool
) -> ExitCode:
    """Print it on stdout; the exit code says whether the model fits."""
    items, options = request.items, request.options
    with notices.waiting("Looking for what is done"):
        counts = _look_up(request, None if overwrite else out, notices)
    document = {
        "schema_version": 1,
        "dry_run": True,
        "items": len(items),
        "videos": len({item.video for item in items}),
        **counts,
        "model": request.asked.settings.title,
        **(_on_cluster(request) if request.plan is None else _on_this_machine(request.plan, options)),
    }
    sys.stdout.write((jsonlib.dumps(document) if json else "\n".join(_lines(document))) + "\n")
    sys.stdout.flush()
    for notice in request.plan.notices if request.plan else ():
        notices.note(notice)
    for warning in request.plan.warnings if request.plan else ():
        notices.warn(warning)
    return ExitCode.OK if request.plan is None or request.plan.fit.fits else ExitCode.OUT_OF_MEMORY


def _on_this_machine(plan: "Plan", options: "BatchOptions") -> dict[str, object]:
    return {
        "device": str(plan.device),
        "dtype": plan.run.dtype,
        "quantization": plan.run.quantization.value,
        "frames": plan.run.num_frames,
        "batch_size": options.batch_size,
        "readers": options.num_readers,
        "memory": {
            "fits": plan.fit.fits,
            "needed_bytes": plan.fit.estimate.needed_bytes,
            "free_bytes": plan.free_bytes,
        },
    }


def _on_cluster(request: "PlannedBatch") -> dict[str, object]:
    """What was asked for: each worker decides the rest, and none is looked for."""
    asked, cluster = request.asked.settings, request.cluster
    assert cluster is not None
    return {
        "device": asked.device,
        "dtype": asked.dtype,
        "quantization": asked.quantization,
        "frames": request.options.sampling.num_frames,
        "batch_size": request.asked.batch_size,
        "cluster": {
            "address": cluster.address,
            "workers": cluster.num_workers,
            "gpus_per_worker": cluster.gpus_per_worker,
        },
    }


def _look_up(request: "PlannedBatch", out: Path | None, notices: "Notices") -> dict[str, int]:
    """How many items were answered or failed, by the records in `out`, and how many are left."""
    from sfvqa.batch.identify import identify
    from sfvqa.batch.item import group_items
    from sfvqa.batch.journal import RecordKeeper
    from sfvqa.batch.record import read_records

    keeper = RecordKeeper()
    said: list[str] = []
    if out is not None and str(out) != "-" and out.exists():
        for record in read_records(out, said):
            keeper.learn(record)
    for notice in said:
        notices.warn(notice)
    before, num_left = Counter[str](), 0
    for items in group_items(request.items):
        found = identify(items, replace(request.options, retry_errors=False), keeper)
        before += found.before
        num_left += len(found.questions)
    if request.options.retry_errors:
        num_left += before["error"]
    return {"answered": before["ok"], "failed": before["error"], "left": num_left}


def _lines(document: Mapping[str, Any]) -> list[str]:
    lines = [
        f"items   {plural(document['items'], 'item')} about {plural(document['videos'], 'video')}",
        f"done    {document['answered']:,} answered, {document['failed']:,} failed",
        f"left    {document['left']:,}",
        f"model   {document['model']} on {document['device']} in {document['dtype']}, "
        f"quantization {document['quantization']}",
        f"frames  up to {document['frames']}; questions at a time: {document['batch_size'] or 'auto'}",
    ]
    return lines + (_cluster_lines(document["cluster"]) if "cluster" in document else _memory_lines(document["memory"]))


def _memory_lines(memory: Mapping[str, Any]) -> list[str]:
    free = "unknown" if memory["free_bytes"] is None else readable_size(memory["free_bytes"])
    return [
        f"needed  {readable_size(memory['needed_bytes'])}; free: {free}",
        f"fits    {'yes' if memory['fits'] else 'no'}",
    ]


def _cluster_lines(cluster: Mapping[str, Any]) -> list[str]:
    gpus = "" if cluster["gpus_per_worker"] is None else f", {cluster['gpus_per_worker']:g} GPUs each"
    where = cluster["address"] or "the one that Ray finds, or one of its own"
    return [f"workers {cluster['workers'] or 'as many as fit'}{gpus}; each plans by its own memory", f"cluster {where}"]
