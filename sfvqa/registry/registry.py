"""The models of this installation and of the user's own models.toml, by name; the nearest names on a miss.

TOML tables become frozen dataclasses strictly: unknown keys, wrong types and missing fields are ModelErrors.
"""

import contextlib
import difflib
import os
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sfvqa.errors import ModelError, UnknownModelError
from sfvqa.registry.architecture import Architecture
from sfvqa.registry.spec import ModelSpec

T = TypeVar("T")
_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def read_table(wanted: type[T], table: object, where: str, **given: object) -> T:
    """Build a dataclass from a table; `given` are fields that the table must not set. ModelError says what is wrong.

    `where` is how messages name the table: "[models.tiny] of models.toml".
    """
    if not isinstance(table, Mapping):
        raise ModelError(f"{where} is {table!r}, no table.", "Write it as a table of keys and values.")
    hints = {name: hint for name, hint in get_type_hints(wanted).items() if name not in given}
    assert is_dataclass(wanted)
    refuse_unknown_keys(table, hints.keys(), where)
    required = {field.name for field in fields(wanted) if field.default is MISSING} - given.keys()
    if missing := sorted(required - table.keys()):
        raise ModelError(f"{where} lacks {', '.join(missing)}.", "Add what is missing.")
    values = {key: _read_value(hints[key], value, key, where) for key, value in table.items()}
    built = wanted(**values, **given)
    assert isinstance(built, wanted)
    return built


def refuse_unknown_keys(table: Mapping[str, object], known: Sequence[str] | Any, where: str) -> None:
    """ModelError for a key nothing reads, with the nearest one there is."""
    for key in table.keys() - set(known):
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        raise ModelError(f"{where} has an unknown key `{key}`.", hint)


def _read_value(hint: Any, value: object, key: str, where: str) -> object:
    """A value as the field's type wants it."""
    if get_origin(hint) in (Union, types.UnionType):  # `X | None`: TOML has no null, so a value is an X
        (hint,) = (member for member in get_args(hint) if member is not type(None))
    if get_origin(hint) is tuple:
        (member, _) = get_args(hint)
        if isinstance(value, list) and all(_is_a(member, item) for item in value):
            return tuple(value)
        raise _wrong(value, key, where, f"It takes a list, each {_TYPE_NAMES[member]}.")
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise _wrong(value, key, where, f"It takes one of {', '.join(get_args(hint))}.")
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if isinstance(value, str) and value in list(hint):
            return hint(value)
        raise _wrong(value, key, where, f"It takes one of {', '.join(hint)}.")
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return read_table(hint, value, f"`{key}` in {where}")
    if not _is_a(hint, value):
        raise _wrong(value, key, where, f"It takes {_TYPE_NAMES[hint]}.")
    return float(value) if hint is float else value  # type: ignore[arg-type]  # checked above


def _is_a(wanted: type, value: object) -> bool:
    if isinstance(value, bool):  # which Python takes for a number
        return wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def _wrong(value: object, key: str, where: str, wanted: str) -> ModelError:
    return ModelError(f"{where} gives {value!r} for `{key}`.", wanted)


MODELS_FILE = "models.toml"


@dataclass(frozen=True)
class Registry:
    """Models in the order of their files, each name the name of one."""

    models: tuple[ModelSpec, ...]

    def __post_init__(self) -> None:
        owners: dict[str, ModelSpec] = {}
        for spec in self.models:
            for name in spec.all_names:
                other = owners.setdefault(name.lower(), spec)
                if other is not spec:
                    whose = other.name if other.source == spec.source else f"{other.name} of {other.source}"
                    raise spec.invalid(f"shares the name {name!r} with {whose}", "Give every model its own.")

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models)

    def find(self, name: str) -> ModelSpec:
        """Look a model up by name, alias or repository, whatever the case; UnknownModelError names the nearest."""
        wanted = name.strip().lower()
        by_name = {known.lower(): spec for spec in self.models for known in spec.all_names}
        if wanted in by_name:
            return by_name[wanted]
        near = difflib.get_close_matches(wanted, by_name, n=6, cutoff=0.5)
        suggestions = list(dict.fromkeys(by_name[match].name for match in near))
        known = ", ".join(spec.name for spec in self.models)
        hint = f"Did you mean {' or '.join(suggestions)}?" if suggestions else f"Known models: {known}."
        raise UnknownModelError(
            f"There is no model named {name!r}, and no folder of that name.",
            f"{hint} `sfvqa models list` shows them all; a checkpoint folder can be given by its path.",
        )


