"""Which model to use when it is, or is not, said: the named one, the configured one, one that is here, or tiny."""

from dataclasses import dataclass
from enum import StrEnum

from sfvqa.inference.fit import quantizations_on
from sfvqa.inference.locate import is_downloaded
from sfvqa.inference.plan import AUTO, make_plan, too_much
from sfvqa.inference.quantized_copies import copies_alone
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
    named: str | None = None,
    *,
    configured: str | None = None,
    device: str = AUTO,
    dtype: str = AUTO,
    quantization: str = AUTO,
    device_must_be_here: bool = True,
) -> ModelChoice:
    """Choose the model named, else configured, else downloaded and, in some quantization, not too large, else tiny.

    Of a model that is not downloaded a kept copy will do, when it is in the `quantization` that is asked for. Looks on
    this machine only. A name is not checked here: loading it is what tells.
    """
    if named:
        return ModelChoice(named, ChoiceSource.NAMED, f"Using {named}.")
    if configured:
        return ModelChoice(configured, ChoiceSource.CONFIGURED, f"Using {configured}, as configured.")
    too_large = []
    for spec in load_registry():
        if spec.is_bundled:
            continue
        downloaded = is_downloaded(spec)
        kept = [] if downloaded else [copy.provenance.quantization for copy in copies_alone(spec)]
        if not downloaded and not (kept if quantization == AUTO else quantization in kept):
            continue
        sizes = read_sizes(spec.name)
        plan = make_plan(sizes, device=device, dtype=dtype, device_must_be_here=device_must_be_here)
        if not downloaded and plan.run.quantization not in quantizations_on(plan.device.type):
            continue
        if plan.fit.fits:
            why = "which is downloaded" if downloaded else f"which is kept here in {' and '.join(kept)}"
            return ModelChoice(spec.name, ChoiceSource.DOWNLOADED, f"Using {spec.name}, {why}.")
        too_large.append(too_much(plan))
    tiny = load_registry().find(BUNDLED_MODEL)
    why = f" ({'; '.join(too_large)})" if too_large else ""
    return ModelChoice(
        tiny.name,
        ChoiceSource.BUNDLED,
        f"Using the bundled {tiny.name}{why}: it can answer questions about {tiny.can_answer}. "
        "See `sfvqa demo`, and `sfvqa models list` for other models.",
    )
