"""What is known of a model before it is loaded: sizes, strides, training; torch only for a folder's config.json."""

from dataclasses import dataclass
from pathlib import Path

from sfvqa.inference.locate import find
from sfvqa.inference.quantized_copies import copies_alone
from sfvqa.inference.trained_with import TrainedWith, read_trained_with
from sfvqa.registry import Architecture, FastTokens, ModelSpec, QuantizationName


@dataclass(frozen=True)
class ModelSizes:
    """`stored_dtype` and `quantization` are as its files or models.toml say; a folder has no `spec`.

    `kept_as`: of a model whose own files are not here, the quantizations of the copies that are, best first.
    """

    name: str
    sizes: Architecture
    fast: FastTokens
    trained_with: TrainedWith
    stored_dtype: str | None
    quantization: QuantizationName
    training_max_length: int | None
    spec: ModelSpec | None = None
    kept_as: tuple[QuantizationName, ...] = ()

    @property
    def stored_quantization(self) -> QuantizationName:
        """What the weights are stored in; of a registered model they are never quantized."""
        is_copy = self.spec is None and self.quantization is not QuantizationName.AUTO
        return self.quantization if is_copy else QuantizationName.NONE


def read_sizes(model: str | Path, *, random_weights: bool = False) -> ModelSizes:
    """Of a registered model by models.toml, of a checkpoint folder by its config.json. Raises ModelError.

    For `random_weights` no copy is of use, so that none is looked for.
    """
    found = find(model)
    trained_with = read_trained_with(found)
    if isinstance(found, ModelSpec):
        kept = () if random_weights else copies_alone(found)
        return ModelSizes(
            found.name,
            found.architecture,
            found.fast_tokens,
            trained_with,
            "bfloat16",
            found.quantization,
            found.training_max_length,
            found,
            tuple(QuantizationName(copy.provenance.quantization) for copy in kept),
        )
    from sfvqa.inference.architecture import architecture_of, fast_tokens_of
    from sfvqa.model import read_config, read_quantization

    config, stored = read_config(found), QuantizationName(read_quantization(found).value)
    dtype = None if config.dtype is None else str(config.dtype).removeprefix("torch.")
    default = QuantizationName.AUTO if stored is QuantizationName.NONE else stored
    return ModelSizes(
        str(model),
        architecture_of(config),
        fast_tokens_of(config),
        trained_with,
        dtype,
        default,
        config.training_max_length,
    )
