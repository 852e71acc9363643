"""Tensors one by one → the tensor files of a checkpoint folder and their index."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 500_000_000  # what a file adds to the memory while it is written, and when it is loaded


def write_shards(tensors: Iterable[list[tuple[str, Tensor]]], folder: Path) -> None:
    """Files of about SHARD_BYTES and their index; the tensors of one list, all of one weight, stay in one file."""
    weight_map: dict[str, str] = {}
    waiting: dict[str, Tensor] = {}
    num_files = 0

    def write() -> None:
        nonlocal num_files
        num_files += 1
        file = f"model-{num_files:05d}.safetensors"
        save_file(waiting, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(waiting, file))
        waiting.clear()

    for parts in tensors:
        size = sum(tensor.nbytes for _, tensor in parts)
        if waiting and sum(tensor.nbytes for tensor in waiting.values()) + size > SHARD_BYTES:
            write()
        waiting.update((name, tensor.to("cpu", copy=True).contiguous()) for name, tensor in parts)
    write()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
