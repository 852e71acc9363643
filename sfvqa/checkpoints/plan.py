"""Choose the model and how it runs by the free memory, without reading weights."""

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import LlamaConfig, Qwen2Config

from sfvqa.checkpoints.device import free_memory_bytes, is_here, resolve_device
from sfvqa.checkpoints.find import AUTO, ModelSettings, is_downloaded
from sfvqa.checkpoints.gpus import computes_in_bfloat16, why_unusable
from sfvqa.checkpoints.known import ModelSizes, read_sizes
from sfvqa.checkpoints.memory import (
    ITEM_BYTES,
    MAX_NEW_TOKENS,
    NUM_TEXT_TOKENS,
    Fit,
    RunSize,
    choose_fit,
    estimate_memory,
    frame_counts,
    gigabytes,
    quantizations_on,
    remedy_for,
)
from sfvqa.checkpoints.placement import (
    free_bytes_by_gpu,
    free_on_several,
    resolve_attention,
    resolve_dtype,
    resolve_quantization,
)
from sfvqa.errors import OutOfMemoryError, PromptTooLongError
from sfvqa.model import SlowFastConfig
from sfvqa.model.decode_step import StaticDecode, check_static_decode, decodes_static, why_not_static
from sfvqa.model.families import vision_type_of
from sfvqa.model.quantization import Quantization, refuse_other
from sfvqa.registry import (
    BUNDLED_MODEL,
    SUGGESTED_MODEL,
    Architecture,
    FastTokens,
    ModelSpec,
    QuantizationName,
    find_model,
    load_registry,
)
from sfvqa.registry.architecture import num_layout_tokens, prompt_size
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.registry.architecture import FamilyName

_OF_DECODER = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "max_position_embeddings", "tie_word_embeddings"),
)
_OF_NETWORK = ("video_pooling_stride", "hybrid_layers", "slow_attention_scope", "gating")
"""What models.toml and a config call by the same name."""


def config_of(spec: ModelSpec) -> SlowFastConfig:
    """The config of a registered model, from models.toml alone; equal to that in its checkpoint."""
    sizes = spec.architecture
    return SlowFastConfig(
        vision_config=_vision_fields(sizes),
        text_config=(LlamaConfig if sizes.family == "smolvlm" else Qwen2Config)(
            num_hidden_layers=sizes.num_layers,
            rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
            **{name: getattr(sizes, name) for name in _OF_DECODER},
        ),
        training_num_frames=spec.num_frames,
        training_max_length=spec.training_max_length,
        dtype="bfloat16",
        **{name: getattr(sizes, name) for name in _OF_NETWORK},
        **asdict(spec.fast_tokens),
    )


def _vision_fields(sizes: Architecture) -> dict[str, Any]:
    if sizes.family == "slowfast":
        return {"image_size": sizes.image_size, "depths": sizes.vision_depths, "dims": sizes.vision_dims}
    fields = {
        "model_type": vision_type_of(sizes.family),
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "num_hidden_layers": sizes.vision_layers,
        "hidden_size": sizes.vision_width,
        "intermediate_size": sizes.vision_intermediate_size,
        "scale_factor": sizes.scale_factor,
    }
    return {name: value for name, value in fields.items() if value is not None}


def architecture_of(config: SlowFastConfig) -> Architecture:
    """The sizes of a network, from its config."""
    decoder: Any = config.decoder_config
    is_qwen2 = isinstance(decoder, Qwen2Config)
    has_biases = bool(getattr(decoder, "attention_bias", False))
    return Architecture(
        image_size=config.vision.image_size,
        family=cast("FamilyName", config.family.name),
        **_vision_sizes(config),
        num_layers=decoder.num_hidden_layers,
        rope_theta=float(decoder.rope_parameters["rope_theta"]),
        head_dim=getattr(decoder, "head_dim", None) or 0,
        has_qkv_biases=is_qwen2 or has_biases,
        has_output_bias=has_biases and not is_qwen2,
        has_query_key_norms=decoder.model_type == "qwen3",
        **{name: getattr(decoder, name) for name in _OF_DECODER},
        **{name: getattr(config, name) for name in _OF_NETWORK} | {"hybrid_layers": tuple(config.hybrid_layers)},
    )


