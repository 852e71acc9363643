"""models.toml, ours and the user's, read strictly into specs of models; look-up by name, nearest names on a miss."""

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
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
SUGGESTED_MODEL, SUGGESTED_SPEECH_MODEL = "smolvlm2-500m", "whisper-base"
"""For whoever has none but the bundled one, or none that hears: small enough for any laptop."""

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


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """What is known by name and can be downloaded: where it is (a Hugging Face repository), and on what terms.

    `size_bytes` is that of the weights as stored.
    """

    name: str
    description: str
    license: str
    size_bytes: int
    repo_id: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    source: str = field(default="models.toml", compare=False)

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise self.invalid("has a size below 1", "Give a positive number.")
        if self.repo_id is not None and not _is_repo_id(self.repo_id):
            raise self.invalid(f"has an invalid `repo_id`: {self.repo_id!r}", "Write it as owner/name.")
        if any(not name.strip() for name in self.all_names):
            raise self.invalid("has an empty name", "Give it one that can be typed.")

    @property
    def is_bundled(self) -> bool:
        """Whether the package carries the weights."""
        return False

    @property
    def has_weights(self) -> bool:
        """Whether trained weights exist; without them it runs with random ones only."""
        return self.is_bundled or self.repo_id is not None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name it answers to: its own, its aliases, its repository."""
        return (self.name, *self.aliases, *((self.repo_id,) if self.repo_id else ()))

    def invalid(self, what: str, remedy: str) -> ModelError:
        """A ModelError about this model in its file."""
        return ModelError(f"The model {self.name!r} in {self.source} {what}.", remedy)


@dataclass(frozen=True, kw_only=True)
class SpeechSpec(PublishedModel):
    """A Whisper model in CTranslate2's form, which writes down what is said and answers no question."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repo_id is None:
            raise self.invalid("has no `repo_id`", "Name its repository.")


@dataclass(frozen=True, kw_only=True)
class ModelSpec(PublishedModel):
    """A model that can be asked: where its weights are, and what to know before using it.

    Its weights are in `repo_id` (Hugging Face) or in `folder` (relative to the package); a model with neither has an
    architecture only, and runs with random weights. `sampling` and `crop` name a `SamplingStrategy` and a `CropMode`;
    `can_answer` finishes the sentence "It can answer questions about …". `dtype` is what it computes in where the
    machine can; `memory_hint` is a sentence on what machine it is for.
    """

    can_answer: str
    num_frames: int
    architecture: Architecture
    fast_tokens: FastTokens
    memory_hint: str
    training_max_length: int | None = None
    dtype: DtypeName = "bfloat16"
    sampling: SamplingName = "uniform"
    crop: CropName = "center"
    quantization: QuantizationName = QuantizationName.NONE
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repo_id is not None and self.folder is not None:
            raise self.invalid("has both `repo_id` and `folder`", "Keep one of them.")
        longest = 1 if self.training_max_length is None else self.training_max_length
        if min(self.num_frames, longest) < 1:
            raise self.invalid("has a number of frames or a length below 1", "Give positive numbers.")
        if self.fast_tokens.spatial_stride > (side := self.architecture.grid_side(num_frames=2)):
            raise self.invalid(
                f"averages over {self.fast_tokens.spatial_stride} cells, where a frame has {side} a side",
                "Correct spatial_stride, or the architecture.",
            )

    @property
    def is_bundled(self) -> bool:
        """Whether the package carries the weights."""
        return self.folder is not None


def _is_repo_id(text: str) -> bool:
    """Whether the Hugging Face hub could have a repository of this name: its client raises for any other.

    >>> [_is_repo_id(text) for text in ("acme/small-1.5", "gpt2", "a/b/c", "../..", "acme/no blanks", "")]
    [True, True, False, False, False, False]
    """
    is_formed = _REPO_ID.fullmatch(text) is not None
    return is_formed and "--" not in text and ".." not in text and not text.endswith(".git")


