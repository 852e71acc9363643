"""Answers on stdout: as they stream, one a line, or as JSON; and what is said of them and their video, on stderr."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sfvqa.cli.options import is_bundled
from sfvqa.cli.screen import WordWriter, print_json, printable
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.checkpoints.find import ModelSettings
    from sfvqa.cli.answer_options import TurnOptions
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.answer import Answer, AnswerStream
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.video import CropMode, SamplingOptions, VideoInfo, Window


PrintWhole = Callable[["Answer"], None]


def print_as_json(answer: "Answer") -> None:
    """Print an answer as an object in a line."""
    print_json(answer.to_dict())


class AnswerPrinter:
    """Prints answers on stdout; of `several`, the questions on stderr, and an empty line between answers.

    `print_whole` prints each once it is whole. Without it answers stream; where notices are quiet each is a line, in
    which line breaks become spaces.
    """

    def __init__(self, notices: "Notices", *, print_whole: PrintWhole | None, several: bool) -> None:
        self._notices = notices
        self._print_whole = print_whole
        self._several = several
        self._has_shown = False

    def show(self, question: str, stream: "AnswerStream", *, lead: str = "") -> "Answer":
        """Print one answer to the end, after a `lead`, and return it; what was printed stays when interrupted."""
        notices = self._notices
        if self._print_whole:
            with notices.waiting(f"Answering: {question}"):
                for _ in stream:
                    pass
            answer = _with_cut_noted(stream.answer)
            self._print_whole(answer)
            return answer
        if self._several:
            if self._has_shown and not notices.quiet:
                _end_line()
            self._has_shown = True
            notices.hint(question, style="bold")
        pieces, words, is_answered_by_newline = iter(stream), WordWriter(sys.stdout), False
        with notices.waiting("Thinking"):  # until the first piece; the spinner must be gone before anything is written
            piece = next(pieces, None)
        try:
            words.write(lead)
            while piece is not None:
                words.write(printable(piece.replace("\n", " ") if notices.quiet else piece))
                piece = next(pieces, None)
        except KeyboardInterrupt:  # on a terminal the newline that answers ^C ends this line too
            is_answered_by_newline = sys.stdout.isatty() and sys.stderr.isatty()
            raise
        finally:
            words.close()
            if not is_answered_by_newline:
                _end_line()
        return _with_cut_noted(stream.answer)


def _end_line() -> None:
    sys.stdout.write("\n")
    sys.stdout.flush()


def _with_cut_noted(answer: "Answer") -> "Answer":
    said = warnings_of_end(answer.finish_reason, answer.settings.max_new_tokens)
    return replace(answer, warnings=(*answer.warnings, *said))


def warnings_of_end(finish_reason: str, max_new_tokens: int) -> list[str]:
    """That an answer may be cut, where it ended because it had become too long."""
    if finish_reason != "length":
        return []
    limit = plural(max_new_tokens, "new token")
    return [f"The answer was cut at {limit}; raise --max-new-tokens for a longer one."]


def answer_questions(
    model: "VideoQA",
    encoded: "EncodedVideo",
    questions: Sequence[str],
    answers: "TurnOptions",
    prompt: "PromptOptions",
    notices: "Notices",
    *,
    print_whole: PrintWhole | None,
    batch_size: int,
) -> "list[Answer]":
    """Answer every question in order, one by one as they are written, or in batches; the first that fails ends it."""
    generation, choices = answers.generation(), answers.compared

    def stream_batches() -> "Iterator[AnswerStream]":
        from sfvqa.inference.answer import AnswerStream

        for start in range(0, len(questions), batch_size):
            seen = encoded if start == 0 else encoded.paid()
            batch = [(seen, question) for question in questions[start : start + batch_size]]
            with notices.waiting(f"Answering {plural(len(batch), 'question')}"):
                found = model.answer_batch(batch, generation, prompt=prompt, choices=choices)
            yield from map(AnswerStream.of, found)

    streams = stream_batches()
    if batch_size == 1:
        streams = model.stream_all(encoded, questions, generation, prompt=prompt, choices=choices)
    return print_answers(questions, streams, notices, print_whole=print_whole, window=encoded.window)


def print_answers(
    questions: Sequence[str],
    streams: "Iterator[AnswerStream]",
    notices: "Notices",
    *,
    print_whole: PrintWhole | None,
    window: "Window | None" = None,
) -> "list[Answer]":
    """Print an answer a question, with what is said of it; the first that fails ends it.

    With a `window` each answer begins with its times.
    """
    printer = AnswerPrinter(notices, print_whole=print_whole, several=len(questions) > 1)
    said: list[Answer] = []
    for question, stream in zip(questions, streams, strict=True):
        with stream:
            answer = printer.show(question, stream, lead=f"{window}  " if window else "")
        for line in (*describe_choices(answer), *describe_evidence(answer)):
            notices.note(line)
        for line in () if said else describe_subtitles(answer):
            notices.hint(line)
        for warning in answer.warnings:
            notices.warn(warning)
        said.append(answer)
    return said


_SHOWN_MOMENTS, _BAR_CELLS = 5, 24
_WORTH_SAYING = 0.03  # the share of a picture from which on its loss is said where it is not asked for


def describe_choices(answer: "Answer") -> list[str]:
    """` 93.1 %  left`, a line a choice, the likeliest first; none for an answer that was written."""
    ranked = sorted(answer.choices, key=lambda choice: -choice.probability)
    return [f"{100 * choice.probability:5.1f} %  {choice.text}" for choice in ranked]


def describe_evidence(answer: "Answer") -> list[str]:
    """` 19.3 %  ████████  0:02.083`, a line a moment that stands out, strongest first, under a line that explains."""
    from sfvqa.inference.answer import standing_out
    from sfvqa.video.sampling import format_time

    if not answer.evidence:
        return []
    shown, even = standing_out(answer.evidence, _SHOWN_MOMENTS), 100 / len(answer.evidence)
    lines = [f"Evidence: where the slow attention went (a hint, not proof); evenly spread, {even:.1f} % a frame."]
    for frame in shown:
        bar = "█" * max(1, round(_BAR_CELLS * frame.weight / shown[0].weight))
        lines.append(f"{100 * frame.weight:5.1f} %  {bar:<{_BAR_CELLS}}  {format_time(frame.timestamp_seconds)}")
    return lines


def describe_subtitles(answer: "Answer") -> list[str]:
    """`Subtitles: 12 lines of talk.srt, 240 tokens; 3 lines cut`; nothing where there are none."""
    used = answer.subtitles
    if used is None or not used.lines:
        return []
    cut = f"; {plural(used.cut, 'line')} cut" if used.cut else ""
    return [f"Subtitles: {plural(used.lines, 'line')} of {used.source}, {plural(used.tokens, 'token')}{cut}"]


def describe_video(info: "VideoInfo") -> str:
    """`0:05 long, 288×288, h264, 24 fps`."""
    from sfvqa.video.sampling import format_time

    rate = [f"{info.fps:.4g} fps"] if info.fps else []
    return ", ".join([f"{format_time(info.duration_seconds)} long", f"{info.width}×{info.height}", info.codec, *rate])


def describe_frames(times: Sequence[float], sampling: "SamplingOptions") -> str:
    """`32 frames from 0:00 to 0:04.958 (uniform)`; with `fps` the rate stands in the brackets too."""
    from sfvqa.video.sampling import format_time

    first, last = format_time(times[0]), format_time(times[-1])
    span = f"from {first} to {last}" if len(times) > 1 else f"at {first}"
    how = sampling.strategy.value if sampling.fps is None else f"{sampling.fps:g} {sampling.strategy.value}"
    return f"{plural(len(times), 'frame')} {span} ({how})"


class Seen(Protocol):
    """What there is to say of a video that a model has seen, here or elsewhere."""

    @property
    def video(self) -> "VideoInfo":
        """The file."""

    @property
    def timestamps_seconds(self) -> tuple[float, ...]:
        """When each frame is shown."""

    @property
    def crop(self) -> "CropMode":
        """How they became square."""

    @property
    def num_slow_tokens(self) -> int:
        """Those that can be attended to."""

    @property
    def num_fast_tokens(self) -> int:
        """Those in the prompt."""

    @property
    def is_from_cache(self) -> bool:
        """Whether it was neither read nor encoded now."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with it."""