def _vision_sizes(config: SlowFastConfig) -> dict[str, Any]:
    vision = config.vision
    if config.family.name == "slowfast":
        return {"vision_depths": tuple(vision.depths), "vision_dims": tuple(vision.dims)}
    return {
        "patch_size": vision.patch_size,
        "vision_layers": vision.num_hidden_layers,
        "vision_width": vision.hidden_size,
        "vision_intermediate_size": vision.intermediate_size,
        "scale_factor": getattr(vision, "scale_factor", None),
    }


def fast_tokens_of(config: SlowFastConfig) -> FastTokens:
    """How a network averages its fast tokens, from its config."""
    return FastTokens(**{field.name: getattr(config, field.name) for field in fields(FastTokens)})


def check_positions(sizes: Architecture, fast: FastTokens, num_frames: int) -> None:
    """PromptTooLongError where a video's fast tokens alone leave no question room: what encodes it may take minutes."""
    num_text, positions = num_layout_tokens(sizes, fast, num_frames), sizes.max_position_embeddings
    length = prompt_size(sizes, fast, num_frames, num_text).length
    if length >= positions:
        raise PromptTooLongError(
            f"{plural(num_frames, 'frame')} put {plural(length, 'token')} into the prompt, "
            f"and the model has {plural(positions, 'position')} for prompt and answer.",
            "Use fewer frames (--frames).",
        )


SMALL_CHUNK_SIZE = 1  # frames in the vision tower at a time, once memory ran out


def what_should_fit(
    config: SlowFastConfig,
    num_frames: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: QuantizationName,
    free_bytes: int | None,
    is_loaded: bool,
) -> str:
    """The remedy for a question about `num_frames` frames that does not fit into `free_bytes`.

    What a model that `is_loaded` takes counts as free: the next try begins anew.
    """
    sizes, fast = architecture_of(config), fast_tokens_of(config)
    name = str(dtype).removeprefix("torch.")
    num_text = NUM_TEXT_TOKENS + num_layout_tokens(sizes, fast, num_frames)
    run = RunSize(
        num_frames,
        name,
        device.type,
        quantization,
        num_text,
        chunk_size=SMALL_CHUNK_SIZE,
        static_decode=device.type == "cuda",
    )
    if free_bytes is not None and is_loaded:
        held = estimate_memory(sizes, fast, run)
        free_bytes += held.weights_bytes + held.process_bytes
    return remedy_for(sizes, fast, run, free_bytes)


@dataclass(frozen=True)
class Plan:
    """How a question will run. `notices` say what was chosen where it was left open; `free_bytes` None is unknown.

    `warnings` are of the device: a GPU that is not used, a dtype that it lacks.
    `settings` have the quantization that is chosen; `was_chosen` says whether it was ours to choose.
    """

    settings: ModelSettings
    sizes: ModelSizes
    device: torch.device
    free_bytes: int | None
    fit: Fit
    notices: tuple[str, ...]
    was_chosen: bool
    warnings: tuple[str, ...] = ()

    @property
    def run(self) -> RunSize:
        """Frames, quantization, dtype."""
        return self.fit.run

    @property
    def remedy(self) -> str:
        """What would fit if this does not."""
        return remedy_for(self.sizes.sizes, self.sizes.fast, self.run, self.free_bytes)

    @property
    def too_much(self) -> str:
        """A clause that says how much memory is needed and free."""
        run = self.run
        kind = "unquantized" if run.quantization is QuantizationName.NONE else f"in {run.quantization}"
        return (
            f"{self.sizes.name} {kind} with {plural(run.num_frames, 'frame')} needs about "
            f"{gigabytes(self.fit.estimate.needed_bytes)} on {self.device}, "
            f"where {gigabytes(self.free_bytes or 0)} are free"
        )

    def check(self) -> tuple[str, ...]:
        """Return the warnings, with one more if explicit settings may not fit.

        That is tried, since an estimate may be wrong. Raises OutOfMemoryError where not even the smallest of the
        choices fits: what is left to us is not tried.
        """
        if self.fit.fits:
            return self.warnings
        error = OutOfMemoryError(f"{self.too_much}.", self.remedy)
        if self.was_chosen:
            raise error
        return (*self.warnings, error.with_flags)


