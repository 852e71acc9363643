"""The question before something large is fetched or deleted: asked on a terminal, refused where nobody can answer."""

import sys

import typer

from sfvqa.errors import UsageError


def confirm(question: str, what: str, *, yes: bool) -> bool:
    """Ask, unless `yes`; UsageError without a terminal. `what` is the sentence on what is about to be done."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what} There is no terminal to ask on whether to go on.", "Add --yes.")
    return typer.confirm(question, err=True)