def tell_what_was_seen(
    encoded: Seen, settings: "ModelSettings", sampling: "SamplingOptions", notices: "Notices"
) -> None:
    """Say what was read, in a line or in full, and what is wrong with it."""
    if notices.verbose:
        kept = "; taken from the video cache" if encoded.is_from_cache else ""
        notices.detail(f"{describe_encoded(encoded, sampling)}{kept}")
    else:
        notices.hint(describe_briefly(encoded, settings))
    for warning in encoded.warnings:
        notices.warn(warning)


def describe_briefly(encoded: Seen, settings: "ModelSettings") -> str:
    """`clip.mp4 · 32 frames, 0:00–0:04.958 · tiny`: the video, and the model that sees it."""
    from sfvqa.video.sampling import format_time

    times, path = encoded.timestamps_seconds, encoded.video.path
    video = f"{path.name} (bundled)" if is_bundled(path) else path.name
    span = "–".join(format_time(time) for time in (times[0], times[-1])[: len(times)])
    bits = settings.quantization
    model = settings.title if bits in ("none", "auto") else f"{settings.title} in {bits}"
    return f"{video} · {plural(len(times), 'frame')}, {span} · {model}"


def describe_encoded(encoded: Seen, sampling: "SamplingOptions") -> str:
    """How long the video is, which frames were looked at, what they became and, where it is much, what was cut off."""
    info = encoded.video
    tokens = f"{plural(encoded.num_fast_tokens, 'fast token')} and {plural(encoded.num_slow_tokens, 'slow token')}"
    parts = [
        f"{info.path.name}: {describe_video(info)}",
        f"{describe_frames(encoded.timestamps_seconds, sampling)}, {tokens}",
    ]
    if encoded.crop.lost_share(info.width, info.height) >= _WORTH_SAYING:
        parts.append(describe_crop(encoded.crop, info))
    return "; ".join(parts)


def describe_crop(crop: "CropMode", info: "VideoInfo") -> str:
    """`the centre crop cuts off 44 % of the picture`."""
    if crop in ("pad", "squash"):
        return f"{'padded' if crop == 'pad' else 'squashed'} to a square, nothing is cut off"
    lost = crop.lost_share(info.width, info.height)
    if not lost:
        return "the centre crop cuts off nothing"
    return f"the centre crop cuts off {f'{100 * lost:.0f} %' if lost >= 0.01 else 'less than 1 %'} of the picture"
