"""How options are declared, where their values come from, and the options that most commands share."""

import contextlib
import difflib
import functools
import inspect
import math
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args, get_type_hints

import platformdirs
import typer
from typer.core import TyperCommand
from typer.models import OptionInfo

from sfvqa.errors import UnreadableVideoError, UsageError
from sfvqa.given_file import STANDARD_INPUT

if TYPE_CHECKING:
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.video_cache.store import VideoCache


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
_PREFIX = "SFVQA_"
_METAVARS: dict[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT", Path: "FILE"}


def option(text: str, *flags: str, **more: Any) -> Any:
    """What typer.Option gives, its help first; flag and metavar follow name and type unless given."""
    return typer.Option(*flags, help=text, **more)


def setting(text: str, *flags: str, **more: Any) -> Any:
    """An option that can be set for good: by the variable SFVQA_NAME, or in the config file."""
    return option(text, *flags, envvar=_PREFIX, **more)


def rare_setting(text: str, *flags: str, **more: Any) -> Any:
    """One that --help leaves out."""
    return setting(text, *flags, hidden=True, **more)


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """A group of options; a command takes it as one parameter.

    A field with an `option` in its annotation is one; `panel` is the heading above those that name no
    `rich_help_panel`. `sources` say where the values came from.
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
        own = _as_option(name, hints[name], parameter.default) or _parameter(name, hints[name], parameter.default)
        flat += _options_of(groups[name]) if name in groups else [own]
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
    for each in fields(group):
        home = next(base for base in group.__mro__ if each.name in inspect.get_annotations(base))
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        if parameter := _as_option(each.name, hints[each.name], default, getattr(home, "panel", None)):
            yield parameter


def _as_option(name: str, hint: Any, default: Any, panel: str | None = None) -> inspect.Parameter | None:
    """The parameter that typer makes an option of; None for what is none."""
    kind, *notes = get_args(hint) or [None]
    info = next((copy(note) for note in notes if isinstance(note, OptionInfo)), None)
    if info is None:
        return None
    info.rich_help_panel = info.rich_help_panel or panel
    info.hidden = info.hidden or RARE in notes
    if info.metavar is None:
        info.metavar = next((_METAVARS[part] for part in (kind, *get_args(kind)) if part in _METAVARS), None)
    info.show_envvar = False
    if SETTING in notes or info.envvar == _PREFIX:
        info.envvar = f"{_PREFIX}{name.upper()}"
    if kind is bool:  # typer would add a flag that says no
        info.default = f"--{name.replace('_', '-')}" if info.default is ... else info.default
    if info.parser is not None and default not in (None, inspect.Parameter.empty):
        default = str(default)  # as it would be typed, because typer parses it
    return _parameter(name, Annotated[kind, info], default)


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
    typer.Option("--help-all", callback=_show_all, is_eager=True, metavar="", help="Show all options and variables."),
]


def user_config_path() -> Path:
    """Where config.toml is looked for: SFVQA_CONFIG, else the user's configuration folder."""
    folder = Path(platformdirs.user_config_dir("sfvqa", appauthor=False))
    return Path(os.environ.get("SFVQA_CONFIG") or folder / "config.toml")


def configurable(app: Any) -> dict[str, list[str]]:
    """The options that the file may set, those with a variable, by the command of the app that takes them."""
    options = {
        name: [parameter.name for parameter in command.params if parameter.envvar]
        for name, command in app.commands.items()
    }
    return {name: names for name, names in options.items() if names}


def load_user_config(known: Callable[[], Mapping[str, Collection[str]]]) -> dict[str, str]:
    """Defaults by parameter name, empty when there is no file; UsageError names an unknown key or a broken file.

    Keys are the names of options, `max-new-tokens` or `max_new_tokens`; `known` gives those of each command. Values
    are checked where flags are.
    """
    path = user_config_path()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"The config file {path} cannot be read: {error}.", "Correct it or remove it.") from error
    names = sorted({name for of_command in known().values() for name in of_command})
    defaults = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(names)}."
            raise UsageError(f"The config file {path} has an unknown key `{key}`.", hint)
        if not isinstance(value, str | int | float):
            raise UsageError(
                f"The config file {path} gives {value!r} for `{key}`.", "Give a number, a string, true or false."
            )
        defaults[name] = str(value)
    return defaults


