"""What a training run is asked for: FineTuning, whose fields are the flags of the command, checked when it is built."""

import difflib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from transformers.training_args import OptimizerNames

from sfvqa.checkpoints.device import resolve_device
from sfvqa.errors import UsageError
from sfvqa.training.rates import Part
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingStrategy

BEST_BY = ("loss", "exact", "relaxed")
LOGGERS = ("tensorboard", "trackio", "wandb")
PRECISIONS = ("float32", "bfloat16", "float16")

_HIGHEST_SEED = 2**32 - 1  # numpy's


class Stage(IntEnum):
    """What is learned: the paper's two stages (section 4.1)."""

    BRIDGE = 1
    """What is new: slow attention, and the projector of a converted decoder. All else stays as it is."""
    ALL = 2
    """Everything."""


def _flag(said: str, *, least: int | None = None, kind: Any = None, choices: Any = None) -> dict[str, Any]:
    """What the command line knows of an option; `kind` makes a value of its text, where the default's type does not."""
    return {"help": said, "least": least, "kind": kind, "choices": choices and list(choices)}


@dataclass(frozen=True)
class FineTuning:
    """Options of a run; `num_frames`, `sampling` and `crop` None are as in the checkpoint's own training.

    Lengths are optimizer steps. `precision` is what is computed in and what frozen weights are kept in; those that
    learn and the optimizer stay in float32.
    `isolate_reading` costs half a second a video. Raises UsageError when built.
    """

    stage: Stage = field(
        default=Stage.ALL,
        metadata=_flag(
            "1: train only slow attention, and the projector of a converted decoder; 2: train everything",
            kind=int,
            choices=map(int, Stage),
        ),
    )
    num_frames: int | None = field(
        default=None, metadata=_flag("frames per video (default: as in the checkpoint's training)", least=1, kind=int)
    )
    sampling: SamplingStrategy | None = field(
        default=None,
        metadata=_flag(
            "how frames are chosen (default: as in the checkpoint's training)",
            kind=SamplingStrategy,
            choices=[kind for kind in SamplingStrategy if kind.needs_number_alone],
        ),
    )
    crop: CropMode | None = field(
        default=None,
        metadata=_flag(
            "how frames are made square (default: as in the checkpoint's training)", kind=CropMode, choices=CropMode
        ),
    )
    num_epochs: float = field(default=1.0, metadata=_flag("times that every row is learned from"))
    num_steps: int | None = field(
        default=None, metadata=_flag("optimizer steps, instead of --num-epochs", least=1, kind=int)
    )
    batch_size: int = field(default=1, metadata=_flag("rows per device and batch", least=1))
    group_by_length: bool = field(default=False, metadata=_flag("put rows of like length into a batch"))
    shuffle_rows: int = field(
        default=100,
        metadata=_flag("rows of a stream that lie on disk at a time, to be shuffled; 1 keeps their order", least=1),
    )
    accumulation: int = field(default=1, metadata=_flag("batches per step", least=1))
    learning_rate: float = field(
        default=2e-5, metadata=_flag("highest learning rate, of all parts that have none of their own")
    )
    tower_learning_rate: float | None = field(
        default=None, metadata=_flag("learning rate of the vision tower, if another", kind=float)
    )
    bridge_learning_rate: float | None = field(
        default=None,
        metadata=_flag(
            "learning rate of the bridge from the tower to the decoder, in place of --learning-rate", kind=float
        ),
    )
    slow_learning_rate: float | None = field(
        default=None, metadata=_flag("learning rate of slow attention, if another", kind=float)
    )
    decoder_learning_rate: float | None = field(
        default=None,
        metadata=_flag("learning rate of the decoder, or of its LoRA, if another", kind=float),
    )
    optimizer: str = field(
        default="adamw_torch_fused",
        metadata=_flag("optimizer, by transformers' name, such as adamw_bnb_8bit"),
    )
    lora_rank: int | None = field(
        default=None,
        metadata=_flag(
            "LoRA: learn slow attention in full, and of the decoder products of this rank; the result is an adapter",
            least=1,
            kind=int,
        ),
    )
    lora_alpha: int | None = field(default=None, metadata=_flag("scale of LoRA (default: twice its rank)", kind=int))
    lora_dropout: float = field(
        default=0.0, metadata=_flag("share of what goes into LoRA's products that is left out at random", least=0)
    )
    lora_tower: bool = field(default=False, metadata=_flag("learn LoRA's products for the vision tower as well"))
    quantization: str = field(
        default="none", metadata=_flag("4bit: hold the decoder in 4 bits meanwhile (QLoRA)", choices=("none", "4bit"))
    )
    warmup_share: float = field(default=0.03, metadata=_flag("share of the steps in which the learning rate rises"))
    weight_decay: float = field(
        default=0.0, metadata=_flag("how strongly weights are drawn to zero, as in AdamW", least=0)
    )
    max_gradient_norm: float = field(
        default=1.0, metadata=_flag("longer gradients are shortened to this norm; 0 leaves them as they are", least=0)
    )
    precision: str = field(
        default="float32",
        metadata=_flag("precision to compute in; trained weights stay in float32", choices=PRECISIONS),
    )
    gradient_checkpointing: bool = field(default=False, metadata=_flag("save memory by computing activations twice"))
    freeze_vision: bool = field(default=False, metadata=_flag("freeze the vision tower in stage 2 too"))
    skip_unreadable: bool = field(default=False, metadata=_flag("skip videos that cannot be read, with a warning"))
    isolate_reading: bool = field(default=False, metadata=_flag("read each video in a process that can be killed"))
    save_every: int = field(default=500, metadata=_flag("steps between saved states", least=1))
    num_kept: int = field(default=2, metadata=_flag("saved states to keep, each three times the model's size", least=1))
    log_every: int = field(default=10, metadata=_flag("steps between log lines", least=1))
    validation: str | None = field(
        default=None,
        metadata=_flag(
            "measure the model whenever a state is saved, on this file of conversations or on this share of the videos "
            "(0.1), which is then not learned from; the best state becomes the checkpoint",
            kind=str,
        ),
    )
    best_by: str = field(
        default="loss", metadata=_flag("which figure of the validation says which state is best", choices=BEST_BY)
    )
    patience: int | None = field(
        default=None, metadata=_flag("stop after so many validations in a row without a better one", least=1, kind=int)
    )
    against_base: str | None = field(
        default=None,
        metadata=_flag(
            "measure this model too, by name or folder: the one that a slow path was added to, say", kind=str
        ),
    )
    log: str = field(default="none", metadata=_flag("where figures are sent as well", choices=("none", *LOGGERS)))
    cache: Path | None = field(
        default=None,
        metadata=_flag(
            "folder for what a frozen vision tower makes of the videos, which further runs may share (default: in the "
            "output folder, until the run is done)",
            kind=Path,
        ),
    )
    cache_gigabytes: float = field(
        default=10.0,
        metadata=_flag("most that this may take; 0 runs a frozen tower anew in every epoch", least=0),
    )
    num_workers: int = field(default=0, metadata=_flag("processes that read videos ahead", least=0))
    seed: int = field(
        default=0,
        metadata=_flag("seed of all that is random: the order of rows, which are drawn, new weights", least=0),
    )
    device: str = field(default="auto", metadata=_flag("auto (a GPU if there is one) or cpu"))

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if None not in (value, least) and not (math.isfinite(value) and value >= least):
                raise UsageError(f"{each.name} is {value}.", f"It must be at least {least}.")
        for name in ("num_epochs", "learning_rate", "lora_alpha", *(f"{part}_learning_rate" for part in Part)):
            if (value := getattr(self, name)) is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value}.", "It must be a number above 0.")
        if not 0 <= self.warmup_share < 1:  # Trainer would take more for a number of steps
            raise UsageError(f"warmup_share is {self.warmup_share}.", "It must be at least 0 and below 1.")
        self._check_optimizer()
        if self.seed > _HIGHEST_SEED:
            raise UsageError(f"seed is {self.seed}.", f"It must be at most {_HIGHEST_SEED}.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"There is no precision {self.precision!r}.", f"Use one of {', '.join(PRECISIONS)}.")
        if self.best_by not in BEST_BY:
            raise UsageError(f"There is no figure {self.best_by!r}.", f"Use one of {', '.join(BEST_BY)}.")
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise UsageError(f"The share for validation is {self.validation}.", "It must be between 0 and 1.")
        given = {each.name for each in fields(self) if getattr(self, each.name) != each.default}
        for names, is_so, why, remedy in _WITHOUT_EFFECT:
            if (useless := sorted(names & given)) and is_so(self):
                raise UsageError(f"{useless[0]} has no effect: {why}.", remedy)
        self._check_log()
        if self.device not in ("auto", "cpu"):
            raise UsageError(
                f"Training runs on auto or cpu, not {self.device!r}.", "Choose GPUs with CUDA_VISIBLE_DEVICES."
            )
        if self.precision == "float16" and resolve_device(self.device).type == "cpu":
            # Trainer would compute in float32 without a word
            raise UsageError("A CPU cannot train in float16.", "Use bfloat16.")

    @property
    def rates(self) -> dict[Part, float]:
        """The parts of the network that learn at a rate of their own."""
        own = {part: getattr(self, f"{part}_learning_rate") for part in Part}
        return {part: rate for part, rate in own.items() if rate is not None}

    @property
    def validation_share(self) -> float | None:
        """The share of the videos that is held out, where that is asked for."""
        try:
            return None if self.validation is None else float(self.validation)
        except ValueError:
            return None

    @property
    def validation_file(self) -> Path | None:
        """The file that is validated on, where that is asked for."""
        return None if self.validation is None or self.validation_share is not None else Path(self.validation)

    @property
    def tower_is_frozen(self) -> bool:
        """Whether the vision tower stays as it is."""
        by_lora_alone = self.lora_rank is not None and not self.lora_tower
        return self.stage is Stage.BRIDGE or self.freeze_vision or by_lora_alone

    def _check_optimizer(self) -> None:
        if self.optimizer not in list(OptimizerNames):
            near = difflib.get_close_matches(self.optimizer, list(OptimizerNames), n=3, cutoff=0.3)
            names = ", ".join(near or ["adamw_torch_fused", "adamw_bnb_8bit", "adafactor"])
            raise UsageError(f"There is no optimizer {self.optimizer!r}.", f"Use one such as {names}.")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout is {self.lora_dropout}.", "It must be at least 0 and below 1.")

    def _check_log(self) -> None:
        if self.log == "none":
            return
        if self.log not in LOGGERS:
            raise UsageError(f"Nothing is logged to {self.log!r}.", f"Use one of none, {', '.join(LOGGERS)}.")
        if importlib.util.find_spec(self.log) is None:
            raise UsageError(
                f"Logging to {self.log} needs the package {self.log}, which is not installed.",
                f"Install it (`pip install {self.log}`), or leave out --log.",
            )


_WITHOUT_EFFECT: tuple[tuple[set[str], Callable[[FineTuning], bool], str, str], ...] = (
    ({"num_epochs"}, lambda run: run.num_steps is not None, "num_steps says when the run ends", "Give one of the two."),
    (
        {"freeze_vision", "lora_rank", "lora_tower", "tower_learning_rate", "decoder_learning_rate"},
        lambda run: run.stage is Stage.BRIDGE,
        "stage 1 leaves the vision tower and the decoder as they are",
        "Leave it out, or use --stage 2.",
    ),
    (
        {"lora_alpha", "lora_dropout", "lora_tower", "quantization"},
        lambda run: run.lora_rank is None,
        "it is of LoRA, without which no decoder is in 4 bits",
        "Give --lora-rank 16.",
    ),
    ({"freeze_vision"}, lambda run: run.lora_tower, "lora_tower trains the vision tower", "Give one of the two."),
    ({"tower_learning_rate"}, lambda run: run.tower_is_frozen, "the vision tower is frozen", "Leave it out."),
    (
        {"best_by", "patience", "against_base"},
        lambda run: run.validation is None,
        "nothing is validated",
        "Add --validation.",
    ),
    (
        {"cache", "cache_gigabytes"},
        lambda run: not run.tower_is_frozen,
        "nothing is kept of what a vision tower that learns makes of a video",
        "Leave it out, or use --freeze-vision.",
    ),
    ({"cache"}, lambda run: run.cache_gigabytes == 0, "cache_gigabytes 0 keeps nothing", "Give one of the two."),
)
"""Options that are refused, once they are not their default; where they have no effect, and why."""