def read_registry(
    text: str, source: str = MODELS_FILE, architectures: Mapping[str, Architecture] | None = None
) -> Registry:
    """Read the text of a models.toml strictly; ModelError says which file, model and key is wrong.

    `architectures` are those the file may name beside its own, by name.
    """
    own, models = _parse(text, source)
    return Registry(_models(models, {**(architectures or {}), **own}, source))


def load_registry() -> Registry:
    """The shipped models, then those of the user's file; a broken user file is a ModelError that names it."""
    shipped_text = _shipped_text()
    shipped = read_registry(shipped_text)
    path = user_models_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return shipped
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Correct it or remove it.") from error
    architectures, _ = _parse(shipped_text, MODELS_FILE)
    own = read_registry(text, str(path), architectures)
    if (misplaced := next((spec for spec in own if spec.is_bundled), None)) is not None:
        raise misplaced.invalid("has a `folder`, which lies inside the package", "Give a folder's path to --model.")
    return Registry((*shipped.models, *own.models))


def find_model(name: str) -> ModelSpec:
    """Look a model of this installation up by name; UnknownModelError names the nearest."""
    return load_registry().find(name)


def user_models_path() -> Path:
    """Where the user's own models are described: SFVQA_MODELS, else models.toml beside config.toml."""
    import platformdirs

    override = os.environ.get("SFVQA_MODELS")
    return Path(override) if override else Path(platformdirs.user_config_dir("sfvqa", appauthor=False)) / MODELS_FILE


@cache
def _shipped_text() -> str:
    """sfvqa/models.toml of a wheel, or the one at the top of a source checkout."""
    packaged = resources.files("sfvqa").joinpath(MODELS_FILE)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    in_checkout = Path(__file__).resolve().parents[2] / MODELS_FILE
    if in_checkout.is_file():
        return in_checkout.read_text(encoding="utf-8")
    raise ModelError(f"{MODELS_FILE} is missing from this installation.", "Install sfvqa again.")


def _parse(text: str, source: str) -> tuple[dict[str, Architecture], dict[str, object]]:
    """The architectures of a file, and the tables of its models."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not valid TOML: {error}.", "Correct the file.") from error
    refuse_unknown_keys(document, ("architectures", "models"), f"The top of {source}")
    architectures, models = document.get("architectures", {}), document.get("models", {})
    for kind, tables in (("architectures", architectures), ("models", models)):
        if not isinstance(tables, dict):
            raise ModelError(f"{source} gives {tables!r} for `{kind}`.", f"Write [{kind}.NAME].")
    read = {}
    for name, table in architectures.items():
        where = f"[architectures.{name}] of {source}"
        with _naming(where, source):
            read[name] = read_table(Architecture, table, where)
    return read, models


def _models(
    tables: Mapping[str, object], architectures: Mapping[str, Architecture], source: str
) -> tuple[ModelSpec, ...]:
    specs = []
    for name, table in tables.items():
        where = f"[models.{name}] of {source}"
        named = table.get("architecture") if isinstance(table, Mapping) else None
        if not isinstance(named, str):
            raise ModelError(f"{where} does not name its architecture.", 'Write architecture = "NAME".')
        if named not in architectures:
            known = ", ".join(architectures) or "none"
            raise ModelError(
                f"{where} is of an architecture {named!r} that is not described.",
                f"Described are {known}; add [architectures.{named}].",
            )
        assert isinstance(table, Mapping)
        rest = {key: value for key, value in table.items() if key != "architecture"}
        given = {"name": name, "architecture": architectures[named], "source": source}
        with _naming(where, source):
            specs.append(read_table(ModelSpec, rest, where, **given))
    return tuple(specs)


@contextlib.contextmanager
def _naming(where: str, source: str) -> Iterator[None]:
    """Have a ModelError that does not name the file say that it is about `where`."""
    try:
        yield
    except ModelError as error:
        if source in error.message:
            raise
        raise ModelError(f"{where}: {error.message}", error.remedy) from error
