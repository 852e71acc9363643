"""What `/metrics` tells, as Prometheus reads it: requests, tokens, and where the time goes."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sfvqa.inference.answer import Answer
from sfvqa.serve.request import Job

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts what happens to requests; of several threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.http = Counter(
            "sfvqa_http_requests", "HTTP requests, by route and status.", ("route", "status"), registry=own
        )
        self._answers = Counter("sfvqa_answers", "Answers, by why they ended.", ("finish_reason",), registry=own)
        self.failed = Counter("sfvqa_failures", "Requests that failed, by error.", ("error",), registry=own)
        self.dropped = Counter("sfvqa_dropped", "Requests that nobody waited for any longer.", registry=own)
        self.refused = Counter("sfvqa_busy", "Requests refused because there were too many.", registry=own)
        self._tokens = Counter(
            "sfvqa_tokens", "Tokens of prompts, of these reused ones, and new ones.", ("kind",), registry=own
        )
        self._seconds = Counter("sfvqa_seconds", "Seconds that each stage of answering took.", ("stage",), registry=own)
        self._first = Histogram(
            "sfvqa_first_token_seconds", "From a request to the first token.", buckets=_SECONDS, registry=own
        )
        self._whole = Histogram("sfvqa_answer_seconds", "From a request to its answer.", buckets=_SECONDS, registry=own)

    def show(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Tell a value that is asked for each time."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def answered(self, job: Job, answer: Answer) -> None:
        """Count an answer. Of a batch each has its share of the seconds."""
        now, timings, tokens = time.monotonic(), answer.timings, answer.tokens
        self._answers.labels(answer.finish_reason.value).inc()
        for kind, number in (("prompt", tokens.prompt), ("reused", tokens.reused), ("new", tokens.new)):
            self._tokens.labels(kind).inc(number)
        shared = timings.asked_together
        seconds: dict[str, float] = {
            "read": timings.read_seconds,
            "encode": timings.encode_seconds,
            "prefill": timings.prefill_seconds / shared,
            "decode": timings.decode_seconds / shared,
        }
        for stage, spent in seconds.items():
            self._seconds.labels(stage).inc(spent)
        self._first.observe((job.first_piece_at or now) - job.came_at)
        self._whole.observe(now - job.came_at)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
