"""The model of a command: its options, which one that is, whether its plan fits, and loading it."""

import contextlib
import gc
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sfvqa.checkpoints import duration
from sfvqa.checkpoints.adapter import Adapter, how_to_use
from sfvqa.checkpoints.find import ModelSettings, expected_model, find, find_for_random_weights, locate
from sfvqa.cli.options import OptionGroup, option, rare_setting, setting
from sfvqa.errors import UsageError
from sfvqa.registry import ModelSpec, load_registry
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.inference.video_qa import VideoQA

# The names of the library's enums, written out because importing those would import torch; a test compares.
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quant = Literal["auto", "none", "8bit", "4bit"]

_CHARACTERS_A_TOKEN = 3  # of a question, rather too few than too many
_TEMPLATE_TOKENS = 32  # of the chat template around it
_TYPICAL_NEW_TOKENS = 50  # of an answer
_WORTH_MEASURING = 1e12  # operations: what any CPU does in a minute


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """The models that can be named, for the shell."""

    return [(spec.name, spec.description) for spec in load_registry() if spec.name.startswith(incomplete)]


def complete_any_model(incomplete: str) -> list[tuple[str, str]]:
    """The same, and the speech models."""
    registry = load_registry()
    among = (*registry.models, *registry.speech)
    return [(spec.name, spec.description) for spec in among if spec.name.startswith(incomplete)]


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not a device; use auto, cpu, mps, cuda or cuda:N.")
    return value


def _named(metavar: str, text: str) -> Any:
    return typer.Argument(metavar=metavar, help=text, autocompletion=complete_any_model, show_default=False)


