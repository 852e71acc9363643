"""config.toml in the user's configuration folder: defaults for options, below flags and SFVQA_… variables."""

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from sfvqa.errors import UsageError

CONFIG_FILE = "config.toml"


def user_config_path() -> Path:
    """Where the file is looked for: SFVQA_CONFIG, else the XDG folder (or the system's own)."""
    override = os.environ.get("SFVQA_CONFIG")
    return Path(override) if override else Path(platformdirs.user_config_dir("sfvqa", appauthor=False)) / CONFIG_FILE


def load_user_config(known: Mapping[str, Collection[str]]) -> dict[str, object]:
    """Defaults by parameter name, empty when there is no file; UsageError names an unknown key or a broken file.

    Keys are the names of options, `max-new-tokens` or `max_new_tokens`, and `known` are those of each command. Their
    values are checked where flags are.
    """
    path = user_config_path()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"The config file {path} cannot be read: {error}.", "Correct it or remove it.") from error
    names = sorted({name for of_command in known.values() for name in of_command})
    return {_known_key(key, names, path): _plain_value(key, value, path) for key, value in document.items()}


def configurable(app: Any) -> dict[str, list[str]]:
    """The options that the file may set, those with a variable, by the command of the app that takes them."""
    options = {
        name: [parameter.name for parameter in command.params if parameter.envvar]
        for name, command in app.commands.items()
    }
    return {name: names for name, names in options.items() if names}


def _known_key(key: str, known: Sequence[str], path: Path) -> str:
    name = key.replace("-", "_")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(known)}."
        raise UsageError(f"The config file {path} has an unknown key `{key}`.", hint)
    return name


def _plain_value(key: str, value: object, path: Path) -> str:
    if not isinstance(value, str | int | float):
        raise UsageError(
            f"The config file {path} gives {value!r} for `{key}`.", "Give a number, a string, true or false."
        )
    return str(value)
