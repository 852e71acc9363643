"""One entry: a safetensors file with a video's visual tokens and, in its header, what they are of. Knows no folder.

EncodingKey is everything that visual tokens depend on, and names the entry. Two checksums cover every byte:
`header_sha256` the header, as it is with zeros for that checksum's own digits, so that the facts can be trusted without
reading the tokens; `tensor_sha256`, in the header, all that follows.
"""

import hashlib
import importlib.metadata
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName
from sfvqa.video.sampling import SamplingOptions

if TYPE_CHECKING:
    from torch import Tensor

    from sfvqa.inference.encode import SeenVideo


PREPROCESSING_VERSION = 2
"""Raise it whenever the same video may become other visual tokens, or other facts beside them, than before.

So with any change to reading, sampling, fitting, normalising, random weights, vision tower, projector or pooling.
"""

_LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "torch")
"""What makes pixels of files, and features of pixels."""


def library_versions() -> dict[str, str]:
    """Of the libraries that visual tokens depend on, as installed."""
    return {name: library_version(name) for name in _LIBRARIES}


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


def library_version(name: str) -> str:
    """As it is installed; `none` where it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


FORMAT_VERSION = 1
_TOKENS = "visual_tokens"
_LENGTH_BYTES = 8  # of the number that a safetensors file begins with: how long its header is
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_NO_SUM = b"0" * 64
_HEADER_SUM, _TENSOR_SUM = (re.compile(rb'"%s_sha256":"([0-9a-f]{64})"' % part) for part in (b"header", b"tensor"))


class DamagedEntryError(Exception):
    """An entry that is not what was once written, or not what was asked for; says why in a clause. For the store."""


@dataclass(frozen=True)
class EntryFacts:
    """A SeenVideo without its visual tokens, and the key of its entry; `video.path` is where the video lay when seen.

    `shape` is that of the visual tokens, [T, h, w, D].
    """

    key: dict[str, Any]
    shape: tuple[int, ...]
    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    strategy: str
    reader: str
    crop: CropMode
    video: VideoInfo
    num_missing: int
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, key: EncodingKey, seen: "SeenVideo") -> Self:
        """Of what is about to be kept under a key."""
        named = {name: value for name, value in vars(seen).items() if name != _TOKENS}
        return cls(key=key.to_dict(), shape=tuple(seen.visual_tokens.shape), **named)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises KeyError, TypeError or ValueError for anything but the JSON of `to_json`."""
        fields = json.loads(text)
        video = fields.pop("video")
        for name in ("shape", "indices", "timestamps_seconds", "warnings"):
            fields[name] = tuple(fields[name])
        fields["crop"] = CropMode(fields["crop"])
        facts = cls(**fields, video=VideoInfo(**video | {"path": Path(video["path"])}))
        if not facts.shape[0] == len(facts.indices) == len(facts.timestamps_seconds):
            raise ValueError("the facts are of other frames than the tokens")
        return facts

    def to_json(self) -> str:
        """In ASCII, so that a path that is not UTF-8 can be written."""
        fields = asdict(self)
        fields["video"]["path"] = str(self.video.path)
        return json.dumps(fields)

    def with_tokens(self, visual_tokens: "Tensor") -> "SeenVideo":
        """The SeenVideo again."""
        from sfvqa.inference.encode import SeenVideo

        named = {name: value for name, value in vars(self).items() if name not in ("key", "shape")}
        return SeenVideo(visual_tokens=visual_tokens, **named)

    def at(self, path: Path) -> Self:
        """The same with the video lying at another path."""
        return replace(self, video=replace(self.video, path=path))


