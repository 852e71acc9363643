"""Shards of rows that are read one after another, wherever they lie: tar archives, parquet and Arrow files, the hub.

A tar archive is webdataset's: of each sample, `key.json` and `key.mp4` follow each other. It is read by the standard
library, since `datasets` wants samples of one form and, as webdataset does, takes an archive that was cut for a whole
one. Parquet is read by pyarrow, a row group at a time; all else by `datasets`.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from sfvqa.errors import UsageError
from sfvqa.training.annotations import Place, Source, rows_of_file
from sfvqa.training.conversation import SHOWN, as_object
from sfvqa.video.readers.local_file import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_TAR, _FILE = "webdataset", "file"
_KINDS = {".tar": _TAR, ".tgz": _TAR, ".parquet": "parquet", ".arrow": "arrow"}
_HUB = "hf://"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_REMEDY = "Name shards such as train-{000000..000009}.tar or data/*.parquet, a folder, or hf://owner/name."


@dataclass(frozen=True)
class ShardRow:
    """A row as it was found, or what is wrong with it, and the videos or pictures that came with it: names and bytes.

    Where nothing behind it can be read either, its place has no number.
    """

    place: Place
    row: Any
    shown: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Shard:
    """One file of rows, by its path or address."""

    file: str
    kind: str

    def rows(self) -> Iterator[ShardRow]:
        """All of them, in order; a fault takes the place of a row, and ends the shard if it is the shard's."""
        number = 0
        read = {_TAR: self._samples, _FILE: self._rows_of_file}.get(self.kind, self._table_rows)
        try:
            for row in read():
                yield row
                number += 1
        except Exception as error:  # noqa: BLE001  of as many libraries as there are kinds of shards
            said = f"It cannot be read{f' behind row {number:,}' if number else ''}"
            remedy = "Copy or download it again, or leave it out."
            yield ShardRow(Place(self.file), _as_usage_error(said, error, remedy))

    def size_bytes(self) -> int | None:
        """Its size, None where it is not known."""
        if "://" not in self.file:
            return Path(self.file).stat().st_size
        filesystem, path = _filesystem(self.file)
        size: int | None = filesystem.size(path)
        return size

    def _rows_of_file(self) -> Iterator[ShardRow]:
        for place, row in rows_of_file(Path(self.file)):
            yield ShardRow(place, row)

    def _table_rows(self) -> Iterator[ShardRow]:
        rows = self._parquet_rows() if self.kind == "parquet" else self._other_rows()
        for number, found in enumerate(rows, start=1):
            row, shown = _unpacked(_without_nulls(found))
            yield ShardRow(Place(self.file, number, kind="Row"), row, shown)

    def _parquet_rows(self) -> Iterator[dict[str, Any]]:
        """One row group after another, of which `datasets` would hold several at a time, and twice."""
        _need("pyarrow")
        from pyarrow import parquet

        with _opened(self.file) as stream, parquet.ParquetFile(stream, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=1, row_groups=[group], use_threads=False):
                    yield from batch.to_pylist()

    def _other_rows(self) -> Iterator[dict[str, Any]]:
        rows = _datasets().load_dataset(self.kind, data_files={"train": [self.file]}, split="train", streaming=True)
        yield from rows.decode(False)

    def _samples(self) -> Iterator[ShardRow]:
        for number, (key, parts) in enumerate(groupby(self._members(), key=lambda member: member[0]), start=1):
            place = Place(self.file, number, key, kind="Sample")
            found: dict[str, list[bytes]] = {}
            for _, ending, data in parts:
                found.setdefault(ending, []).append(data)
            yield _sample(place, key, found)

    def _members(self) -> Iterator[tuple[str, str, bytes]]:
        """Key, ending and bytes of each file of an archive; a key ends at the first dot of its name, as there."""
        with _opened(self.file) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                key, _, ending = name.partition(".")
                if member.isfile() and key and ending:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield f"{folder}/{key}".lstrip("/"), PurePosixPath(f"_.{ending.lower()}").suffix, content.read()
                archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them


class _Header(tarfile.TarInfo):
    """A header that must be there: of an archive that was cut before one, tarfile thinks that it ends."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read it. Raises tarfile's ReadError where it is missing or damaged."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # it ends where it should
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, where it should go on or end") from error


def _sample(place: Place, key: str, found: dict[str, list[bytes]]) -> ShardRow:
    """A row and what it shows, out of the files of one key."""
    shown = [
        (f"{key}{ending}", data)
        for ending, contents in found.items()
        if ending in VIDEO_SUFFIXES or ending in IMAGE_SUFFIXES
        for data in contents
    ]
    told = found.get(".json", [])
    if len(told) != 1:
        has = ", ".join(ending.removeprefix(".") for ending in found)
        said = f"It has {len(told)} files of JSON" if told else f"It has {has} and no JSON"
        remedy = "A sample is key.json and key.mp4, one after the other; a key ends at the first dot of a file's name."
        return ShardRow(place, UsageError(f"{said}.", remedy))
    try:
        row = json.loads(told[0].decode("utf-8-sig"), object_pairs_hook=as_object)
    except (ValueError, RecursionError) as error:
        return ShardRow(place, UsageError(f"It is not JSON: {error}.", "Write it with a JSON library."))
    return ShardRow(place, row, tuple(shown))


def _without_nulls(value: Any) -> Any:
    """A row without the keys that a table holds for other rows' sake."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _unpacked(row: dict[str, Any]) -> tuple[dict[str, Any], tuple[tuple[str, bytes], ...]]:
    """A row with the names of its videos and pictures, and those that it holds as bytes."""
    shown: list[tuple[str, bytes]] = []
    named = {key: _name(value, key, shown) if key in SHOWN else value for key, value in row.items()}
    return named, tuple(shown)