@dataclass(frozen=True)
class Registry:
    """Models in the order of their files, each name the name of one, and the architectures that a file describes.

    `speech` are those that write down what is said; iterating gives those that can be asked.
    """

    models: tuple[ModelSpec, ...]
    architectures: Mapping[str, Architecture]
    speech: tuple[SpeechSpec, ...] = ()

    def __post_init__(self) -> None:
        owners: dict[str, PublishedModel] = {}
        for spec in (*self.models, *self.speech):
            for name in spec.all_names:
                other = owners.setdefault(name.lower(), spec)
                if other is not spec:
                    whose = other.name if other.source == spec.source else f"{other.name} of {other.source}"
                    raise spec.invalid(f"shares the name {name!r} with {whose}", "Give every model its own.")

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models)

    def find(self, name: str) -> ModelSpec:
        """Look up a model that can be asked; UnknownModelError names the nearest. Names as in `find_any`."""
        spec = self._named(name, self.models)
        assert isinstance(spec, ModelSpec)
        return spec

    def find_speech(self, name: str) -> SpeechSpec:
        """Look up a model that writes down what is said; UnknownModelError names the nearest."""
        spec = self._named(name, self.speech)
        assert isinstance(spec, SpeechSpec)
        return spec

    def find_any(self, name: str) -> PublishedModel:
        """Look up a model of any kind by name, alias or repository, ignoring case."""
        return self._named(name, (*self.models, *self.speech))

    def _named(self, name: str, among: Sequence[PublishedModel]) -> PublishedModel:
        wanted = name.strip().lower()
        by_name = {known.lower(): spec for spec in among for known in spec.all_names}
        if wanted in by_name:
            return by_name[wanted]
        for spec in (*self.models, *self.speech):
            if wanted in map(str.lower, spec.all_names):
                raise _of_the_other_kind(spec)
        near = difflib.get_close_matches(wanted, by_name, n=6, cutoff=0.5)
        suggestions = list(dict.fromkeys(by_name[match].name for match in near))
        known = ", ".join(spec.name for spec in among)
        hint = f"Did you mean {' or '.join(suggestions)}?" if suggestions else f"Known models: {known}."
        raise UnknownModelError(
            f"There is no model named {name!r}, and no folder of that name.",
            f"{hint} `sfvqa models list` shows them all; a checkpoint folder can be given by its path.",
        )


def _of_the_other_kind(spec: PublishedModel) -> UnknownModelError:
    if isinstance(spec, SpeechSpec):
        return UnknownModelError(
            f"{spec.name} is a speech model: it writes down what is said, and answers no question.",
            f"Use --speech --speech-model {spec.name}, and any other model of `sfvqa models list` to answer.",
        )
    return UnknownModelError(
        f"{spec.name} answers questions about what is seen, and does not hear.",
        "Name a speech model of `sfvqa models list`.",
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
    _refuse_unknown_keys(document, ("architectures", "models", "speech"), f"The top of {source}")
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
    speech = [
        _read_table(SpeechSpec, table, f"[speech.{name}] of {source}", name=name, source=source)
        for name, table in document.get("speech", {}).items()
    ]
    return Registry(tuple(models), known, tuple(speech))


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
        if issubclass(wanted, PublishedModel):  # which names itself and its file
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
    return Registry((*shipped.models, *own.models), own.architectures, (*shipped.speech, *own.speech))


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


def find_any_model(name: str) -> PublishedModel:
    """The same for a model of any kind."""
    return load_registry().find_any(name)


def user_models_path() -> Path:
    """Where the user's own models are described: SFVQA_MODELS, else models.toml beside config.toml."""
    import platformdirs

    override = os.environ.get("SFVQA_MODELS")
    return Path(override) if override else Path(platformdirs.user_config_dir("sfvqa", appauthor=False)) / MODELS_FILE