AnyName = Annotated[str, _named("NAME", "A name from `sfvqa models list`.")]
NameOrFolder = Annotated[str, _named("NAME|FOLDER", "A name from `sfvqa models list`, or a checkpoint folder.")]
NamedModel = Annotated[
    str | None,
    setting(
        "A name from `sfvqa models list`, or a checkpoint folder (default: a downloaded model, else tiny).",
        "--model",
        "-m",
        metavar="NAME|FOLDER",
        autocompletion=complete_model,
        rich_help_panel="The model",
    ),
]
Device = Annotated[str, setting("auto, cpu, mps, cuda or cuda:N.", metavar="NAME", callback=_check_device)]
DtypeOption = Annotated[Dtype, rare_setting("auto, float32, bfloat16 or float16.", metavar="NAME")]
QuantOption = Annotated[
    Quant, setting("Quantization of the decoder: none (as published), 8bit, 4bit or auto.", metavar="NAME")
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(OptionGroup):
    """Which model answers, None leaves it to us, and how it runs."""

    panel = "The model"

    model: NamedModel = None
    adapter: Annotated[
        Path | None,
        option("The folder of a LoRA adapter of that model, as training writes it.", metavar="FOLDER", hidden=True),
    ] = None
    device: Device = "auto"
    quant: QuantOption = "auto"
    dtype: DtypeOption = "auto"
    attention: Annotated[Attention, rare_setting("sdpa, eager or flash_attention_2.", metavar="NAME")] = "sdpa"
    random_weights: Annotated[
        bool,
        option("Use random weights, to measure time and memory; the answers are meaningless.", hidden=True),
    ] = False

    def settings(self, name: str) -> ModelSettings:
        """The same as one value, for the model of that name."""
        adapter = None if self.adapter is None else str(self.adapter.expanduser().absolute())  # as a server knows it
        return ModelSettings(name, self.device, self.dtype, self.attention, self.quant, self.random_weights, adapter)

    def check(self, *, needs_weights: bool = True) -> None:
        """ModelError, before torch is imported, for a model that is named and unknown or not on this machine.

        So with an adapter; UsageError for one without the model that it belongs to.
        """
        if self.adapter is not None:
            Adapter.of(self.adapter)
        if self.model is None:
            if self.adapter is not None:
                raise UsageError("An adapter belongs to one model.", how_to_use(self.adapter))
            return
        if self.random_weights:
            find_for_random_weights(self.model)
        elif needs_weights:
            locate(self.model)
        else:
            find(self.model)

    def expected(self) -> ModelSpec | None:
        """The registered model that `choose` will name, as far as that is known without torch. ModelError."""
        found = expected_model() if self.model is None else find(self.model)
        return found if isinstance(found, ModelSpec) else None

    def say_if_configured(self, notices: "Notices") -> None:
        """Say which model was set for good."""
        if self.model is not None and not self.is_flag("model"):
            notices.detail(f"Using {self.model}, as configured.")

    def choose(self, notices: "Notices", *, device_must_be_here: bool = True) -> "ModelSizes":
        """The model that is named, else one that is here and fits, else the bundled one; says which, if none is named.

        Of what is only planned the device need not be here.
        """
        import_once("sfvqa.inference.video_qa", notices)
        from sfvqa.checkpoints.known import read_sizes
        from sfvqa.checkpoints.plan import choose_model

        if self.model is not None:
            self.say_if_configured(notices)
            return read_sizes(self.model, self.adapter)
        with notices.waiting("Choosing the model"):
            choice = choose_model(device=self.device, dtype=self.dtype, device_must_be_here=device_must_be_here)
        for sentence in choice.too_large:
            notices.hint(sentence)
        (notices.note if choice.is_for_want_of_another else notices.detail)(choice.reason)
        return read_sizes(choice.model)


def import_once(module: str, notices: "Notices") -> None:
    """Import torch, or a module that needs it and whatever else a model does, which takes seconds."""
    if module not in sys.modules:
        with notices.waiting("Loading PyTorch"), _without_collecting():
            importlib.import_module(module)


@contextlib.contextmanager
def _without_collecting() -> "Iterator[None]":
    """Look for no garbage while there is hardly any, and never again among what was made meanwhile.

    Looking again and again through a growing million of objects was a third of the time that importing took.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load(settings: ModelSettings, cache: "VideoCache | None", notices: "Notices") -> "VideoQA":
    """Load the model with the settings of its plan."""
    from sfvqa.checkpoints.load import load_checkpoint
    from sfvqa.inference.video_qa import VideoQA

    with notices.waiting("Loading the model"):
        return VideoQA(load_checkpoint(settings), video_cache=cache)


def num_question_tokens(questions: "Iterable[str]") -> int:
    """About how many tokens the longest takes, with the chat template around it."""
    return _TEMPLATE_TOKENS + max(map(len, questions), default=0) // _CHARACTERS_A_TOKEN


def check_fit(plan: "Plan", seconds: float | None, notices: "Notices") -> None:
    """OutOfMemoryError for what was ours to choose and does not fit; says what was chosen, and if it takes long."""
    for sentence in plan.notices:
        notices.detail(sentence)
    tell_duration(seconds, notices.hint)
    for warning in plan.check():
        notices.warn(warning)


def tell_duration(seconds: float | None, say: "Callable[[str], None]") -> None:
    """Say how long it takes on a CPU, where that is long."""

    if seconds is not None and seconds > duration.WORTH_SAYING_SECONDS:
        say(f"On this CPU this takes {describe_duration(seconds)}; use fewer frames (--frames) to shorten it.")


def describe_duration(seconds: float) -> str:
    """`about 12 minutes`."""
    if seconds < 90:
        return f"about {plural(round(seconds), 'second')}"
    return f"about {plural(round(seconds / 60), 'minute') if seconds < 5400 else plural(round(seconds / 3600), 'hour')}"


def seconds_on_cpu(plan: "Plan", num_questions: int, *, is_seen: bool) -> float | None:
    """About how long questions take, None on other devices; `is_seen` leaves out the vision tower."""

    if plan.device.type != "cpu":
        return None
    estimate, run = plan.fit.estimate, plan.run
    needed = duration.count_operations(
        plan.sizes.sizes,
        num_frames=0 if is_seen else run.num_frames,
        num_slow=estimate.num_slow_tokens,
        length=estimate.num_fast_tokens + run.num_text_tokens,
        num_new_tokens=_TYPICAL_NEW_TOKENS,
        num_questions=num_questions,
    )
    if needed.total <= _WORTH_MEASURING:
        return 0.0
    return duration.seconds_on_cpu(needed, duration.measure_cpu_speed(run.dtype))
