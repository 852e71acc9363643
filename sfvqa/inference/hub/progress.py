"""How far a long step on files has come, in bytes; whoever shows it decides how."""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What is done with the bytes."""

    DOWNLOAD = "download"
    CHECK = "check"


@dataclass(frozen=True)
class ByteProgress:
    """`done_bytes` of `total_bytes` of a stage are through; `file` is the one it is at."""

    stage: Stage
    done_bytes: int
    total_bytes: int
    file: str
