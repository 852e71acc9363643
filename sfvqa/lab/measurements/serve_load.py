"""`python -m sfvqa.lab.measurements.serve_load`: many clients at a server, beside `sfvqa batch` on the same work.

The videos show scenes whose answers are known; some are damaged, some are pipes that never end. Server and batch run in
turns, each with a model that is loaded and has answered once. All is asked twice: about videos that are new, with
nothing kept on disk, and about those that are known, which the server has in memory and the batch in its video cache.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import LARGEST_BATCH, BatchOptions
from sfvqa.batch.record import read_records
from sfvqa.batch.runner import run_batch
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.tiny.questions import Family, Question, ask
from sfvqa.lab.tiny.render import write_video
from sfvqa.lab.tiny.scenes import Scene, random_scene

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

_SETTLED_AFTER = 50  # requests, from which on memory should not grow
_PATIENCE_SECONDS = 300.0
_UNREADABLE = 422
_MOST_TOKENS = 64  # of an answer: more than tiny writes
_KNOWS = "tiny"
"""The model whose answers can be judged; of another one, with random weights, it counts that there is one."""


@dataclass(frozen=True)
class Asked:
    """A question about a file; `question` None where the file can be no video."""

    video: Path
    text: str
    question: Question | None = None


@dataclass(frozen=True)
class Outcome:
    """What came back: the status, the answer, or what the error says."""

    asked: Asked
    status: int
    said: str

    @property
    def is_right(self) -> bool:
        """Whether a good video has its true answer, and a bad one its error."""
        question = self.asked.question
        return self.has_right_status and (question is None or question.is_right(self.said))

    @property
    def has_right_status(self) -> bool:
        """Whether a good video has an answer, and a bad one its error."""
        return self.status == (_UNREADABLE if self.asked.question is None else 200)


@dataclass(frozen=True)
class Round:
    """All requests once, by the server and by a batch; bytes are the server's resident memory."""

    videos: str
    num_requests: int
    num_right: int
    num_same: int
    server_seconds: float
    batch_seconds: float
    settled_bytes: int
    end_bytes: int

    @property
    def throughput(self) -> float:
        """The server's, of the batch's."""
        return self.batch_seconds / self.server_seconds

    @property
    def growth(self) -> float:
        """Of the server's memory since it had settled."""
        return self.end_bytes / self.settled_bytes - 1


def make_work(folder: Path, num_requests: int, *, num_good: int, num_damaged: int, num_pipes: int) -> list[Asked]:
    """Write the videos, and draw as many questions about each, no two of one video alike; video by video."""
    rng = np.random.default_rng(0)
    count = num_requests // (num_good + num_damaged + num_pipes)
    asked: list[Asked] = []
    for number in range(num_good + num_damaged):
        scene, path = random_scene(rng), folder / f"{number:03}.mp4"
        write_video(scene, path, preset="ultrafast")
        if number >= num_good:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])  # what says where the frames lie is at the end, and gone
        for question in _questions(rng, scene, count):
            asked.append(Asked(path, question.text, question if number < num_good else None))
    for number in range(num_pipes):
        os.mkfifo(folder / f"pipe-{number}.mp4")
        asked += [Asked(folder / f"pipe-{number}.mp4", f"What is it, {each}?") for each in range(count)]
    return asked


def _questions(rng: np.random.Generator, scene: Scene, count: int) -> list[Question]:
    found: dict[str, Question] = {}
    families = [family for family in Family if family is not Family.OUT_OF_SCOPE]
    while len(found) < count:
        question = ask(rng, scene, families[int(rng.integers(len(families)))])
        if question is not None:
            found.setdefault(question.text, question)
    return list(found.values())


