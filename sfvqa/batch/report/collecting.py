"""One pass over a file of records: of each item what its last record says, and what is wrong with the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfvqa.batch.record import Record, read_records
from sfvqa.batch.report.facts import FactMaker, ItemFacts
from sfvqa.evaluation.matching import Rule


@dataclass(frozen=True)
class RunFacts:
    """The items of a file of `num_records` records, by item id in the order they first came in, judged by `rule`.

    `notices` tell of lines that hold no record, `warning_examples` have a whole warning of each kind.
    """

    path: Path
    items: dict[str, ItemFacts]
    num_records: int
    notices: tuple[str, ...]
    warning_examples: dict[str, str]
    rule: Rule


def collect(path: Path, rule: Rule = Rule.PHRASE) -> RunFacts:
    """Read a file of records; an error that an answer followed is no error. JournalError if it cannot be read."""
    notices: list[str] = []
    maker = FactMaker(rule)
    items: dict[str, ItemFacts] = {}
    ordinal = -1
    for ordinal, record in enumerate(read_records(path, notices)):
        items[record["item_id"]] = maker.make(record, ordinal)
    return RunFacts(path, items, ordinal + 1, tuple(notices), maker.warning_examples, rule)


def last_records(run: RunFacts) -> Iterator[Record]:
    """The last record of each item, whole, in the order of the file: another pass over it.

    What another process has appended since `collect` does not appear.
    """
    for ordinal, record in enumerate(read_records(run.path)):
        facts = run.items.get(record["item_id"])
        if facts is not None and facts.ordinal == ordinal:
            yield record
