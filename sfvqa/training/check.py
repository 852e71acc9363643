"""Read all annotations and every video they name once, and say what is wrong, row by row; loads no model."""

import json
import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sfvqa.checkpoints.find import locate
from sfvqa.errors import ExitCode, SfvqaError, UsageError, VideoError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.model import SlowFastConfig, read_config
from sfvqa.training.annotations import Example, Fault, Place, Source, read_rows, says_ignored
from sfvqa.training.rows import DialogueWriter, video_layout
from sfvqa.training.shards import Streamed, is_streamed
from sfvqa.training.stream import RowsOnDisk
from sfvqa.training.validation import content_of
from sfvqa.video.clip import ClipFacts
from sfvqa.video.fitting import resize_to
from sfvqa.video.readers import ReadOptions, num_available_cores
from sfvqa.video.reading import read_frame_by_frame
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import plural

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a row and what to do about it; what is no error is only warned of in training."""

    place: Place
    message: str
    remedy: str
    is_error: bool = True

    def as_json(self) -> str:
        """One line."""
        place = {"file": str(self.place.file), "row": self.place.number, "id": self.place.name}
        level = "error" if self.is_error else "warning"
        said = {"schema_version": 1, **place, "level": level, "message": self.message, "remedy": self.remedy}
        return json.dumps(said, ensure_ascii=False)

    def __str__(self) -> str:
        return f"{self.place}: {self.message} {self.remedy}".rstrip()


@dataclass(frozen=True, eq=False)
class Ruler:
    """What tells whether a row has room in a model: its config, and its tokenizer and template."""

    writer: DialogueWriter
    config: SlowFastConfig

    @classmethod
    def of(cls, model: str | Path) -> "Ruler":
        """Read them of a model, without its weights. Raises ModelError."""
        folder = locate(model).folder
        config = read_config(folder)
        return cls(DialogueWriter.of(folder, config), config)

    def check(self, example: Example, seen: ClipFacts | None) -> None:
        """Raise SfvqaError for a row that is too long, or that the template refuses."""
        layout = () if seen is None else video_layout(seen.timestamps_seconds, seen.video.duration_seconds, self.config)
        length = max(len(row.ids) for row in self.writer.rows(example, layout))
        if length > (positions := int(self.config.decoder_config.max_position_embeddings)):
            told = f"It takes {length:,} tokens, but the model has only {positions:,} positions."
            raise UsageError(
                told, "Shorten it, take fewer frames, or average the fast tokens over more when converting."
            )


def find_faults(
    sources: Sequence[Source],
    video_folder: Path,
    sampling: SamplingOptions,
    ruler: Ruler | None,
    num_readers: int,
    validation: Path | None = None,
) -> Iterator[Finding]:
    """Yield all that is wrong, in the order of the rows; each video is read once, `num_readers` at a time.

    Without a ruler no row is too long. Rows of the file `validation` come last, and may show nothing that others show.
    """
    looks: dict[Path, Future[ClipFacts]] = {}
    learned: dict[str, Place] = {}
    whole_files = any(map(is_streamed, sources))  # as the run recognises them
    videos = VideoCache(Path(), 0, whole_files=whole_files)  # keeps nothing; it knows what it hashed
    told = time.monotonic()
    pool = ThreadPoolExecutor(num_readers)
    try:
        learned_from = {source.path: (source, False) for source in sources}
        held_out = [] if validation is None else [(Source(validation), True)]
        for source, is_held_out in [*learned_from.values(), *held_out]:
            compare = partial(_not_apart, learned=learned, videos=videos, is_held_out=is_held_out)
            apart = (lambda _: iter(())) if validation is None else compare
            if is_streamed(source) and not is_held_out:
                yield from _find_in_stream(source, video_folder, pool, 2 * num_readers, sampling, ruler, apart)
                continue
            path = Path(source.path)
            rows, ignored = read_rows(path, video_folder)
            if ignored:
                yield Finding(Place(path), says_ignored(path, ignored), "", is_error=False)
            new = [row.video for row in rows if isinstance(row, Example) and row.video and row.video not in looks]
            looks |= {video: pool.submit(_look_at, video, sampling) for video in dict.fromkeys(new)}
            unseen = set(new)
            for number, row in enumerate(rows):
                yield from _findings(row, looks, unseen, ruler)
                if isinstance(row, Example):
                    yield from apart(row)
                if time.monotonic() - told > _SECONDS_BETWEEN_WORDS:
                    logger.info("%s: %s of %s", path, f"{number + 1:,}", plural(len(rows), "row"))
                    told = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)


def _find_in_stream(
    source: Source,
    video_folder: Path,
    pool: ThreadPoolExecutor,
    num_ahead: int,
    sampling: SamplingOptions,
    ruler: Ruler | None,
    apart: Callable[[Example], Iterator[Finding]],
) -> Iterator[Finding]:
    """The same for rows that are streamed, of which a few videos lie on disk at a time."""
    with TemporaryDirectory() as folder:
        rows = RowsOnDisk(Path(folder), video_folder)
        waiting = deque[tuple[Example | Fault, dict[Path, Future[ClipFacts]]]]()

        def oldest() -> Iterator[Finding]:
            row, looks = waiting.popleft()
            yield from _findings(row, looks, set(looks), ruler)
            if isinstance(row, Example):
                yield from apart(row)
                rows.let_go(row)

        for shard in Streamed.of(source).shards:
            for found in shard.rows():
                row = rows.example(found)
                video = row.video if isinstance(row, Example) else None
                waiting.append((row, {} if video is None else {video: pool.submit(_look_at, video, sampling)}))
                if len(waiting) > num_ahead:
                    yield from oldest()
            logger.info("%s is read", shard.file)
        while waiting:
            yield from oldest()


_SECONDS_BETWEEN_WORDS = 10.0
_ENOUGH_TO_DECODE = partial(resize_to, width=64, height=64)


def _look_at(video: Path, sampling: SamplingOptions) -> ClipFacts:
    """Read all of a video that training would, and keep nothing of it."""
    steps = read_frame_by_frame(video, sampling, reading=ReadOptions(num_threads=1), fit=_ENOUGH_TO_DECODE)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            facts: ClipFacts = end.value
            return facts


def _findings(
    row: Example | Fault, looks: dict[Path, Future[ClipFacts]], unseen: set[Path], ruler: Ruler | None
) -> Iterator[Finding]:
    """What is wrong with one row; warnings about a video that is `unseen` so far, which it then is no more."""
    if isinstance(row, Fault):
        yield Finding(row.place, row.error.message, row.error.remedy)
        return
    assert row.place is not None
    try:
        seen = None if row.video is None else looks[row.video].result()
        if seen is not None and row.video in unseen:
            unseen.remove(row.video)
            yield from (Finding(row.place, f"{row.video}: {said}", "", is_error=False) for said in seen.warnings)
        if ruler is not None:
            ruler.check(row, seen)
    except SfvqaError as error:
        yield Finding(row.place, error.message, error.remedy)


def _not_apart(row: Example, learned: dict[str, Place], videos: VideoCache, *, is_held_out: bool) -> Iterator[Finding]:
    """That a row which is held out is about what is `learned` from, which is noted of the others."""
    assert row.place is not None
    try:
        content = content_of(row, videos)
    except VideoError:  # which is found anyway
        return
    if not is_held_out:
        learned.setdefault(content, row.place)
    elif content in learned:
        yield Finding(row.place, f"What it is about is learned from too: {learned[content]}.", "Remove one of the two.")


def report_faults(
    sources: Sequence[Source],
    video_folder: Path,
    sampling: SamplingOptions,
    model: str | Path | None,
    *,
    num_readers: int = 0,
    validation: Path | None = None,
    as_json: bool = False,
) -> ExitCode:
    """Print what is wrong, a line each, and their number to stderr; the exit code a run would end with.

    num_readers: videos that are read at a time, 0 for one a core.
    """
    ruler = None if model is None else Ruler.of(model)
    counts: Counter[bool] = Counter()
    num_readers = num_readers or num_available_cores()
    for finding in find_faults(sources, video_folder, sampling, ruler, num_readers, validation):
        counts[finding.is_error] += 1
        said = (finding.as_json() if as_json else str(finding)).encode(errors="backslashreplace").decode()
        print(said, file=sys.stdout if as_json or finding.is_error else sys.stderr)
    num_files = len({source.path for source in sources} | ({validation} if validation else set()))
    files = plural(num_files, "source" if any(map(is_streamed, sources)) else "file")
    wrong, warned = plural(counts[True], "error"), plural(counts[False], "warning")
    lengths = "" if ruler else " Lengths are checked with --model."
    print(f"{files} checked: {wrong}, {warned}.{lengths}", file=sys.stderr)
    return ExitCode.USAGE if counts[True] else ExitCode.OK
