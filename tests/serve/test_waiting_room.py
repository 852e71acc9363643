"""Who is answered with whom, and when: requests without a video, and no thread."""

import math
from typing import Any

import pytest

from sfvqa.inference.engine import GenerationOptions
from sfvqa.serve.metrics import Metrics
from sfvqa.serve.request import Event, Job, Request
from sfvqa.serve.waiting_room import ServiceOptions, WaitingRoom


class Room(WaitingRoom):
    def __init__(self, **options: Any) -> None:
        super().__init__(
            ServiceOptions(**{"patience_seconds": math.inf, "gather_seconds": math.inf, **options}), Metrics()
        )

    def ask(self, *questions: str, **generation: Any) -> list[Job]:
        """Requests that wait."""
        jobs = [Job(Request(each, generation=GenerationOptions(**generation)), _nobody) for each in questions]
        for job in jobs:
            self.admit(job, None)
        return jobs

    def begin(self) -> tuple[list[Any], list[str]]:
        batch = self.next_batch()
        return batch, asked_in(batch)


def _nobody(_: Event) -> None:
    """Hear nothing."""


def asked_in(batch: list[Any]) -> list[str]:
    return [waiting.job.request.question for waiting in batch]


def test_those_that_are_alike_are_answered_together() -> None:
    room = Room()
    room.ask("a", "b")
    room.ask("other", max_new_tokens=3)
    room.ask("c")
    assert room.begin()[1] == ["a", "b", "c"]


def test_who_comes_later_takes_the_place_of_an_answer_that_is_over() -> None:
    room = Room(batch_size=2)
    first, _ = room.ask("a", "b")
    batch, _ = room.begin()
    room.ask("c", "d")
    assert room.join(batch) == []
    room.tell_last(first, None)
    assert room.join(batch) == []
    room.leave(batch)
    assert asked_in(room.join(batch)) == ["c"]
    assert asked_in(batch) == ["b", "c"]
    assert room.num_running == 2


def test_those_who_could_not_join_are_written_beside_the_batch_and_counted() -> None:
    """They were in no batch of the room, which then began too many."""
    room = Room(batch_size=4, patience_seconds=0.0)
    room.ask("a", "b")
    batch, _ = room.begin()
    room.ask("c", "d")
    joining = room.join(batch)
    room.part(batch, joining)
    assert (asked_in(batch), asked_in(joining), room.num_running) == (["a", "b"], ["c", "d"], 4)
    room.is_written(batch)
    assert room.num_running == 2
    room.ask("e", "f", "g")
    assert room.begin()[1] == ["e", "f"]
    room.ask("h")
    assert room.begin()[1] == []
    room.is_written(joining)
    assert room.begin()[1] == ["g", "h"]


def test_one_alone_waits_for_others_before_it_keeps_many_waiting() -> None:
    room = Room(batch_size=16)
    room.ask("a", "b", "c", "d")
    batch, _ = room.begin()
    room.ask("e")
    assert room.join(batch) == []
    room.ask("f")
    assert asked_in(room.join(batch)) == ["e", "f"]


def test_it_does_not_wait_for_long() -> None:
    room = Room(batch_size=16, gather_seconds=0)
    room.ask("a", "b", "c", "d")
    batch, _ = room.begin()
    room.ask("e")
    assert asked_in(room.join(batch)) == ["e"]


def test_nobody_overtakes_one_who_cannot_join_and_has_waited_long() -> None:
    """Or a batch that others join without end would keep that one waiting for ever."""
    room = Room(patience_seconds=0)
    room.ask("a")
    batch, _ = room.begin()
    room.ask("beside", max_new_tokens=3)
    assert room.begin()[1] == ["beside"]
    room.ask("waits", max_new_tokens=4)
    room.ask("b")
    assert room.join(batch) == []
    room.is_written(batch)
    assert room.begin()[1] == ["waits"]


def test_who_leaves_makes_place_for_one_of_another_kind() -> None:
    """It waited for the last of those beside it, in whose places nothing was written any longer."""
    room = Room(batch_size=4, patience_seconds=0)
    jobs = room.ask("a", "b", "c", "d")
    batch, _ = room.begin()
    room.ask("other", "another", max_new_tokens=3)
    assert room.begin()[1] == []
    room.tell_last(jobs[0], None)
    room.drop(jobs[2])
    room.leave(batch)
    assert room.join(batch) == []
    assert room.begin()[1] == ["other", "another"]
    assert room.num_running == 4


def test_only_those_join_that_are_alike() -> None:
    room = Room()
    room.ask("a")
    batch, _ = room.begin()
    room.ask("other", max_new_tokens=3)
    room.ask("b")
    assert asked_in(room.join(batch)) == ["b"]


@pytest.mark.parametrize("is_dropped", [True, False])
def test_nobody_joins_a_batch_that_is_over(is_dropped: bool) -> None:
    room = Room()
    (job,) = room.ask("a")
    batch, _ = room.begin()
    room.ask("b")
    if is_dropped:
        room.drop(job)
    else:
        room.tell_last(job, None)
    room.leave(batch)
    assert room.join(batch) == []
    room.is_written(batch)
    assert room.begin()[1] == ["b"]
