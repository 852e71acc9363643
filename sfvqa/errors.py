"""Every error raised on purpose, each with what happened, what to do next, and the exit code it leads to.

SfvqaError                      1
├── UsageError                  2   what was asked for cannot be, or a file is missing that is not the video
│   ├── PromptTooLongError      2   prompt and new tokens exceed the model's positions
│   └── SubtitlesError          2   subtitles that are missing, none, or cannot be read
├── VideoError                  3   the video
│   ├── VideoNotFoundError      3   no such file
│   ├── UnreadableVideoError    3   a file without a readable picture in it
│   │   ├── DamagedVideoError   3   a video of which no frame can be vouched for
│   │   ├── EncryptedVideoError 3   a video that needs a key
│   │   ├── ReadTimeoutError    3   reading took longer than it may
│   │   └── ReaderKilledError   3   the process that read was killed
│   └── RangeOutsideVideoError  3   the requested seconds hold no frame
├── ModelError                  4   the model
│   ├── UnknownModelError       4   neither a name in models.toml nor a folder
│   ├── ModelNotDownloadedError 4   a known model whose weights are not here
│   ├── DownloadError           4   a download that was refused, broke off or brought the wrong bytes
│   ├── UploadError             4   an upload that was refused or broke off
│   └── CheckpointError         4   a folder that is incomplete, corrupt or of another architecture
├── OutOfMemoryError            5   host or device memory ran out
│   └── ReadingMemoryError      5   one picture takes more than a reader may have: fewer frames are no help
├── SchemaNotMetError           1   an answer that came to no valid end by its JSON schema
├── ItemTimeoutError            1   an item of a batch took longer than it may
├── DeviceLostError             1   the GPU failed, and answers nothing any more
├── ClusterError                1   a Ray cluster that cannot be reached, or has no worker left
│   └── WorkerLostError         1   the worker that had a video ended, again and again
├── ServerError                 1   the server
│   ├── ServerBusyError         1   it has more to do than it takes on
│   └── ServerStoppingError     1   it takes nothing more, or had to cut an answer
└── JournalError                1   the file of records is in use, or cannot be written
"""

import re
import traceback
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line (128 + SIGINT for Ctrl-C)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    VIDEO = 3
    MODEL = 4
    OUT_OF_MEMORY = 5
    BATCH_FAILURES = 6
    INTERRUPTED = 130


class SfvqaError(Exception):
    """An error raised on purpose: `message` says what happened, `remedy` what to do next, a sentence each.

    Both name a setting by its flag, as the command line does; `str` names it as Python does.

    >>> str(OutOfMemoryError("Memory ran out.", "Use --quant 4bit, or fewer frames (--frames 8)."))
    "Memory ran out. Use quantization='4bit', or fewer frames (num_frames=8)."
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    @property
    def with_flags(self) -> str:
        """Both sentences, for the command line."""
        return f"{self.message} {self.remedy}".strip()

    def __str__(self) -> str:
        return _SETTING.sub(_in_python, self.with_flags)


_PARAMETERS = {
    "frames": "num_frames",
    "start": "start_seconds",
    "end": "end_seconds",
    "read-threads": "num_threads",
    "read-timeout": "timeout_seconds",
    "context": "context_tokens",
    "every": "every_seconds",
    "quant": "quantization",
    "no-cache": "video_cache=None",
    **{name: f"{name.replace('-', '_')}=True" for name in ("evidence", "random-weights")},
    **{name: f"{name.replace('-', '_')}=True" for name in ("gradient-checkpointing", "skip-unreadable", "resume")},
    **{
        name: name.replace("-", "_")
        for name in ("fps", "crop", "model", "device", "dtype", "attention", "stage", "static-decode")
    },
    **{name: name.replace("-", "_") for name in ("validation", "log", "cache-gigabytes", "threshold", "top")},
    **{name: name.replace("-", "_") for name in ("adapter", "lora-rank", "quantization")},
    **{name: name.replace("-", "_") for name in ("max-new-tokens", "subtitle-tokens", "num-frames", "batch-size")},
    **{name: name.replace("-", "_") for name in ("num-epochs", "num-steps", "shuffle-rows")},
}
"""Flags, and what gives the same in Python; those of `sfvqa batch` alone have nothing there, and stay."""

_SETTING = re.compile(r"`(?!--)[^`]*`|--([a-z-]+)(?: (\d+(?:bit)?|auto|on|cpu|cuda|none|pad|sdpa|bfloat16)\b)?")
"""A command in backticks, which stays as it is to be typed, or a flag with its value."""


def _in_python(found: re.Match[str]) -> str:
    flag, value = found.groups()
    if flag not in _PARAMETERS:
        return found.group()
    if value is None:
        return _PARAMETERS[flag]
    return f"{_PARAMETERS[flag]}={value if value.isdecimal() else repr(value)}"


class UsageError(SfvqaError):
    """What was asked for contradicts itself, cannot be done with any video or model, or names a file that is not there.

    What is wrong with the video itself is a VideoError, and with the model a ModelError.
    """

    exit_code = ExitCode.USAGE


class PromptTooLongError(UsageError):
    """The prompt and the requested new tokens exceed the model's positions."""


