"""`sfvqa cache clear`: delete the encoded videos; nothing else is lost but the time to make them again."""

import json as jsonlib

import typer

from sfvqa.cli.models.options import Json, Quiet, Yes

HELP = """\b
[bold]Examples[/bold]
  sfvqa cache clear
  sfvqa cache clear --yes --json

Delete every encoded video that is kept, and what an interrupted run left. The
videos themselves are not touched: they are read and encoded again when asked
about."""


def clear(yes: Yes = False, json: Json = False, quiet: Quiet = False) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.cli.models.confirm import confirm
    from sfvqa.cli.render import Notices
    from sfvqa.cli.text import plural, readable_size
    from sfvqa.inference.video_cache.store import VideoCache

    notices, store = Notices(quiet=quiet), VideoCache()
    num_videos, size_bytes = store.num_entries(), store.size_bytes()
    what = f"Clearing deletes {plural(num_videos, 'encoded video')} ({readable_size(size_bytes)}) in {store.folder}."
    notices.note(what if size_bytes else f"There is nothing in {store.folder}.")
    if size_bytes and not confirm(f"Delete {readable_size(size_bytes)}?", what, yes=yes):
        notices.note("Nothing was deleted.")
        raise typer.Exit(1)
    freed_bytes = store.clear()
    if size_bytes:
        notices.note(f"{readable_size(freed_bytes)} are free again.")
    if json:
        document = {"schema_version": 1, "folder": str(store.folder.absolute()), "freed_bytes": freed_bytes}
        typer.echo(jsonlib.dumps(document))
