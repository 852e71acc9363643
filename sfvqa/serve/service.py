"""Many requests, one model: videos are read by threads, and one thread encodes and answers.

Requests about the same video share its reading and encoding, and those that are alike are answered in one batch. Knows
nothing of HTTP: what happens to a request is told to its Job.
"""

import threading
import time
from collections.abc import Callable
from typing import Self

from sfvqa.errors import PromptTooLongError, UsageError
from sfvqa.inference.question import check_choices, check_looks, check_question
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.metrics import Metrics
from sfvqa.serve.model_thread import ModelThread
from sfvqa.serve.request import Event, Job, Request, Work
from sfvqa.serve.sight import View
from sfvqa.serve.waiting_room import ServiceOptions, WaitingRoom
from sfvqa.video.readers.isolated import SpareProcess

_MOST_CHARACTERS_A_TOKEN = 16  # more than any text has, so that none too long is tokenised


class Service:
    """A context manager in which `submit` takes requests, from any thread, and its `room` says how they stand.

    What goes wrong with a request is told to its job; what no request can go on after, a GPU that fails, is the room's
    failure. Leaving the block waits `last_wait_seconds` for the threads; `has_ended` says whether all have.
    """

    last_wait_seconds = 10.0

    def __init__(self, answerer: VideoQA, options: ServiceOptions | None = None) -> None:
        self.answerer = answerer
        self.options = options or ServiceOptions()
        self.metrics = Metrics()
        self._spare = SpareProcess()
        self.room = room = WaitingRoom(self.options, self.metrics)
        self._threads = [
            threading.Thread(target=self._read_videos, name="sfvqa-reading", daemon=True)
            for _ in range(self.options.num_readers)
        ]
        self._threads.append(threading.Thread(target=ModelThread(answerer, room).run, name="sfvqa-model", daemon=True))
        self.metrics.show("sfvqa_running", "Answers being written.", lambda: room.num_running)
        self.metrics.show("sfvqa_waiting", "Requests before that.", lambda: room.num_requests - room.num_running)
        self.metrics.show("sfvqa_kept_bytes", "Encoded videos and prompts in memory.", lambda: room.num_kept_bytes)

    def __enter__(self) -> Self:
        self._spare.make()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.room.cut()
        self.room.close()
        self._spare.close()
        deadline = time.monotonic() + self.last_wait_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    @property
    def has_ended(self) -> bool:
        """Whether no thread is left, in the middle of a step of the model, say."""
        return not any(thread.is_alive() for thread in self._threads)

    def submit(self, request: Request, tell: Callable[[Event], None], work: Work | None = None) -> Job:
        """Take a request, whose events are told until it is over; with `work`, that is done in place of answering.

        Raises ServerBusyError, ServerStoppingError, and UsageError, VideoError for what is wrong with it at first
        sight; hashes nothing, but looks at the file.
        """
        if work is None:
            self._check(request)
        view = None if request.video is None else View.of(request.video, request)
        job = Job(request, tell, work)
        self.room.admit(job, view)
        return job

    def _check(self, request: Request) -> None:
        check_question(request.question)
        most, model = self.options.most_frames, self.answerer.checkpoint.model
        if request.num_frames > most:
            raise UsageError(f"{request.num_frames} frames are asked for.", f"This server looks at {most} at most.")
        positions = int(model.config.decoder_config.max_position_embeddings)
        if request.num_characters > positions * _MOST_CHARACTERS_A_TOKEN:
            raise PromptTooLongError(
                f"The request has {request.num_characters:,} characters, and the model {positions:,} positions.",
                "Ask a shorter question, or leave out earlier turns.",
            )
        if request.choices is not None:
            check_choices(request.choices)
            request.generation.check_for_choices()
        if request.generation.evidence:
            check_looks(self.answerer.checkpoint.location.name, model.config.hybrid_layers)

    def _read_videos(self) -> None:
        while (sight := self.room.next_to_read()) is not None:
            try:
                sight.read(self.answerer, self._spare)
            except Exception as error:  # noqa: BLE001  told to all who wait for the video
                self.room.is_unseeable(sight, error)
            else:
                self.room.is_read(sight)
            del sight  # or the thread would hold its frames until the next one comes
            self._spare.make()
