"""models.toml → ModelSpec: which models have a name, and the nearest names on a miss. Imports no torch."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path

from sfvqa.errors import ModelError, UnknownModelError

MODELS_FILE = "models.toml"
_ACCEPTED_TYPES = {  # by field of ModelSpec; `name` is the table's own name
    "description": str,
    "can_answer": str,
    "license": str,
    "size_bytes": int,
    "num_frames": int,
    "sampling": str,
    "crop": str,
    "repo_id": str,
    "folder": str,
    "revision": str,
    "aliases": list,
}


@dataclass(frozen=True)
class ModelSpec:
    """One model known by name: where its weights are, and what to know before using it.

    Exactly one of `repo_id` (Hugging Face) and `folder` (relative to the package) is set. `sampling` and `crop` name
    a `SamplingStrategy` and a `CropMode`; `can_answer` finishes the sentence "It can answer questions about …".
    """

    name: str
    description: str
    can_answer: str
    license: str
    size_bytes: int
    num_frames: int
    sampling: str = "uniform"
    crop: str = "center"
    repo_id: str | None = None
    folder: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.repo_id is None) == (self.folder is None):
            raise _invalid(self.name, "needs either `repo_id` or `folder`, and not both", "Keep one of them.")
        if self.size_bytes < 1 or self.num_frames < 1:
            raise _invalid(self.name, "has a size or a number of frames below 1", "Give positive numbers.")

    @property
    def is_bundled(self) -> bool:
        """Whether the package carries the weights."""
        return self.folder is not None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name it answers to: its own, its aliases, its repository."""
        return (self.name, *self.aliases, *((self.repo_id,) if self.repo_id else ()))


@dataclass(frozen=True)
class Registry:
    """The models of one models.toml, in the order of the file."""

    models: tuple[ModelSpec, ...]

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for spec in self.models:
            for name in spec.all_names:
                other = owners.setdefault(name.lower(), spec.name)
                if other != spec.name:
                    raise _invalid(spec.name, f"shares the name {name!r} with {other}", "Give every model its own.")

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


def read_registry(text: str) -> Registry:
    """Read the text of a models.toml strictly; ModelError says which model and which key is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{MODELS_FILE} is not valid TOML: {error}.", "Correct the file.") from error
    _refuse_unknown_keys(document, {"models"}, "At the top")
    models = document.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
        raise ModelError(f"{MODELS_FILE} holds something else than tables under `models`.", "Write [models.NAME].")
    return Registry(tuple(_read_spec(name, entry) for name, entry in models.items()))


@cache
def load_registry() -> Registry:
    """The models of this installation: sfvqa/models.toml of a wheel, or the one at the top of a source checkout."""
    packaged = resources.files("sfvqa").joinpath(MODELS_FILE)
    if packaged.is_file():
        return read_registry(packaged.read_text(encoding="utf-8"))
    in_checkout = Path(__file__).resolve().parent.parent / MODELS_FILE
    if in_checkout.is_file():
        return read_registry(in_checkout.read_text(encoding="utf-8"))
    raise ModelError(f"{MODELS_FILE} is missing from this installation.", "Install sfvqa again.")


def find_model(name: str) -> ModelSpec:
    """Look a model of this installation up by name; UnknownModelError names the nearest."""
    return load_registry().find(name)


def _read_spec(name: str, entry: Mapping[str, object]) -> ModelSpec:
    """Turn one [models.NAME] table into a ModelSpec, checking keys and types."""
    _refuse_unknown_keys(entry, set(_ACCEPTED_TYPES), f"[models.{name}]")
    for key, value in entry.items():
        accepted = _ACCEPTED_TYPES[key]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise _invalid(name, f"gives {value!r} for `{key}`", f"It takes a value of type {accepted.__name__}.")
    aliases = entry.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise _invalid(name, f"gives {aliases!r} for `aliases`", "It takes a list of strings.")
    required = {field.name for field in fields(ModelSpec) if field.default is MISSING} - {"name"}
    missing = sorted(required - entry.keys())
    if missing:
        raise _invalid(name, f"lacks {', '.join(missing)}", "Add what is missing.")
    return ModelSpec(name=name, **{**entry, "aliases": tuple(aliases)})  # type: ignore[arg-type]  # checked above


def _refuse_unknown_keys(table: Mapping[str, object], known: set[str], where: str) -> None:
    for key in table.keys() - known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        raise ModelError(f"{where} of {MODELS_FILE} there is an unknown key `{key}`.", hint)


def _invalid(name: str, what: str, remedy: str) -> ModelError:
    return ModelError(f"The model {name!r} in {MODELS_FILE} {what}.", remedy)
