"""A TOML table → a frozen dataclass, strictly: unknown keys, wrong types and missing fields are ModelErrors."""

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sfvqa.errors import ModelError

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
