"""EncodingKey: everything that the visual tokens of a video depend on, and the name their entry is kept under."""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName
from sfvqa.video.sampling import SamplingOptions

PREPROCESSING_VERSION = 2
"""Raise it whenever the same video may become other visual tokens, or other facts beside them, than before.

So with any change to reading, sampling, fitting, normalising, random weights, vision tower, projector or pooling.
"""

_LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "torch")
"""What makes pixels of files, and features of pixels."""


def library_versions() -> dict[str, str]:
    """Of the libraries that visual tokens depend on, as installed; `none` for one that is not."""
    return {name: _version(name) for name in _LIBRARIES}


@dataclass(frozen=True)
class EncodingKey:
    """What decides how a video is seen; two that are equal have the same visual tokens.

    `content` is of hash_content, `checkpoint` of identify_checkpoint; `reader` is the one asked for; `dtype` is the
    model's (`float32`, `bfloat16`, `float16`), `device_kind` cpu, cuda or mps.
    """

    content: str
    sampling: SamplingOptions
    crop: CropMode
    reader: ReaderName
    checkpoint: str
    dtype: str
    device_kind: str
    preprocessing_version: int = PREPROCESSING_VERSION
    libraries: dict[str, str] = field(default_factory=library_versions, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON gives it back."""
        document: dict[str, Any] = json.loads(self._canonical)
        return document

    @property
    def digest(self) -> str:
        """A hash of all of it, 64 hexadecimal digits."""
        return hashlib.sha256(self._canonical.encode()).hexdigest()

    @property
    def _canonical(self) -> str:
        named = {each.name: getattr(self, each.name) for each in fields(self)} | {"sampling": asdict(self.sampling)}
        return json.dumps(named, sort_keys=True, separators=(",", ":"))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
