"""A folder with a LoRA adapter in PEFT's form: what it is, of which model, and what it changes.

Imports no torch; `sfvqa.model.adapter` holds its tensors. Beside PEFT's two files, `training.json` says how the model
looked at videos in training and which weights the adapter was trained on; one that was made elsewhere has none.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sfvqa.errors import CheckpointError, SfvqaError, UnknownModelError
from sfvqa.wording import command_line

if TYPE_CHECKING:
    from sfvqa.model.adapter import AdapterTensors
    from sfvqa.model.loading import StoredModel

ADAPTER_CONFIG, ADAPTER_WEIGHTS, TRAINING_FILE = "adapter_config.json", "adapter_model.safetensors", "training.json"
_SEEING = (".vision_tower.", ".projector.", ".multi_modal_projector.", ".vision_model.", ".connector.")
"""Parts of the names of tensors that decide what is seen of a video, ours and transformers'."""
_ALPHA_OF_PEFT = 8
_DATED = ":sampled:"
_FETCH_AGAIN = "Train it again, or fetch it again from where it came from."
_OTHERWISE = {"use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "layer_replication", "trainable_token_indices"}
_OTHERWISE |= {"target_parameters", "alpha_pattern", "megatron_config", "arrow_config", "corda_config", "eva_config"}
"""Settings of PEFT's with which a weight is changed otherwise than by the scaled product of two matrices."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


@dataclass(frozen=True)
class Adapter:
    """What the files of an adapter's folder say but for the tensors.

    `base` is how its training named the model, if it did; `trained` is what training.json holds. A product of rank r is
    scaled by `alpha`/r, or by `alpha`/√r.
    """

    folder: Path
    base: str | None
    alpha: float
    by_root_of_rank: bool
    trained: dict[str, Any]

    @classmethod
    def of(cls, folder: str | Path) -> Self:
        """Read a folder. UnknownModelError where it is none, CheckpointError for what cannot be merged."""
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise UnknownModelError(f"There is no folder {folder}.", "Name the folder of an adapter.")
        if not is_adapter(folder):
            raise CheckpointError(
                f"{folder} holds no adapter: it has no {ADAPTER_CONFIG}.",
                "A checkpoint goes to --model; an adapter's folder is written by `python -m sfvqa.training.finetune`.",
            )
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise CheckpointError(f"{folder} holds no {ADAPTER_WEIGHTS}.", _FETCH_AGAIN)
        fields = _read_object(folder / ADAPTER_CONFIG)
        if (kind := fields.get("peft_type")) != "LORA":
            raise CheckpointError(f"The adapter in {folder} is of type {kind}.", "Only LoRA adapters can be merged.")
        otherwise = sorted(name for name in _OTHERWISE if fields.get(name))
        if fields.get("bias", "none") != "none":
            otherwise.append("bias")
        if otherwise:
            raise CheckpointError(
                f"The adapter in {folder} was made with {', '.join(otherwise)}, which sfvqa does not read.",
                "Merge it where it was made (peft's `merge_and_unload`), and name the result with --model.",
            )
        alpha = fields.get("lora_alpha", _ALPHA_OF_PEFT)
        if not isinstance(alpha, int | float):
            raise CheckpointError(f"{folder / ADAPTER_CONFIG} has {alpha!r} as lora_alpha.", _FETCH_AGAIN)
        trained = _read_object(folder / TRAINING_FILE) if (folder / TRAINING_FILE).is_file() else {}
        base = fields.get("base_model_name_or_path")
        return cls(folder, str(base) if base else None, float(alpha), bool(fields.get("use_rslora")), trained)

    @property
    def base_identity(self) -> str | None:
        """Which weights it was trained on, as `identify_checkpoint` says it; None if that is not known."""
        return self.trained.get("base_identity")

    @property
    def base_quantization(self) -> str:
        """The quantization of the decoder in its training."""
        return str(self.trained.get("base_quantization", "none"))

    @property
    def changes_what_is_seen(self) -> bool:
        """Whether a video has other visual tokens with it than without it."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / ADAPTER_WEIGHTS, framework="np") as file:
                return any(part in f".{name}" for name in file.keys() for part in _SEEING)  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.folder / ADAPTER_WEIGHTS} is corrupt: {error}.", _FETCH_AGAIN) from error

    @property
    def identity(self) -> str:
        """A hash of its files as they are now."""
        from sfvqa.video.readers.local_file import hash_files  # with it comes numpy, which completion must not wait for

        names = [ADAPTER_CONFIG, ADAPTER_WEIGHTS, *([TRAINING_FILE] if self.trained else [])]
        try:
            return hash_files([self.folder / name for name in names])
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot be read: {error.strerror or error}.", _FETCH_AGAIN) from error

    @property
    def name(self) -> str:
        """What to call it: its folder's name, with that of the run it lies in."""
        return "/".join(self.folder.absolute().parts[-2:])

    def tensors(self, stored: "StoredModel") -> "AdapterTensors":
        """Its tensors for a checkpoint; CheckpointError names those that do not fit it."""
        from sfvqa.model.adapter import AdapterTensors

        return AdapterTensors.read(
            self.folder / ADAPTER_WEIGHTS,
            stored,
            alpha=self.alpha,
            by_root_of_rank=self.by_root_of_rank,
            base_quantization=self.base_quantization,
        )

    def warnings(self, model: str, identity: str) -> tuple[str, ...]:
        """That it was trained on other weights than those of a model, if that is known.

        Of large files an identity holds when they were written, which says nothing elsewhere.
        """
        if self.base_identity in (None, identity) or _DATED in identity:
            return ()
        return (f"The adapter {self.name} was trained on other weights than those of {model}: {self.base}.",)


def how_to_use(folder: Path) -> str:
    """The commands, for whoever takes an adapter for a model; or why it cannot be used."""
    try:
        base = Adapter.of(folder).base or "MODEL"
    except SfvqaError as error:
        return error.with_flags
    both = command_line([base, "--adapter", folder])
    return (
        f"Use it with its model (`sfvqa ask VIDEO QUESTION --model {both}`), or make one of both "
        f"with `python -m sfvqa.training.merge {both} --out FOLDER`."
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", _FETCH_AGAIN) from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.", _FETCH_AGAIN)
    return fields
