"""The thread that has the model: it encodes videos and answers batches in turns, a step of one after one of another."""

import contextlib
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sfvqa.checkpoints.device import is_device_lost, release_memory
from sfvqa.errors import DeviceLostError, OutOfMemoryError, ServerError, SfvqaError, let_go
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.request import Work, to_be_told
from sfvqa.serve.sight import Sight, Waiting
from sfvqa.serve.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.prefill import KeptPrompt

_MOST_PLACES = 512  # of a run: each leaves a few numbers there until all are over, and a step looks at them

_Turns = Generator[None, None, None]


class ModelThread:
    """Does what the waiting room says until that is closed.

    What goes wrong with a request is told to its job; what no request can go on after, a GPU that fails, is the failure
    of the room.
    """

    def __init__(self, answerer: VideoQA, room: WaitingRoom) -> None:
        self._answerer, self._room = answerer, room
        self._turns: deque[_Turns] = deque()
        self._is_encoding = False

    def run(self) -> None:
        """Until the end."""
        try:
            while self._begin():
                turn = self._turns.popleft()
                try:
                    next(turn)
                except StopIteration:
                    continue
                self._turns.append(turn)
        except Exception as error:  # noqa: BLE001  the device is lost: everything else was told to its job
            self._room.fail(_failure(error))
        for turn in self._turns:
            turn.close()

    def _begin(self) -> bool:
        """Begin what can be begun, once there is something to do; False at the end of the service."""
        if not self._room.wait(is_busy=bool(self._turns)):
            return False
        if not self._is_encoding and (sight := self._room.next_to_encode()) is not None:
            self._is_encoding = True
            self._turns.append(self._encode(sight))
        while batch := self._room.next_batch():
            self._turns.append(self._answer(batch))
        return True

    # --- A video ---

    def _encode(self, sight: Sight) -> _Turns:
        """Encode a video a step at a time; then those who wait for it are answered."""
        try:
            encoded = yield from self._encoded(sight)
        except Exception as error:
            if is_device_lost(error):
                raise
            let_go(error)
            if not isinstance(error, OutOfMemoryError) or sight.is_read_again or not self._room.forget_encoded():
                self._room.is_unseeable(sight, error)
                return
        else:
            self._room.is_encoded(sight, encoded)
            return
        finally:
            self._is_encoding = False
        # Only here, behind the block, is the error's traceback gone, and with it the memory that its frames held.
        sight.is_read_again = True
        release_memory(self._answerer.checkpoint.model.device)
        self._room.read_again(sight)

    def _encoded(self, sight: Sight) -> "Generator[None, None, EncodedVideo | None]":
        """None where nobody waits for it any longer."""
        view, source = sight.view, sight.source
        sight.source = None
        assert source is not None
        steps = self._answerer.encode_progressively(source, view.sampling, reading=sight.reading, crop=view.crop)
        del source  # its frames go as they are taken
        with contextlib.closing(steps):
            while True:
                try:
                    progress = next(steps)
                except StopIteration as end:
                    encoded: EncodedVideo = end.value
                    return replace(encoded, warnings=(*encoded.warnings, *view.file.check()))
                if sight.is_given_up:
                    return None
                sight.tell(progress)
                yield

    # --- A batch ---

    def _answer(self, batch: list[Waiting]) -> _Turns:
        work = batch[0].job.work
        try:
            yield from self._answer_together(batch, batch) if work is None else self._do(batch[0], work)
        finally:
            self._room.is_written(batch)

    def _do(self, waiting: Waiting, work: Work) -> _Turns:
        """Do a request's own work a step at a time, until it is over or dropped.

        Where memory runs out what is kept makes room, and it is done once more; what was told of it then is not again.
        A conversation, which comes without its video, would not be as it was.
        """
        job, encoded = waiting.job, waiting.encoded  # with what it cost, which whoever comes next does not pay
        num_told, may_repeat = 0, encoded is not None
        if waiting.sight is not None:
            waiting.sight.pay()
        while True:
            try:
                with contextlib.closing(work(encoded)) as steps:
                    for number, message in enumerate(steps, 1):
                        if job.is_over:
                            return
                        if number > num_told:
                            job.tell(message)
                            num_told = number
                        yield
                self._room.tell_last(job, None)
                return
            except Exception as error:
                if is_device_lost(error):
                    raise
                let_go(error)
                ran_out = isinstance(error, OutOfMemoryError)
                may_repeat = may_repeat and ran_out and self._has_kept
                if not may_repeat:
                    self._room.tell_last(job, error)
            if ran_out:  # behind the block, without what the error's traceback held
                self._take_less(self._room.batch_size)
            if not may_repeat:
                return

    def _answer_together(self, asked: Sequence[Waiting], batch: list[Waiting], *, may_join: bool = True) -> _Turns:
        """Answer requests a step at a time, and those that join the batch they are of, if it can be joined.

        What fails together is tried alone, or by halves where memory ran out; nobody joins that.
        """
        written = _Written([waiting for waiting in asked if not waiting.job.is_over])
        if not written.left:
            return
        try:
            yield from self._write(written, batch, may_join=may_join)
        except Exception as error:
            if is_device_lost(error):
                raise
            let_go(error)
            ran_out = isinstance(error, OutOfMemoryError)
            left = list(written.left.values())
            if written.num_places == 1 and not (ran_out and self._has_kept):
                for waiting in left:  # none, where only keeping the prompt failed
                    self._room.tell_last(waiting.job, error)
                return
        else:
            return
        # Only here, behind the block, is the error's traceback gone, and with it the memory that its frames held.
        if ran_out:
            self._take_less(len(left) // 2 if len(left) > 1 else self._room.batch_size)
        size = max(len(left) // 2, 1) if ran_out else 1
        for start in range(0, len(left), size):
            self._room.leave(batch)  # those that are over, before or by now: what they had is gone with their run
            yield from self._answer_together(left[start : start + size], batch, may_join=False)

    def _write(self, written: "_Written", batch: list[Waiting], *, may_join: bool) -> _Turns:
        waiting = list(written.left.values())
        beginnings = _kept_by(waiting)
        run = self._run_of(waiting, beginnings)
        for each in waiting:
            each.job.begin()
        for pieces in run.steps():
            for place, each in list(written.left.items()):
                if each.job.is_over:
                    run.end(place)
                else:
                    each.job.write(pieces[place])
                    if not run.is_over(place):
                        continue
                    self._finish(each, run, place)
                del written.left[place]
                if written.num_places > 1:  # or the next turn of a chat goes on from it
                    run.forget(place)
            if may_join and run.can_be_joined:
                self._room.leave(batch)
                if written.num_places < _MOST_PLACES:
                    self._join(run, written, batch, beginnings)
            yield
        for place, each in written.left.items():
            if not each.job.is_over:  # it could not go on
                self._finish(each, run, place)
        if written.num_places == 1 and (kept := run.kept) is not None:  # for the next turn of a chat
            beginnings.append(kept)
        self._keep_prompts(beginnings)

    def _join(self, run: AnswerRun, written: "_Written", batch: list[Waiting], beginnings: "list[KeptPrompt]") -> None:
        """Let those join who can."""
        joining = self._room.join(batch)
        if not joining:
            return
        self._keep_prompts(beginnings)
        beginnings[:] = _kept_by(joining)
        try:
            run.join(_asked(joining, {each.sight for each in written.left.values()}))
        except Exception as error:  # noqa: BLE001  whoever's fault it is: what fails together is tried alone
            let_go(error)
            self._room.part(batch, joining)
            self._turns.append(self._answer(joining))
            return
        written.add(joining)
        for each in joining:
            each.job.begin()

    def _run_of(self, batch: Sequence[Waiting], beginnings: "list[KeptPrompt]") -> AnswerRun:
        first, sight = batch[0].job.request, batch[0].sight if len(batch) == 1 else None
        return AnswerRun(
            self._answerer.checkpoint,
            _asked(batch, set()),
            first.generation,
            prompt=first.prompt,
            choices=first.choices,
            kept=None if sight is None else sight.kept,
            keep=sight is not None,
            beginnings=beginnings,
        )

    def _finish(self, waiting: Waiting, run: AnswerRun, place: int) -> None:
        answer = run.answer(place)
        if waiting.sight is not None:
            waiting.sight.pay()
        if answer.error is None:
            self._room.metrics.answered(waiting.job, answer)
        self._room.tell_last(waiting.job, answer.error or answer)

    def _keep_prompts(self, beginnings: "Sequence[KeptPrompt]") -> None:
        """Keep what the next question about each video begins with."""
        kept = {id(prompt.visual_tokens): prompt for prompt in beginnings}
        with self._room.kept() as sights:
            for sight in sights:
                if sight.encoded is not None:
                    sight.kept = kept.get(id(sight.encoded.visual_tokens), sight.kept)

    @property
    def _has_kept(self) -> bool:
        with self._room.kept() as sights:
            return any(sight.kept is not None for sight in sights)

    def _take_less(self, batch_size: int) -> None:
        self._room.take_less(batch_size)
        release_memory(self._answerer.checkpoint.model.device)


class _Written:
    """The requests of a run that are `left`, by their places in it, of which there were `num_places`."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        self.left, self.num_places = dict(enumerate(waiting)), len(waiting)

    def add(self, joining: Sequence[Waiting]) -> None:
        """Of requests that joined the run."""
        self.left.update(enumerate(joining, self.num_places))
        self.num_places += len(joining)


def _asked(batch: Sequence[Waiting], seen: set[Sight | None]) -> list[Asked]:
    """What a run is asked; the first question about a video has its cost in its timings, if none before had."""
    asked, seen = [], set(seen)
    for waiting in batch:
        request, sight, encoded = waiting.job.request, waiting.sight, waiting.encoded
        if sight is not None and encoded is not None:
            encoded = encoded.paid() if sight in seen else encoded
            encoded = encoded.lying_at(request.shown_as or request.video or sight.view.file.path)
            encoded = replace(encoded, window=request.window)
            seen.add(sight)
        asked.append(Asked(encoded, request.question, request.history))
    return asked


def _kept_by(batch: Sequence[Waiting]) -> "list[KeptPrompt]":
    """What is kept of prompts about their videos."""
    return [sight.kept for sight in {waiting.sight for waiting in batch} if sight and sight.kept]


def _failure(error: Exception) -> SfvqaError:
    """What is told to everybody, as there will be no more answers."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if is_device_lost(error):
        return DeviceLostError(f"The GPU failed: {reason}.", "Start the server again.")
    to_be_told(error)  # for the log
    return ServerError(f"The server failed: {reason}.", "Start it again, and report it.")
