"""What is said in a video, as lines with times: a Whisper model hears the sound, piece by piece. Imports no torch.

faster-whisper does the hearing, on the CPU. It would hold a file's whole sound and its spectrum, 3.4 GB for an hour;
here it gets pieces of some minutes, cut where it is quietest, which take 0.5 GB.
"""

import json
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.checkpoints.find import identify_speech, locate_speech
from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.video_cache.entry import library_version
from sfvqa.video.readers import ReaderName
from sfvqa.video.readers.local_file import FileState, check_local_file
from sfvqa.video.subtitles import SubtitleLine, Subtitles

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.video.readers import ReadOptions, VideoReader
    from sfvqa.video.readers.sound import Samples

HEARING_VERSION = 1
"""Raise it whenever the same sound may become other lines than before."""

_PIECE_SECONDS = 300
_CUT_WITHIN_SECONDS = 60  # of the end of a piece, at its quietest place
_QUIET_SECONDS = 0.2  # for which it has to be quiet there
_SHORTEST_GAP_SECONDS = 2.0  # in the sound, from which on a new piece begins; a shorter one is silence
_LONGEST_PAUSE_SECONDS = 1.0  # between the words of a line
_REMEMBERED = 16  # transcripts
_STAGE = "Listening (seconds)"


@dataclass(frozen=True)
class SpeechOptions:
    """Which speech model hears, by name or folder (None: the first that is on this machine), and in which language.

    `language` is a code such as `de`; None is what the model takes the first piece with speech to be.
    """

    model: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Heard:
    """How many seconds of the video were listened to; of how many."""

    done: int
    total: int
    stage: str = _STAGE