def entry_bytes(key: EncodingKey, seen: "SeenVideo") -> tuple[bytes, memoryview]:
    """The file of an entry, header and tensor; ValueError for visual tokens in another dtype than the key says."""
    from safetensors.torch import save

    if (dtype := str(seen.visual_tokens.dtype).removeprefix("torch.")) != key.dtype:
        raise ValueError(f"visual tokens in {dtype} cannot be kept as {key.dtype}")
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "facts": EntryFacts.of(key, seen).to_json(),
        "tensor_sha256": _NO_SUM.decode(),
        "header_sha256": _NO_SUM.decode(),
    }
    whole = memoryview(save({_TOKENS: seen.visual_tokens.detach().cpu().contiguous()}, metadata))
    length = _LENGTH_BYTES + int.from_bytes(whole[:_LENGTH_BYTES], "little")
    tensor = whole[length:]
    header = _with_sum(bytes(whole[:length]), _TENSOR_SUM, _sha256(tensor))
    return _with_sum(header, _HEADER_SUM, _sha256(header)), tensor


def read_facts(path: Path) -> EntryFacts:
    """Read and check the header of an entry, and that nothing is cut off. Raises DamagedEntryError, OSError."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(_LENGTH_BYTES)
        header = start + stream.read(_header_bytes(start, size) - len(start))
    return _check_header(header, size)[0]


def read_entry(path: Path, key: EncodingKey, video: Path) -> "SeenVideo":
    """Read an entry and check every byte of it; `video` is where that lies now. Raises DamagedEntryError, OSError."""
    import torch

    with path.open("rb") as stream:
        data = bytearray(os.fstat(stream.fileno()).st_size)
        if stream.readinto(data) < len(data):
            raise DamagedEntryError("it is cut off")
    length = _header_bytes(data[:_LENGTH_BYTES], len(data))
    facts, tensor_sum = _check_header(bytes(data[:length]), len(data))
    if facts.key != key.to_dict():
        raise DamagedEntryError("it is of another video, or was made with other settings")
    if _sha256(memoryview(data)[length:]) != tensor_sum:
        raise DamagedEntryError("its tokens are not those that were written")
    # What safetensors' own `load` gives, but for a copy of it all.
    tokens = torch.frombuffer(data, dtype=getattr(torch, key.dtype), offset=length)
    try:
        return facts.at(video).with_tokens(tokens.reshape(facts.shape))
    except (RuntimeError, ValueError) as error:
        raise DamagedEntryError(f"its tokens have another form than its facts: {error}") from error


def _header_bytes(start: bytes | bytearray, size: int) -> int:
    """How long the header of a file of `size` bytes is, with the number before it."""
    length = _LENGTH_BYTES + int.from_bytes(start, "little")
    if not _LENGTH_BYTES < length <= size:
        raise DamagedEntryError("it is cut off, or is not an entry")
    return length


def _check_header(header: bytes, size: int) -> tuple[EntryFacts, bytes]:
    """The facts in a header, and the checksum of the tensor that the rest of the `size` bytes are."""
    found = _HEADER_SUM.search(header)
    if found is None or found[1] != _sha256(_with_sum(header, _HEADER_SUM, _NO_SUM)):
        raise DamagedEntryError("its header is not the one that was written")
    try:
        document = json.loads(header[_LENGTH_BYTES:])
        metadata, tensor = document["__metadata__"], document[_TOKENS]
        if metadata["format_version"] != str(FORMAT_VERSION):
            raise DamagedEntryError(f"its format is {metadata['format_version']}, not {FORMAT_VERSION}")
        facts = EntryFacts.from_json(metadata["facts"])
        is_of_these = list(facts.shape) == tensor["shape"] and _DTYPES[facts.key["dtype"]] == tensor["dtype"]
        is_whole = len(header) + tensor["data_offsets"][1] == size
        tensor_sum = metadata["tensor_sha256"].encode()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DamagedEntryError(f"its header makes no sense ({type(error).__name__})") from error
    if not is_of_these:
        raise DamagedEntryError("its tokens have another form than its facts")
    if not is_whole:
        raise DamagedEntryError("it is cut off, or longer than it was")
    return facts, tensor_sum


def _with_sum(header: bytes, place: re.Pattern[bytes], digits: bytes) -> bytes:
    """The header with other digits at the place of a checksum, which is there once: facts have their quotes escaped."""
    found = place.search(header)
    assert found is not None
    return header[: found.start(1)] + digits + header[found.end(1) :]


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
