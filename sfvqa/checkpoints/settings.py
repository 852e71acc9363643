"""Which model is to run, and how: the one value that planning, loading, batches and profiles pass on."""

from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"


@dataclass(frozen=True)
class ModelSettings:
    """A model by its name in models.toml or its folder, and how it is to run; `auto` is decided by the machine.

    - `device`: auto, cpu, cuda, cuda:N or mps; `dtype`: auto, float32, bfloat16 or float16.
    - `attention`: sdpa, eager or flash_attention_2; `quantization`: none, 8bit, 4bit or auto.
    - `random_weights`: build a model of models.toml without its weights, to measure it.
    """

    name: str | Path
    device: str = AUTO
    dtype: str = AUTO
    attention: str = "sdpa"
    quantization: str = AUTO
    random_weights: bool = False