@dataclass(frozen=True)
class Transcript:
    """The lines of one video in order, by which model, in which language (None where nobody says anything)."""

    lines: tuple[SubtitleLine, ...]
    model: str
    language: str | None
    warnings: tuple[str, ...] = ()

    @property
    def as_subtitles(self) -> Subtitles:
        """As they go into a prompt."""
        language = f", {self.language}" if self.language else ""
        return Subtitles(self.lines, f"speech ({self.model}{language})", self.warnings)

    def to_json(self) -> str:
        """As the cache keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Transcript":
        """What `to_json` wrote."""
        fields = json.loads(text)
        lines = tuple(SubtitleLine(**line) for line in fields["lines"])
        return cls(lines, fields["model"], fields["language"], tuple(fields["warnings"]))


class Transcriber:
    """A speech model that is loaded when it is first needed; several threads may use it, one after the other.

    Raises ModelError when built for a model that is not here, UsageError where faster-whisper is not installed.
    """

    def __init__(self, options: SpeechOptions | None = None, cache: "VideoCache | None" = None) -> None:
        check_installed()  # first: a model that was downloaded before would be of no use
        self._options = options or SpeechOptions()
        self._location = locate_speech(self._options.model)
        self._cache = cache
        self._turn = threading.Lock()
        self._latest: dict[FileState, Transcript] = {}

    @cached_property
    def made_with(self) -> dict[str, object]:
        """What a transcript depends on beside the video."""
        return {
            "weights": identify_speech(self._location),
            "language": self._options.language,
            "hearing_version": HEARING_VERSION,
            "faster_whisper": library_version("faster-whisper"),
        }

    def check_language(self) -> None:
        """Load the model if a language was asked for; UsageError where it lacks that."""
        if self._options.language is not None:
            _ = self._model

    def transcribe(self, video: str | Path, reading: "ReadOptions | None" = None) -> Transcript:
        """What is said in a video file, all of it. VideoError, ModelError, UsageError."""
        steps = self.transcribe_progressively(Path(video), reading)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                transcript: Transcript = end.value
                return transcript

    def transcribe_progressively(
        self, video: Path, reading: "ReadOptions | None" = None
    ) -> Generator[Heard, None, Transcript]:
        """The same, with its progress."""
        from sfvqa.video.readers import open_video

        if (kept := self.kept(video)) is not None:
            return kept
        with open_video(video, reading) as reader:
            return (yield from self.transcribe_open(reader))

    def transcribe_open(self, reader: "VideoReader") -> Generator[Heard, None, Transcript]:
        """The same of an open video, of which nothing else is wanted meanwhile."""
        with self._turn:
            video = reader.info.path
            if (kept := self.kept(video)) is not None:  # by the thread that had the turn before
                return kept
            transcript = yield from self._hear(reader)
            # Other readers hear nothing, which is no reason to hear nothing with this one.
            if reader.name is ReaderName.PYAV and reader.opened_as is not None and reader.is_unchanged:
                self._remember(reader.opened_as, transcript)
                transcript = self._keep(video, transcript)
            return transcript

    def kept(self, video: Path) -> Transcript | None:
        """What is known of a video, which then need not be opened. VideoError."""
        if (latest := self._latest.get(FileState.of(check_local_file(video)))) is not None:
            return latest
        if self._cache is None:
            return None
        text = self._cache.load_text(self._cache.content_of(video), self._key)
        return None if text is None else Transcript.from_json(text)

    def _remember(self, state: FileState, transcript: Transcript) -> None:
        """For other windows of the video, where nothing is kept on disk; several videos are read side by side."""
        self._latest[state] = transcript
        while len(self._latest) > _REMEMBERED:
            del self._latest[next(iter(self._latest))]

    def _keep(self, video: Path, transcript: Transcript) -> Transcript:
        """The same, with a warning where it cannot be kept."""
        if self._cache is None:
            return transcript
        warning = self._cache.save_text(self._cache.content_of(video), self._key, transcript.to_json())
        return replace(transcript, warnings=(*transcript.warnings, warning)) if warning else transcript

    @cached_property
    def _key(self) -> str:
        return json.dumps(self.made_with, sort_keys=True)

    @cached_property
    def _model(self) -> Any:
        return load_model(self._location.folder, self._options.language)

    def _hear(self, reader: "VideoReader") -> Generator[Heard, None, Transcript]:
        total = round(reader.info.duration_seconds)
        language = self._options.language
        lines: list[SubtitleLine] = []
        warnings: list[str] = []
        with closing(reader.sound()) as sound:
            for start, samples in pieces(_only_samples(sound, warnings)):
                yield Heard(min(round(start), total), total)
                if not (clips := find_speech(samples)):  # of silence and noise Whisper would make words
                    continue
                segments, info = self._model.transcribe(
                    samples,
                    language=language,
                    word_timestamps=True,
                    clip_timestamps=clips,  # its own filter joins them, and times are off where they meet
                    condition_on_previous_text=False,  # lest one slip spreads; so it matters little where pieces end
                )
                language = info.language  # of all pieces, that of the first with speech
                for segment in segments:  # each is computed here
                    lines.extend(_lines(segment, start))
                    yield Heard(min(round(start + segment.end), total), total)
        said_in = language if lines else None
        return Transcript(tuple(lines), self._location.name, said_in, tuple(warnings))


def check_installed() -> None:
    """UsageError where faster-whisper is missing; it is not imported."""
    from importlib.util import find_spec

    if find_spec("faster_whisper") is None:
        raise UsageError(
            "Writing down what is said needs faster-whisper, which is not installed.",
            'Install it: pip install "sfvqa[speech]".',
        )


def load_model(folder: Path, language: str | None) -> Any:
    """A WhisperModel of faster-whisper. CheckpointError for a damaged one, UsageError for a language it lacks."""
    from faster_whisper import WhisperModel

    try:
        model = WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise CheckpointError(
            f"The speech model in {folder} cannot be loaded: {reason}.", "Download or convert it again."
        ) from error
    known = model.supported_languages
    if language is not None and language not in known:
        which = "only English (en)" if known == ["en"] else ", ".join(sorted(known))
        raise UsageError(f"The speech model in {folder} does not know the language {language!r}.", f"It knows {which}.")
    return model


def find_speech(samples: Any) -> list[float]:
    """Where somebody speaks in samples [N] float32: begin and end in seconds of one stretch after the other."""
    from faster_whisper.vad import get_speech_timestamps

    from sfvqa.video.readers.sound import SAMPLE_RATE

    return [clip[edge] / SAMPLE_RATE for clip in get_speech_timestamps(samples) for edge in ("start", "end")]


def _only_samples(
    sound: "Iterable[tuple[float, Samples] | str]", warnings: list[str]
) -> "Iterator[tuple[float, Samples]]":
    for each in sound:
        if isinstance(each, str):
            warnings.append(each)
        else:
            yield each


def pieces(sound: "Iterable[tuple[float, Samples]]") -> "Iterator[tuple[float, Any]]":
    """(start in seconds, samples [N] float32 from -1 to 1) of some minutes each, from chunks that are shorter.

    Short gaps become silence; a long one, or the end of a chunk's room, begins a new piece.
    """
    import numpy as np

    from sfvqa.video.readers.sound import SAMPLE_RATE

    start, waiting = 0.0, np.zeros(0, np.float32)
    for begin, samples in sound:
        gap = begin - start - len(waiting) / SAMPLE_RATE
        if len(waiting) and gap >= _SHORTEST_GAP_SECONDS:
            yield start, waiting
            waiting = waiting[:0]
        silence = np.zeros(max(round(gap * SAMPLE_RATE), 0) if len(waiting) else 0, np.float32)
        start = start if len(waiting) else begin
        waiting = np.concatenate([waiting, silence, samples.astype(np.float32) / 32768])
        while len(waiting) >= _PIECE_SECONDS * SAMPLE_RATE:
            end = quietest_place(waiting[: _PIECE_SECONDS * SAMPLE_RATE])
            yield start, waiting[:end]
            start, waiting = start + end / SAMPLE_RATE, waiting[end:]
    if len(waiting):
        yield start, waiting


def quietest_place(samples: Any) -> int:
    """The place in samples [N], near their end, around which they are quietest."""
    import numpy as np

    from sfvqa.video.readers.sound import SAMPLE_RATE

    step = round(_QUIET_SECONDS * SAMPLE_RATE)
    before = max(len(samples) - _CUT_WITHIN_SECONDS * SAMPLE_RATE, 0)
    steps = samples[before : before + (len(samples) - before) // step * step].reshape(-1, step)
    return before + int(np.argmin((steps**2).sum(axis=1))) * step + step // 2


def _lines(segment: Any, start_seconds: float) -> Iterator[SubtitleLine]:
    """A line for every stretch of words without a pause: the model may make one segment of several."""
    stretch: list[Any] = []
    for word in segment.words or ():
        if stretch and word.start - stretch[-1].end > _LONGEST_PAUSE_SECONDS:
            yield from _line(stretch, start_seconds)
            stretch = []
        stretch.append(word)
    yield from _line(stretch, start_seconds)


def _line(words: list[Any], start_seconds: float) -> Iterator[SubtitleLine]:
    if text := " ".join("".join(word.word for word in words).split()):
        yield SubtitleLine(start_seconds + float(words[0].start), start_seconds + float(words[-1].end), text)
