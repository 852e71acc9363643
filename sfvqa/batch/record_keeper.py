"""What a batch needs of whatever keeps its records: the journal, or on a cluster the driver that has it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from sfvqa.batch.record import ERROR, OK


class RecordKeeper(ABC):
    """Knows which items have a record, and takes those to come."""

    @property
    @abstractmethod
    def done(self) -> Mapping[str, str]:
        """The ids of the items that have a record, each with "ok" or "error"."""

    @abstractmethod
    def append(self, record: Mapping[str, object]) -> None:
        """Keep a record. JournalError when it cannot be."""

    def is_done(self, item_id: str, *, retry_errors: bool) -> bool:
        """Whether an item needs no asking: it has an answer, or an error that is not to be tried again."""
        status = self.done.get(item_id)
        return status == OK or (status == ERROR and not retry_errors)
