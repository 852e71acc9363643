"""What a video, or any set of files, holds, as a short string: the same for a copy, another after any change."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from sfvqa.errors import UnreadableVideoError, VideoNotFoundError
from sfvqa.video.readers.local_file import check_local_file, pictures_in

WHOLE_LIMIT_BYTES = 32 << 20
"""Files that are no larger, taken together, are hashed in whole: some hundredths of a second."""

SAMPLE_BYTES = 16 << 10
NUM_SAMPLES = 64  # of all files together, but at least the head of each


def hash_content(path: str | Path, *, whole: bool = False) -> str:
    """Hash a video file, or the pictures of a folder: `whole:…` over every byte, or `sampled:…`.

    What is larger than WHOLE_LIMIT_BYTES is sampled, unless `whole`: size, head, tail and places between, and the time
    of its last change, so that only a change under a forged time goes unnoticed. The file's own name and folder do not
    count, names within a folder do. Raises VideoError for what could not be opened as a video.
    """
    file = check_local_file(path)
    try:
        if file.is_dir():
            return hash_files(pictures_in(file), whole=whole)
        return _hash([("", file)], whole=whole)
    except FileNotFoundError as error:
        raise VideoNotFoundError(f"“{error.filename or path}” is gone.", "Check the path, and try again.") from error
    except OSError as error:
        raise UnreadableVideoError(
            f"“{error.filename or path}” cannot be read: {error.strerror or error}.", "Check the disk or copy the file."
        ) from error


def hash_files(files: Iterable[Path], *, whole: bool = False) -> str:
    """Hash files of one folder, with their names and order, as `hash_content` does. Raises OSError."""
    return _hash([(file.name, file) for file in files], whole=whole)


def _hash(named: list[tuple[str, Path]], *, whole: bool) -> str:
    is_whole = whole or sum(file.stat().st_size for _, file in named) <= WHOLE_LIMIT_BYTES
    num_samples = max(1, NUM_SAMPLES // max(1, len(named)))
    digest = hashlib.sha256()
    for name, file in named:
        facts = [name, *(_every_byte(file) if is_whole else _samples(file, num_samples))]
        digest.update(json.dumps(facts).encode() + b"\n")  # ASCII, also for names that are not UTF-8
    return f"{'whole' if is_whole else 'sampled'}:{digest.hexdigest()}"


def _every_byte(file: Path) -> list[str | int]:
    with file.open("rb") as stream:
        return [hashlib.file_digest(stream, "sha256").hexdigest()]


def _samples(file: Path, num_samples: int) -> list[str | int]:
    """Size, time of the last change, and a hash of samples: the head, the tail, and others evenly between."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        last = max(0, status.st_size - SAMPLE_BYTES)
        for number in range(num_samples):
            stream.seek(last * number // max(1, num_samples - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]
