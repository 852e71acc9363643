"""Which model to use when it is, or is not, said: the named one, the configured one, a downloaded one, or tiny."""

from dataclasses import dataclass
from enum import StrEnum

from sfvqa.inference.locate import is_downloaded
from sfvqa.inference.plan import make_plan, too_much
from sfvqa.inference.sizes import read_sizes
from sfvqa.registry import load_registry

BUNDLED_MODEL = "tiny"


class ChoiceSource(StrEnum):
    """Why a model was chosen."""

    NAMED = "named"
    CONFIGURED = "configured"
    DOWNLOADED = "downloaded"
    BUNDLED = "bundled"


@dataclass(frozen=True)
class ModelChoice:
    """The model to load, why, and a sentence that says so; a bundled choice says what it can answer."""

    model: str
    source: ChoiceSource
    reason: str


def choose_model(
    named: str | None = None, *, configured: str | None = None, device: str = "auto", dtype: str = "auto"
) -> ModelChoice:
    """Choose the model named, else configured, else downloaded and, in some quantization, not too large, else tiny.

    Looks on this machine only. A name is not checked here: loading it is what tells.
    """
    if named:
        return ModelChoice(named, ChoiceSource.NAMED, f"Using {named}.")
    if configured:
        return ModelChoice(configured, ChoiceSource.CONFIGURED, f"Using {configured}, as configured.")
    too_large = []
    for spec in load_registry():
        if spec.is_bundled or not is_downloaded(spec):
            continue
        plan = make_plan(read_sizes(spec.name), device=device, dtype=dtype)
        if plan.fit.fits:
            return ModelChoice(spec.name, ChoiceSource.DOWNLOADED, f"Using {spec.name}, which is downloaded.")
        too_large.append(too_much(plan))
    tiny = load_registry().find(BUNDLED_MODEL)
    why = f" ({'; '.join(too_large)})" if too_large else ""
    return ModelChoice(
        tiny.name,
        ChoiceSource.BUNDLED,
        f"Using the bundled {tiny.name}{why}: it can answer questions about {tiny.can_answer}. "
        "See `sfvqa demo`, and `sfvqa models list` for other models.",
    )
