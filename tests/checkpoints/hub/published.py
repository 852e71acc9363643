"""What the fake hub serves: a checkpoint of numbers only, or a real one cut into shards; and a models.toml for it."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from tests.checkpoints.hub import fake_hub
from tests.checkpoints.hub.fake_hub import FakeHub

REPO = "acme/small-slow-fast"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
UNWANTED = ("pytorch_model.bin", "modeling_slow_fast.py", "README.md", ".gitattributes", "onnx/model.safetensors")
MODELS_TOML = f"""
[models.small]
description = "A small checkpoint in the published form."
can_answer = "nothing"
architecture = "tiny"
repo_id = "{REPO}"
license = "CC BY-NC 4.0"
size_bytes = 4_000_000
num_frames = 8
fast_tokens = {{ temporal_stride = 2, min_fast_frames = 2 }}
training_max_length = 512
memory_hint = "Runs anywhere."
"""


@contextlib.contextmanager
def connected(folder: Path, monkeypatch: pytest.MonkeyPatch, repo_id: str = REPO) -> Iterator[FakeHub]:
    """A fake hub, an empty cache, no token, no record, and a models.toml that names a repository."""
    hub = fake_hub.start(repo_id)
    (folder / "models.toml").write_text(MODELS_TOML)
    monkeypatch.setenv("SFVQA_MODELS", str(folder / "models.toml"))
    monkeypatch.setenv("SFVQA_REVISIONS", str(folder / "data" / "revisions.json"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_TELEMETRY", True)  # the command line does so for its process
    at_once = SimpleNamespace(time=time.time, sleep=lambda _seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time", at_once)  # between one try and the next
    monkeypatch.setattr("huggingface_hub.utils._http.time", at_once)
    try:
        yield hub
    finally:
        fake_hub.stop(hub)


def checkpoint_of_numbers(seed: int = 0, values: int = 100_000) -> dict[str, bytes]:
    """Two shards with an index, and files nobody wants; nothing that a network could be made of."""
    random = np.random.default_rng(seed)
    tensors = [{f"weight_{place}": random.standard_normal(values, np.float32)} for place in range(len(SHARDS))]
    weight_map = {name: shard for shard, held in zip(SHARDS, tensors, strict=True) for name in held}
    return {
        "config.json": b'{"model_type": "numbers"}',
        "tokenizer.json": b"{}",
        INDEX: json.dumps({"weight_map": weight_map}).encode(),
        **{shard: save(held) for shard, held in zip(SHARDS, tensors, strict=True)},
        **dict.fromkeys(UNWANTED, b"\x80\x04cos\nsystem\n."),
    }


def flip_a_bit(path: Path) -> None:
    """Damage a file as a disk would: the size stays, the link to it too."""
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(bytes(data))


def shard(folder: Path, into: Path) -> Path:
    """Cut a checkpoint with one weight file into shards with an index, as large ones are published."""
    from safetensors.numpy import load_file

    into.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (into / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = dict(zip(SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True))
    for file, held in parts.items():
        (into / file).write_bytes(save({name: tensors[name] for name in held}, metadata={"format": "pt"}))
    weight_map = {name: file for file, held in parts.items() for name in held}
    (into / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return into
