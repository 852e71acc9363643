"""Shards: one job of several takes its share of the items, and all of them together take all."""

import re
from dataclasses import dataclass

from sfvqa.errors import UsageError

_SHARD = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """The `number`th of `count` shares, counted from 1. UsageError when built, if there is no such share."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.number <= self.count:
            raise UsageError(
                f"There is no shard {self.number} of {self.count}.", "Count them from 1: 1/4, 2/4, 3/4, 4/4."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `I/N`, the Ith of N from 1 on; UsageError otherwise.

    >>> parse_shard("2/4")
    Shard(number=2, count=4)
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise UsageError(f"“{text}” is no shard.", "Write I/N, the Ith of N jobs: 1/4 to 4/4.")
    return Shard(int(match[1]), int(match[2]))
