"""Groups of options: dataclasses whose annotated fields are the options, and the flat signature typer reads of them."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Self, get_args, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import ParameterInfo


class Source(IntEnum):
    """Where the value of an option comes from; a higher one overrules a lower one."""

    DEFAULT = 0
    CONFIG_FILE = 1
    VARIABLE = 2
    FLAG = 3


RARE = object()
"""Marks an option that --help leaves out."""
SETTING = object()
"""Marks an option that can be set for good: by the variable SFVQA_NAME, or in the config file."""

_SOURCES = {"COMMANDLINE": Source.FLAG, "ENVIRONMENT": Source.VARIABLE, "DEFAULT_MAP": Source.CONFIG_FILE}


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """A group of options; a command takes it as one parameter.

    A field with a `typer.Option` in its annotation is an option; RARE and SETTING behind it say more of it.
    `panel` is the heading above those that name no `rich_help_panel`. `sources` say where the values came from.
    """

    panel: ClassVar[str | None] = None
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, context: typer.Context) -> Self:
        """The group in the parameters of a command that takes it."""
        names = [parameter.name for parameter in _options_of(cls)]
        found = {name: context.get_parameter_source(name) for name in names}
        sources = {name: _SOURCES[source.name] for name, source in found.items() if source and source.name in _SOURCES}
        return cls(**{name: context.params[name] for name in names}, sources=sources)

    def source(self, name: str) -> Source:
        """Where the value of an option came from."""
        return self.sources.get(name, Source.DEFAULT)

    def is_flag(self, name: str) -> bool:
        """Whether an option was typed, rather than set for good."""
        return self.source(name) is Source.FLAG

    def overrule(self, name: str, value: object = None) -> None:
        """Replace a value that a stronger option contradicts; for `__post_init__` only."""
        object.__setattr__(self, name, value)


class Command(TyperCommand):
    """A command whose help leaves out rare options and variables, which --help-all shows; the shell completes all."""

    def unhide(self) -> None:
        """Show everything from now on."""
        for parameter in self.params:
            parameter.hidden = False  # type: ignore[attr-defined]
            parameter.show_envvar = True  # type: ignore[attr-defined]

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete rare options as well."""
        self.unhide()
        return super().shell_complete(ctx, incomplete)


def compose(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer takes it: in place of each group its options, from which the group is built at the call."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, OptionGroup)}
    flat: list[inspect.Parameter] = [_parameter("_context", typer.Context)]
    for name, parameter in inspect.signature(function).parameters.items():
        flat += _options_of(groups[name]) if name in groups else [_parameter(name, hints[name], parameter.default)]
    if any(info.hidden for parameter in flat for info in get_args(parameter.annotation)[1:]):
        flat.append(_parameter("_help_all", _HelpAll, False))

    @functools.wraps(function)
    def command(_context: typer.Context, **given: Any) -> None:
        own = {name: value for name, value in given.items() if name in hints}
        function(**own | {name: group.of(_context) for name, group in groups.items()})

    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _options_of(group: type[OptionGroup]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for option in fields(group):
        kind, *notes = get_args(hints[option.name]) or [None]
        info = next((copy(note) for note in notes if isinstance(note, ParameterInfo)), None)
        if info is None:
            continue
        home = next(base for base in group.__mro__ if option.name in inspect.get_annotations(base))
        info.rich_help_panel = info.rich_help_panel or getattr(home, "panel", None)
        info.hidden = RARE in notes
        info.show_envvar = False
        if SETTING in notes:
            info.envvar = f"SFVQA_{option.name.upper()}"
        if kind is bool:  # typer would add a flag that says no
            info.metavar = ""
            info.default = f"--{option.name.replace('_', '-')}" if info.default is ... else info.default
        default = inspect.Parameter.empty if option.default is MISSING else option.default
        if info.parser is not None and default not in (None, inspect.Parameter.empty):
            default = str(default)  # as it would be typed, because typer parses it
        yield _parameter(option.name, Annotated[kind, info], default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        assert isinstance(context.command, Command)
        context.command.unhide()
        typer.echo(context.get_help())
        raise typer.Exit


_HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_show_all,
        is_eager=True,
        metavar="",
        help="Show every option, with its variable, and exit.",
    ),
]
