"""The options that the commands on models share."""

from typing import Annotated

import typer

from sfvqa.cli.options import complete_model

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A name from `sfvqa models list`.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
NameOrFolder = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FOLDER",
        help="A name from `sfvqa models list`, or a checkpoint folder.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON object on stdout; errors too.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Only warnings, errors and questions on stderr.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do it without asking.")]
Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Use what is on this machine, as with HF_HUB_OFFLINE=1.")
]