@contextlib.contextmanager
def endless(pipes: Sequence[Path]) -> Iterator[None]:
    """Write to pipes without end, as soon as anybody reads them."""
    over = threading.Event()

    def write(pipe: Path) -> None:
        descriptor = os.open(pipe, os.O_RDWR)  # opens at once, and never sees an end
        os.set_blocking(descriptor, False)
        while not over.wait(0.01):
            with contextlib.suppress(OSError):
                os.write(descriptor, bytes(4096))
        os.close(descriptor)

    threads = [threading.Thread(target=write, args=(pipe,), daemon=True) for pipe in pipes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def serving(folder: Path, model: str) -> Iterator[tuple[int, int]]:
    """`sfvqa serve` in a process of its own, which has answered once: its id and its port."""
    command = [sys.executable, "-m", "sfvqa", "serve", "--model", model, "--device", "cpu", "--no-cache"]
    command += ["--port", "0", "--folder", str(folder), *(["--random-weights"] if model != _KNOWS else [])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        port = int(said.partition("http://127.0.0.1:")[2].partition(";")[0])
        Client(port, model).ask(None, "What is it?")
        yield process.pid, port
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_SECONDS)
    finally:
        process.kill()


class Client(threading.local):
    """Asks over a connection that stays open, one for each thread, as the clients of such servers do."""

    def __init__(self, port: int, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
        self._model = model

    def ask(self, video: Path | None, text: str) -> tuple[int, str]:
        """The status, and the answer or the error."""
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if video is not None:
            content.append({"type": "video_url", "video_url": {"url": video.as_uri()}})
        message = {"role": "user", "content": content}
        body = json.dumps({"model": self._model, "max_tokens": _MOST_TOKENS, "messages": [message]})
        self._connection.request("POST", "/v1/chat/completions", body)
        response = self._connection.getresponse()
        found = json.loads(response.read())
        if response.status == 200:
            return 200, found["choices"][0]["message"]["content"]
        return response.status, found["error"]["message"]


def resident_bytes(process: int) -> int:
    """What a process takes of memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Served:
    """All requests at the server once: what came back, how long it took, and its memory after each request."""

    outcomes: list[Outcome]
    seconds: float
    sizes: list[int]


def ask_server(folder: Path, model: str, work: Sequence[Asked], num_clients: int) -> list[Served]:
    """All requests by clients that ask one after the other, and all of them again."""
    passes: list[Served] = []
    with serving(folder, model) as (process, port), ThreadPoolExecutor(num_clients) as pool:
        client = Client(port, model)
        for _ in range(2):
            sizes: list[int] = []

            def one(asked: Asked, sizes: list[int] = sizes) -> Outcome:
                outcome = Outcome(asked, *client.ask(asked.video, asked.text))
                sizes.append(resident_bytes(process))
                return outcome

            began = time.perf_counter()
            outcomes = list(pool.map(one, work))
            passes.append(Served(outcomes, time.perf_counter() - began, sizes))
    return passes


def ask_batch(qa: VideoQA, work: Sequence[Asked]) -> tuple[dict[tuple[str, str], str], float]:
    """The same by a batch in this process: the answers by video and question, and the seconds."""
    items = [Item(asked.video, asked.video.name, asked.text) for asked in work]
    options = BatchOptions(
        batch_size=LARGEST_BATCH,
        sampling=qa.default_sampling,
        generation=GenerationOptions(max_new_tokens=_MOST_TOKENS),
    )
    qa.ask(None, "What is it?")
    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder) / "out.jsonl", time.perf_counter()
        with Journal(path) as journal:
            for _ in run_batch(qa, items, journal, options):
                pass
        seconds = time.perf_counter() - began
        records = list(read_records(path))
    return {(record["video"], record["question"]): record.get("answer", "") for record in records}, seconds


def measure(qa: VideoQA, folder: Path, work: Sequence[Asked], num_clients: int) -> tuple[list[Round], list[Outcome]]:
    """A round about new videos and one about known ones, and what was not right in them."""
    knows = qa.checkpoint.location.name == _KNOWS

    def is_right(outcome: Outcome) -> bool:
        return outcome.is_right if knows else outcome.has_right_status

    answers, new_seconds = ask_batch(qa, work)
    with tempfile.TemporaryDirectory() as cache:
        knowing = VideoQA(qa.checkpoint, video_cache=VideoCache(Path(cache)))
        ask_batch(knowing, work)
        _, known_seconds = ask_batch(knowing, work)
    passes = ask_server(folder, qa.checkpoint.location.name, work, num_clients)
    settled = passes[0].sizes[min(_SETTLED_AFTER, len(work)) - 1]
    rounds = [
        Round(
            videos=videos,
            num_requests=len(work),
            num_right=sum(map(is_right, served.outcomes)),
            num_same=sum(
                outcome.asked.question is None or outcome.said == answers[outcome.asked.video.name, outcome.asked.text]
                for outcome in served.outcomes
            ),
            server_seconds=served.seconds,
            batch_seconds=batch_seconds,
            settled_bytes=settled,
            end_bytes=served.sizes[-1],
        )
        for videos, served, batch_seconds in zip(("new", "known"), passes, (new_seconds, known_seconds), strict=True)
    ]
    return rounds, [outcome for served in passes for outcome in served.outcomes if not is_right(outcome)]


def table(rounds: Sequence[Round]) -> str:
    """Markdown: a row a round."""
    heads = ["requests", "right", "as the batch", "server", "batch", "throughput", "memory after 50", "at the end"]
    rows = [
        [
            each.videos,
            f"{each.num_requests}",
            f"{each.num_right}",
            f"{each.num_same}",
            f"{each.server_seconds:.1f} s",
            f"{each.batch_seconds:.1f} s",
            f"{each.throughput:.2f} ×",
            f"{each.settled_bytes / 1e6:.0f} MB",
            f"{each.growth:+.1%}",
        ]
        for each in rounds
    ]
    return markdown_table(["videos", *heads], rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.serve_load", __doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--good", type=int, default=13, help="videos that can be read")
    parser.add_argument("--damaged", type=int, default=5, help="videos that cannot")
    parser.add_argument("--pipes", type=int, default=2, help="pipes that never end")
    parser.add_argument("--model", default=_KNOWS, help="or one that runs with random weights")
    parser.add_argument("--shuffled", action="store_true", help="ask about all videos in turns, not one by one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the videos, ask, print the table and what was not right."""
    options = parse_arguments(arguments)
    qa = VideoQA.load(options.model, device="cpu", random_weights=options.model != _KNOWS)
    rounds = list[Round]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        work = make_work(
            folder, options.requests, num_good=options.good, num_damaged=options.damaged, num_pipes=options.pipes
        )
        if options.shuffled:
            np.random.default_rng(0).shuffle(work)
        with endless(sorted(folder.glob("pipe-*"))):
            for _ in range(options.rounds):
                found, wrong = measure(qa, folder, work, options.clients)
                rounds += found
                for outcome in wrong:
                    print(f"{outcome.asked.video.name}: {outcome.asked.text} {outcome.status} {outcome.said}")
    write_figures(options.json, rounds=[asdict(each) for each in rounds])
    print(table(rounds))
    for videos in ("new", "known"):
        median = statistics.median(each.throughput for each in rounds if each.videos == videos)
        print(f"\nAbout {videos} videos, the server has {median:.2f} of the batch's throughput (median).")


if __name__ == "__main__":
    main()