def _name(value: Any, key: str, shown: list[tuple[str, bytes]]) -> Any:
    """The name of what a column holds; with its bytes, if it has them, it goes to `shown`.

    No function within `_unpacked`: it would be in a cycle with itself, and hold on to the bytes of many rows.
    """
    if isinstance(value, list):
        return [_name(each, key, shown) for each in value]
    path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (None, value)
    if not isinstance(data, bytes):
        return value if path is None else path
    shown.append((path or key, data))
    return path or key


@dataclass(frozen=True)
class Streamed:
    """What a user named, and the shards that it is; each row is learned from `weight` times an epoch."""

    source: Source
    shards: tuple[Shard, ...]
    fingerprint: str
    """Which shards these are, by names and sizes: a hash of what they hold would take reading all of it."""

    @classmethod
    def of(cls, source: Source) -> Self:
        """Find the shards. UsageError where there are none, or where what reads them is missing."""
        name = str(source.path)
        try:
            shards = tuple(_shards(name))
            facts = [(PurePosixPath(shard.file).name, shard.size_bytes()) for shard in shards]
        except Exception as error:  # of as many libraries as there are places where shards lie
            raise _as_usage_error(f"{name} cannot be streamed", error, _REMEDY) from error
        if not shards:
            raise UsageError(f"There are no shards {name}.", _REMEDY)
        return cls(source, shards, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def is_streamed(source: Source) -> bool:
    """Whether a source is anything but a file of conversations."""
    name = str(source.path)
    return "://" in name or _kind_of(name) is not None or _folder_and_split(name) is not None


def _shards(name: str) -> list[Shard]:
    kind, folder = _kind_of(name), _folder_and_split(name)
    if kind is not None:
        return [Shard(file, kind) for file in _files(name)]
    if folder is not None:
        path, split = folder
        if (path / "dataset_dict.json").is_file():
            path /= split
        if (path / "state.json").is_file():
            saved = json.loads((path / "state.json").read_text(encoding="utf-8"))
            return [Shard(str(path / each["filename"]), "arrow") for each in saved["_data_files"]]
        return _published(str(path), split)
    if name.startswith(_HUB):
        owner_and_name, _, split = name.removeprefix(_HUB).partition(":")
        return _published(owner_and_name, split or "train")
    if "://" in name:
        raise UsageError(f"{name} is neither a tar archive nor a parquet or Arrow file.", _REMEDY)
    return [Shard(name, _FILE)]


def _kind_of(name: str) -> str | None:
    ending = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    return _KINDS.get(ending)


def _folder_and_split(name: str) -> tuple[Path, str] | None:
    """A folder that a name means, alone or with a split behind a colon."""
    folder, _, split = name.rpartition(":")
    if "://" in name:
        return None
    if Path(name).is_dir():
        return Path(name), "train"
    return (Path(folder), split) if folder and Path(folder).is_dir() else None


def _files(pattern: str) -> list[str]:
    """The files that a pattern stands for: {000000..000009} counts, and * and ? are as in a shell."""
    if found := _RANGE.search(pattern):
        first, last = found.groups()
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        return [
            file for number in numbers for file in _files(pattern[: found.start()] + number + pattern[found.end() :])
        ]
    if not re.search(r"[*?\[]", pattern) or Path(pattern).is_file():
        return [pattern]
    if "://" not in pattern:
        anchor = Path(pattern).anchor
        matching = Path(anchor).glob(pattern.removeprefix(anchor))
        return sorted(str(path) for path in matching if not path.name.startswith("."))
    filesystem, path = _filesystem(pattern)
    return sorted(filesystem.unstrip_protocol(file) for file in filesystem.glob(path))


def _published(name: str, split: str) -> list[Shard]:
    """The files of a split of a dataset of the hub, or of a folder that is laid out as one."""
    builder = _datasets().load_dataset_builder(name)
    splits = {str(key): list(files) for key, files in (builder.config.data_files or {}).items()}
    if split not in splits:
        has = f"its splits are {', '.join(splits)}" if splits else "it has no files of data"
        raise UsageError(f"{name} has no split {split}: {has}.", "Name one of them behind a colon.")
    return [Shard(file, str(builder.name)) for file in splits[split]]


def _opened(file: str) -> IO[bytes]:
    if "://" not in file:
        return Path(file).open("rb")
    filesystem, path = _filesystem(file)
    opened: IO[bytes] = filesystem.open(path, "rb")
    return opened


def _filesystem(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # of the hub's client

    filesystem, path = url_to_fs(address)
    return filesystem, str(path)


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f"The package {package} is not installed.", 'Install it (`pip install "sfvqa[train]"`).')


def _datasets() -> Any:
    _need("datasets")
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it then raises
    return datasets


def _as_usage_error(said: str, error: Exception, remedy: str) -> UsageError:
    if isinstance(error, UsageError):
        return error
    reason = " ".join(str(error).split()).removesuffix(".")
    return UsageError(f"{said}: {reason or type(error).__name__}.", remedy)