def check_finite(value: float) -> float:
    """A callback of options that take a finite number."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def check_positive(value: float | None) -> float | None:
    """A callback of options that take a finite number above 0, or nothing."""
    if value is not None and check_finite(value) <= 0:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


@dataclass(frozen=True)
class Count:
    """A whole number above 0; None is `auto`."""

    number: int | None

    def __str__(self) -> str:
        return "auto" if self.number is None else f"{self.number}"


ONE, AUTO = Count(1), Count(None)


def parse_count(text: str) -> Count:
    """The count that `text` means; typer.BadParameter where it means none."""
    if text == "auto":
        return AUTO
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is neither a whole number above 0 nor auto.")
    return Count(int(text))


BUNDLED_VIDEOS = Path(str(resources.files("sfvqa").joinpath("assets", "demo")))


def is_bundled(video: Path) -> bool:
    """Whether it is one of the videos in the package."""
    return video.resolve().parent == BUNDLED_VIDEOS.resolve()


def bundled_video(name: str) -> Path | None:
    """The bundled video of that name, where no file has it."""
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        bundled = BUNDLED_VIDEOS / name
        if Path(name).name == name and not Path(name).exists() and bundled.suffix == ".mp4" and bundled.is_file():
            return bundled
    return None


def parse_video(text: str) -> Path:
    """The path of a video, or of the bundled one of that name where no file has it.

    Raises typer.BadParameter for an empty path, UnreadableVideoError for a URL.
    """
    from sfvqa.video.readers.local_file import refuse_address

    if not text:  # an unset variable, most likely; a Path would make it the current folder
        raise typer.BadParameter("the path is empty.")
    refuse_address(text)  # a Path would make one slash of two
    return bundled_video(text) or Path(text)


def parse_file(text: str) -> Path:
    """The path of any other file, to read or to write; typer.BadParameter for an empty one, UsageError for a URL."""
    from sfvqa.video.readers.local_file import refuse_address

    if not text:
        raise typer.BadParameter("the path is empty.")
    try:
        refuse_address(text)
    except UnreadableVideoError:
        raise UsageError(f"“{text}” is a URL, not a local file.", "Download it first, or name a file.") from None
    return Path(text)


Video = Annotated[
    Path,
    typer.Argument(
        parser=parse_video,
        metavar="VIDEO",
        help="A video file, a folder of pictures, or - for standard input.",
        show_default=False,
    ),
]
OUTPUT = "What it prints"
DryRun = Annotated[
    bool, option("Only show what would run and whether it fits in memory (exit code 5 if not).", rich_help_panel=OUTPUT)
]
# The values of the library's enum, written out because importing it would import numpy; a test compares.
CaptionFormatName = Literal["vtt", "srt", "txt", "csv", "jsonl"]
Json = Annotated[bool, option("Print JSON on stdout, errors included.", "--json")]
Yes = Annotated[bool, option("Do not ask for confirmation.", "--yes", "-y")]


@dataclass(frozen=True, kw_only=True)
class ResultOptions(OptionGroup):
    """As what the result is printed, and whether anything else is."""

    panel = OUTPUT

    json: Json = False
    quiet: Annotated[bool, option("Print only the result and warnings.", "--quiet", "-q")] = False

    def notices(self) -> "Notices":
        """What prints on stderr."""
        from sfvqa.cli.screen import Notices

        return Notices(quiet=self.quiet, verbose=getattr(self, "verbose", False))


@dataclass(frozen=True, kw_only=True)
class OutputOptions(ResultOptions):
    """The same of commands that have more to tell. UsageError when built for what contradicts itself."""

    verbose: Annotated[
        bool, option("Also print what was chosen and read, and how long it took.", "--verbose", "-v")
    ] = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other.", "Leave one of them out.")


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_size(text: str) -> int:
    """Bytes of `10GB`, `1.5 G`, `500 MB`, or a plain number of them; typer.BadParameter for anything else.

    >>> parse_size("1.5GB"), parse_size("0")
    (1500000000, 0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size; write one like 10GB, 500MB or 0.")
    return int(Decimal(found[1]) * _UNITS[found[2]])


def check_size(text: str) -> str:
    """A callback of options that take a size."""
    parse_size(text)
    return text


@dataclass(frozen=True, kw_only=True)
class CacheOptions(OptionGroup):
    """The video cache: whether to use it, and how."""

    panel = "The video cache"

    no_cache: Annotated[bool, setting("Do not use the video cache.")] = False
    cache_size: Annotated[
        str,
        rare_setting(
            "Size limit, above which the least recently used videos are deleted.", metavar="SIZE", callback=check_size
        ),
    ] = "10GB"
    full_hash: Annotated[
        bool,
        rare_setting("Identify videos above 32 MiB by all their bytes, not by size, samples and time of last change."),
    ] = False

    def open(self, video: Path | None = None) -> "VideoCache | None":
        """The cache for a command about one `video`, or about many; None for none."""
        from sfvqa.inference.video_cache.store import VideoCache

        if self.no_cache:
            return None
        is_fresh = str(video) == STANDARD_INPUT  # a copy of it, whose time of change says nothing
        return VideoCache(limit_bytes=parse_size(self.cache_size), whole_files=self.full_hash or is_fresh)