def make_plan(
    settings: ModelSettings,
    sizes: ModelSizes,
    *,
    num_frames: int | None = None,
    fewer_frames: bool = False,
    num_text_tokens: int = NUM_TEXT_TOKENS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 1,
    num_videos: int = 1,
    static_decode: str = StaticDecode.AUTO,
    device_must_be_here: bool = True,
) -> Plan:
    """Choose open settings by the free memory, without reading weights.

    `num_frames` None is as many as in training; `fewer_frames` lets them be fewer where they do not fit. `auto`
    quantization is the model's own, and where that is auto too, the best that fits; `static_decode` leaves out what
    cannot be decoded so. Of a device that need not be here the free memory is unknown. Raises UsageError for a device,
    dtype, attention or quantization that is not there.
    """
    where, computed = resolve_place(settings, sizes, device_must_be_here=device_must_be_here)
    num_wanted = num_frames or sizes.trained_with.sampling.num_frames
    run = RunSize(
        num_frames=num_wanted,
        dtype=str(computed).removeprefix("torch."),
        device=where.type,
        num_text_tokens=num_text_tokens + num_layout_tokens(sizes.sizes, sizes.fast, num_wanted),
        max_new_tokens=max_new_tokens,
        attention=resolve_attention(settings.attention, where, computed).value,
        batch_size=batch_size,
        num_videos=num_videos,
    )
    kinds = _quantizations(sizes, QuantizationName(settings.quantization), where)
    given = kinds[0] if len(kinds) == 1 else AUTO
    against = why_not_static(attention=settings.attention, quantization=given)
    check_static_decode(static_decode, against)
    is_static = decodes_static(static_decode, against, where)
    if static_decode == StaticDecode.ON:
        kinds = tuple(kind for kind in kinds if kind is not QuantizationName.EIGHT_BIT)
    run = replace(run, static_decode=is_static and not free_bytes_by_gpu(settings.device, where))
    counts = frame_counts(run.num_frames) if fewer_frames else [run.num_frames]
    for kind in kinds:
        free = free_bytes_for(settings.device, where, sizes, replace(run, quantization=kind))
        tried = counts if kind is kinds[-1] else counts[:1]
        fit = choose_fit(sizes.sizes, sizes.fast, run, free, quantizations=[kind], frames=tried)
        if fit.fits:
            break
    notices = []
    if settings.dtype == AUTO and run.dtype != sizes.auto_dtype(where.type):
        notices.append(f"Computing in {run.dtype}: the GPU has no {sizes.auto_dtype(where.type)}.")
    if fit.fits:
        beside = "" if free is None else f" of the {gigabytes(free)} that are free on {where}"
        needs = f"about {gigabytes(fit.estimate.needed_bytes)}{beside}"
        kind, num_chosen = fit.run.quantization, fit.run.num_frames
        if kind is not kinds[0]:
            notices.append(f"Using {kind}, the best quantization that fits: it needs {needs}.")
        if num_chosen != counts[0]:
            notices.append(f"Using {num_chosen} of {counts[0]} frames, the most that fit: they need {needs}.")
    chosen = replace(settings, quantization=fit.run.quantization.value)
    warnings = warnings_about(settings.device, where, computed)
    return Plan(chosen, sizes, where, free, fit, tuple(notices), len(kinds) > 1, warnings)


