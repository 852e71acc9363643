"""Work that may hang: its result, its error, or the end of the waiting; nothing that comes late is lost."""

import threading
import time

import pytest

from sfvqa.batch.watchdog import TooLateError, within


def test_what_is_done_in_time_is_what_it_would_be() -> None:
    def fail() -> None:
        raise KeyError("it")

    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError, match="it"):
        within(5, fail)


def test_what_hangs_is_not_waited_for_and_is_put_away_when_it_comes() -> None:
    go_on, late = threading.Event(), list[int]()

    def hang() -> int:
        go_on.wait()
        return 7

    began = time.monotonic()
    with pytest.raises(TooLateError):
        within(0.1, hang, undo=late.append)
    assert 0.1 <= time.monotonic() - began < 2
    assert late == []
    go_on.set()
    deadline = time.monotonic() + 5
    while not late and time.monotonic() < deadline:
        time.sleep(0.01)
    assert late == [7]
