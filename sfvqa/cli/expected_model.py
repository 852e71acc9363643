"""Which model `ask` would use and how that one looks at videos, without loading it: no torch, no weights."""

from dataclasses import dataclass

from sfvqa.inference.locate import find
from sfvqa.inference.quantized_copies import is_here
from sfvqa.inference.trained_with import TrainedWith, read_trained_with
from sfvqa.registry import ModelSpec, load_registry


@dataclass(frozen=True)
class ExpectedModel:
    """A model's name, how it looked at videos in training, and a sentence on why it is taken."""

    name: str
    trained_with: TrainedWith
    reason: str


def expect_model(name: str | None) -> ExpectedModel:
    """The model of that name or folder, downloaded or not; without a name the one `ask` would choose.

    Whether a model that is here fits the memory cannot be known here, and is said. Raises ModelError.
    """
    if name is not None:
        return ExpectedModel(name, read_trained_with(find(name)), f"The frames are those that {name} would see.")
    here = next((spec for spec in load_registry() if not spec.is_bundled and is_here(spec)), None)
    if here is not None:
        why = "which is on this machine and which `ask` uses if it fits the memory"
        return _expect(here, f"The frames are those that {here.name} would see, {why}; --model names another.")
    bundled = next(spec for spec in load_registry() if spec.is_bundled)
    return _expect(bundled, f"The frames are those that the bundled {bundled.name} would see; --model names another.")


def _expect(spec: ModelSpec, reason: str) -> ExpectedModel:
    return ExpectedModel(spec.name, read_trained_with(spec), reason)
