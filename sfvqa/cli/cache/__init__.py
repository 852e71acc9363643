"""`sfvqa cache`: the videos that are kept as the model saw them, and what they take. One file a command."""

import typer

from sfvqa.cli.cache import clear, list_entries, path, size

HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache size
  sfvqa cache clear

Videos are kept as the model saw them, so that another question about one
waits for no reading and no encoding. The least recently used go when there
are too many. SFVQA_CACHE_DIR names the folder they are kept in."""

app = typer.Typer(help=HELP, no_args_is_help=True)
app.command("list", help=list_entries.HELP, short_help="List the videos that are kept.")(list_entries.list_entries)
app.command("size", help=size.HELP, short_help="Say what they take on the disk.")(size.size)
app.command("clear", help=clear.HELP, short_help="Delete them.")(clear.clear)
app.command("path", help=path.HELP, short_help="Print the folder they are in.")(path.path)