class SubtitlesError(UsageError):
    """The subtitles are missing, or are none, or cannot be read."""


class VideoError(SfvqaError):
    """Something about the video."""

    exit_code = ExitCode.VIDEO


class VideoNotFoundError(VideoError):
    """No such file."""


class UnreadableVideoError(VideoError):
    """The file holds no picture that can be read."""


class DamagedVideoError(UnreadableVideoError):
    """A video of a known format, so damaged that no frame of it can be vouched for."""


class EncryptedVideoError(UnreadableVideoError):
    """A video whose pictures are encrypted (DRM), whole as it may be."""


class ReadTimeoutError(UnreadableVideoError):
    """Reading took longer than it may, and was ended."""


class ReaderKilledError(UnreadableVideoError):
    """The process that read was ended by a signal from outside, which no file sends."""


class RangeOutsideVideoError(VideoError):
    """The requested seconds hold no frame of the video."""


class ModelError(SfvqaError):
    """Something about the model."""

    exit_code = ExitCode.MODEL


class UnknownModelError(ModelError):
    """The name is neither in models.toml nor a folder."""


class ModelNotDownloadedError(ModelError):
    """The model is known, its weights are not on this machine."""


class DownloadError(ModelError):
    """A download was refused, broke off, has no room, or brought other bytes than the hub stated."""


class UploadError(ModelError):
    """An upload was refused, or broke off."""


class CheckpointError(ModelError):
    """The checkpoint folder is incomplete, corrupt or of another architecture."""


class OutOfMemoryError(SfvqaError):
    """Host or device memory ran out."""

    exit_code = ExitCode.OUT_OF_MEMORY


class ReadingMemoryError(OutOfMemoryError):
    """What a video's pictures take to read, one at a time, is more than its process may have."""


class SchemaNotMetError(SfvqaError):
    """An answer is not valid by its JSON schema: it was cut at `max_new_tokens`, or could not go on."""


class ItemTimeoutError(SfvqaError):
    """Seeing the video of an item, or answering its question, took longer than it may, and was ended."""


class DeviceLostError(SfvqaError):
    """The GPU failed in a way that only a new process can get over."""


class ClusterError(SfvqaError):
    """The Ray cluster cannot be reached, or none of its workers can go on."""


class WorkerLostError(ClusterError):
    """Every worker that had the video ended before it was done."""


class ServerError(SfvqaError):
    """The server cannot start, or cannot be reached."""


class ServerBusyError(ServerError):
    """The server has as much to do as it takes on."""


class ServerStoppingError(ServerError):
    """The server is stopping: it takes no more requests, or had to cut an answer."""


class JournalError(SfvqaError):
    """The file of records is in use by another process, was changed by it, or cannot be written."""


def let_go(error: BaseException | None) -> None:
    """Free what is in the variables of the functions that an error ended, once it has been dealt with.

    They go with the error. But from Python 3.12 on, one by which a generator of contextlib replaced another is part of
    a cycle: frames of a video, or a GPU's tensors, would stay until garbage is collected.
    """
    seen = set[int]()  # each of two errors may be the other's cause or context
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