def free_bytes_for(asked: str, where: torch.device, sizes: ModelSizes, run: RunSize) -> int | None:
    """The free memory that a run may have: of its device, or of several GPUs as `place` will use them."""
    by_gpu = free_bytes_by_gpu(asked, where)
    if not by_gpu:
        return free_memory_bytes(where)
    estimate, of = estimate_memory(sizes.sizes, sizes.fast, run), sizes.sizes
    head = of.vocab_size * of.hidden_size * ITEM_BYTES[run.dtype]
    return free_on_several(estimate, by_gpu, max(head, estimate.weights_bytes // of.num_layers))


def resolve_place(
    settings: ModelSettings, sizes: ModelSizes, *, device_must_be_here: bool = True
) -> tuple[torch.device, torch.dtype]:
    """Resolve the device and dtype of a model; `auto` is float16 on a GPU without bfloat16. UsageError if one is
    unavailable.
    """
    where = resolve_device(settings.device, must_be_here=device_must_be_here)
    auto = sizes.auto_dtype(where.type)
    return where, resolve_dtype(settings.dtype, "float16" if auto == "bfloat16" and _emulates(where) else auto)


def _emulates(where: torch.device) -> bool:
    return where.type == "cuda" and is_here(where) and not computes_in_bfloat16(where.index)


def warnings_about(asked: str, where: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """What makes a device worse than expected: a GPU that `auto` could not take, bfloat16 that is emulated."""
    if asked == AUTO and where.type == "cpu" and (error := why_unusable()):
        return (f"Computing on the CPU. {error.with_flags}",)
    if dtype is torch.bfloat16 and _emulates(where):
        return (
            "The GPU has no bfloat16 and emulates it slowly; --dtype float16 is faster, --dtype float32 more exact.",
        )
    return ()


def _quantizations(model: ModelSizes, asked: QuantizationName, device: torch.device) -> tuple[QuantizationName, ...]:
    """Candidates, best first: the requested quantization, else the model's own, else all supported.

    UsageError for what loading would refuse.
    """
    if asked is QuantizationName.AUTO:
        asked = model.quantization
    if asked is QuantizationName.AUTO:
        return quantizations_on(device.type)
    kind = resolve_quantization(asked, device, Quantization.NONE)
    if model.spec is None and model.quantization is not QuantizationName.AUTO:  # a folder that is stored quantized
        refuse_other(model.name, Quantization(model.quantization.value), kind)
    return (asked,)


@dataclass(frozen=True)
class ModelChoice:
    """The model to load, the reason, and a sentence for each local model that is too large."""

    model: str
    reason: str
    too_large: tuple[str, ...] = ()

    @property
    def is_for_want_of_another(self) -> bool:
        """Whether no model for people's own videos is here and fits."""
        return self.model == BUNDLED_MODEL


def choose_model(*, device: str = AUTO, dtype: str = AUTO, device_must_be_here: bool = True) -> ModelChoice:
    """Choose the first model that is downloaded and, in some quantization, not too large, else tiny.

    Looks on this machine only.
    """
    too_large: list[str] = []
    for spec in load_registry():
        if spec.is_bundled or not is_downloaded(spec):
            continue
        asked = ModelSettings(spec.name, device, dtype)
        plan = make_plan(asked, read_sizes(spec.name), device_must_be_here=device_must_be_here)
        if plan.fit.fits:
            return ModelChoice(spec.name, f"Using {spec.name}, which is downloaded.", tuple(too_large))
        too_large.append(f"{plan.too_much}.")
    suggested = find_model(SUGGESTED_MODEL)
    reason = (
        f"Using the bundled {BUNDLED_MODEL}, for synthetic videos only. For your own videos: "
        f"`sfvqa models pull {suggested.name}` ({readable_size(suggested.size_bytes)}, {suggested.license})."
    )
    return ModelChoice(BUNDLED_MODEL, reason, tuple(too_large))
