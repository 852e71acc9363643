"""models.toml, ours and the user's, read strictly into ModelSpecs; look-up by name, nearest names on a miss."""

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import EnumType, StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sfvqa.errors import ModelError, UnknownModelError
from sfvqa.registry.architecture import Architecture, FastTokens

T = TypeVar("T")
MODELS_FILE = "models.toml"
BUNDLED_MODEL = "tiny"
SUGGESTED_MODEL = "smolvlm2-500m"
"""For whoever has none but the bundled one: small enough for any laptop."""

# The names of enums of sfvqa.video, written out because importing those would import numpy; a test compares.
SamplingName = Literal[
    "uniform",
    "fps",
    "keyframes",
    "scene",
    "timestamps",
    "reference-demo",
    "reference-training",
    "reference-evaluation",
    "smolvlm",
]
CropName = Literal["center", "pad", "squash"]
DtypeName = Literal["float32", "bfloat16", "float16"]

_REPO_ID = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


class QuantizationName(StrEnum):
    """What `quantization` of a model may say; `auto` is the best that fits the free memory."""

    AUTO = "auto"
    NONE = "none"
    EIGHT_BIT = "8bit"
    FOUR_BIT = "4bit"


@dataclass(frozen=True)
class ModelSpec:
    """One model known by name: where its weights are, and what to know before using it.

    Its weights are in `repo_id` (Hugging Face) or in `folder` (relative to the package); a model with neither has an
    architecture only, and runs with random weights. `sampling` and `crop` name a `SamplingStrategy` and a `CropMode`;
    `can_answer` finishes the sentence "It can answer questions about …". `size_bytes` is that of the tensors as
    stored, `dtype` what it computes in where the machine can; `memory_hint` is a sentence on what machine it is for.
    """

    name: str
    description: str
    can_answer: str
    license: str
    size_bytes: int
    num_frames: int
    architecture: Architecture
    fast_tokens: FastTokens
    memory_hint: str
    training_max_length: int | None = None
    dtype: DtypeName = "bfloat16"
    sampling: SamplingName = "uniform"
    crop: CropName = "center"
    quantization: QuantizationName = QuantizationName.NONE
    repo_id: str | None = None
    folder: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    source: str = field(default="models.toml", compare=False)

    def __post_init__(self) -> None:
        if self.repo_id is not None and self.folder is not None:
            raise self.invalid("has both `repo_id` and `folder`", "Keep one of them.")
        longest = 1 if self.training_max_length is None else self.training_max_length
        if min(self.size_bytes, self.num_frames, longest) < 1:
            raise self.invalid("has a size, a number of frames or a length below 1", "Give positive numbers.")
        if self.fast_tokens.spatial_stride > (side := self.architecture.grid_side(num_frames=2)):
            raise self.invalid(
                f"averages over {self.fast_tokens.spatial_stride} cells, where a frame has {side} a side",
                "Correct spatial_stride, or the architecture.",
            )
        if self.repo_id is not None and not _is_repo_id(self.repo_id):
            raise self.invalid(f"has an invalid `repo_id`: {self.repo_id!r}", "Write it as owner/name.")
        if any(not name.strip() for name in self.all_names):
            raise self.invalid("has an empty name", "Give it one that can be typed.")

    @property
    def is_bundled(self) -> bool:
        """Whether the package carries the weights."""
        return self.folder is not None

    @property
    def has_weights(self) -> bool:
        """Whether trained weights exist; without them it runs with random ones only."""
        return self.folder is not None or self.repo_id is not None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name it answers to: its own, its aliases, its repository."""
        return (self.name, *self.aliases, *((self.repo_id,) if self.repo_id else ()))

    def invalid(self, what: str, remedy: str) -> ModelError:
        """A ModelError about this model in its file."""
        return ModelError(f"The model {self.name!r} in {self.source} {what}.", remedy)


def _is_repo_id(text: str) -> bool:
    """Whether the Hugging Face hub could have a repository of this name: its client raises for any other.

    >>> [_is_repo_id(text) for text in ("acme/small-1.5", "gpt2", "a/b/c", "../..", "acme/no blanks", "")]
    [True, True, False, False, False, False]
    """
    is_formed = _REPO_ID.fullmatch(text) is not None
    return is_formed and "--" not in text and ".." not in text and not text.endswith(".git")


@dataclass(frozen=True)
class Registry:
    """Models in the order of their files, each name the name of one, and the architectures that a file describes."""

    models: tuple[ModelSpec, ...]
    architectures: Mapping[str, Architecture]

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
        """Look up a model by name, alias or repository, ignoring case; UnknownModelError names the nearest."""
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


_TYPE_NAMES: dict[Any, str] = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def read_registry(
    text: str, source: str = MODELS_FILE, architectures: Mapping[str, Architecture] | None = None
) -> Registry:
    """Read the text of a models.toml strictly; ModelError says which file, model and key is wrong.

    `architectures` are those the file may name beside its own, by name.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not valid TOML: {error}.", "Correct the file.") from error
    _refuse_unknown_keys(document, ("architectures", "models"), f"The top of {source}")
    for kind, tables in document.items():
        if not isinstance(tables, dict):
            raise ModelError(f"{source} gives {tables!r} for `{kind}`.", f"Write [{kind}.NAME].")
    known = dict(architectures or {})
    for name, table in document.get("architectures", {}).items():
        known[name] = _read_table(Architecture, table, f"[architectures.{name}] of {source}")
    models = []
    for name, table in document.get("models", {}).items():
        where = f"[models.{name}] of {source}"
        named = table.get("architecture") if isinstance(table, dict) else None
        if not isinstance(named, str):
            raise ModelError(f"{where} does not name its architecture.", 'Write architecture = "NAME".')
        if named not in known:
            described = ", ".join(known) or "none"
            raise ModelError(
                f"{where} names an architecture {named!r} that is not described.",
                f"Known architectures: {described}; or add [architectures.{named}].",
            )
        given = {"name": name, "source": source, "architecture": known[named]}
        if "fast_tokens" in table:
            given["fast_tokens"] = _read_table(FastTokens, table["fast_tokens"], f"`fast_tokens` in {where}")
        rest = {key: value for key, value in table.items() if key not in ("architecture", "fast_tokens")}
        models.append(_read_table(ModelSpec, rest, where, **given))
    return Registry(tuple(models), known)


def _read_table(wanted: type[T], table: object, where: str, **given: Any) -> T:
    """Build a dataclass from a table; `given` are fields that the table must not set. ModelError says what is wrong."""
    if not isinstance(table, dict):
        raise ModelError(f"{where} is {table!r}, not a table.", "Write it as a table of keys and values.")
    assert is_dataclass(wanted)
    hints = {name: hint for name, hint in get_type_hints(wanted).items() if name not in given}
    _refuse_unknown_keys(table, hints.keys(), where)
    required = {field.name for field in fields(wanted) if field.default is MISSING} - given.keys()
    if missing := sorted(required - table.keys()):
        raise ModelError(f"{where} lacks {', '.join(missing)}.", "Add what is missing.")
    for key, value in table.items():
        hint, is_list = hints[key], get_origin(hints[key]) is tuple
        if get_origin(hint) is Literal or isinstance(hint, EnumType):
            choices = get_args(hint) or list(hint)
            is_right, takes = value in choices, f"one of {', '.join(choices)}"
        else:
            kind = get_args(hint)[0] if is_list or isinstance(hint, UnionType) else hint  # `X | None`: TOML has no null
            kinds = (int, float) if kind is float else (kind,)
            is_right = isinstance(value, list) == is_list and all(
                type(each) in kinds for each in (value if is_list else [value])
            )
            takes = f"a list, each {_TYPE_NAMES[kind]}" if is_list else _TYPE_NAMES[kind]
        if not is_right:
            raise ModelError(f"{where} gives {value!r} for `{key}`.", f"It takes {takes}.")
        given[key] = tuple(value) if is_list else hint(value) if isinstance(hint, EnumType) or hint is float else value
    try:
        return wanted(**given)
    except ModelError as error:
        if wanted is ModelSpec:  # which names itself and its file
            raise
        raise ModelError(f"{where}: {error.message}", error.remedy) from error


def _refuse_unknown_keys(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    """ModelError for a key nothing reads, with the nearest one there is."""
    for key in table.keys() - set(known):
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        raise ModelError(f"{where} has an unknown key `{key}`.", hint)


def load_registry() -> Registry:
    """The shipped models, then those of the user's file; a broken user file is a ModelError that names it."""
    shipped, path = _shipped(), user_models_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return shipped
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Correct it or remove it.") from error
    own = read_registry(text, str(path), shipped.architectures)
    if (misplaced := next((spec for spec in own if spec.is_bundled), None)) is not None:
        raise misplaced.invalid("has a `folder`, which lies inside the package", "Give a folder's path to --model.")
    return Registry((*shipped.models, *own.models), own.architectures)


@cache
def _shipped() -> Registry:
    """Of sfvqa/models.toml in a wheel, or of the one at the top of a source checkout."""
    for path in (resources.files("sfvqa").joinpath(MODELS_FILE), Path(__file__).resolve().parents[2] / MODELS_FILE):
        if path.is_file():
            return read_registry(path.read_text(encoding="utf-8"))
    raise ModelError(f"{MODELS_FILE} is missing from this installation.", "Reinstall sfvqa.")


def find_model(name: str) -> ModelSpec:
    """Look up a model of this installation by name; UnknownModelError names the nearest."""
    return load_registry().find(name)


def user_models_path() -> Path:
    """Where the user's own models are described: SFVQA_MODELS, else models.toml beside config.toml."""
    import platformdirs

    override = os.environ.get("SFVQA_MODELS")
    return Path(override) if override else Path(platformdirs.user_config_dir("sfvqa", appauthor=False)) / MODELS_FILE
