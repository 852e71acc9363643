"""A chat request that asks about windows: one request of the service after the other, and one answer of them all."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from sfvqa.errors import ServerBusyError, UsageError, VideoError
from sfvqa.inference.answer import SCHEMA_VERSION, Answer, FinishReason, TokenCounts
from sfvqa.serve.request import Event, Request
from sfvqa.serve.sight import OpenVideo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import VideoReader, open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from sfvqa.video.windows import Window, WindowOptions, WindowsReader, plan_windows
from sfvqa.wording import plural

Ask = Callable[[Request], AsyncGenerator[Event]]
"""What happens to one request, its answer last; nothing last where the caller is gone."""

_MOST_WINDOWS = 1000
_PATIENCE_SECONDS = 0.5  # before a window is tried again that the service had no place for


@dataclass(frozen=True)
class WindowsAnswer:
    """What was said about each window, or why nothing was, in order; there is at least one."""

    question: str
    model: str
    parts: Sequence[tuple[Window, Answer | VideoError]]

    @property
    def text(self) -> str:
        """`0:00–0:30  The boat leaves.`, a line a window."""
        return "\n".join(map(line_of, self.parts))

    @property
    def _answers(self) -> list[Answer]:
        return [said for _, said in self.parts if isinstance(said, Answer)]

    @property
    def finish_reason(self) -> FinishReason:
        """LENGTH where one of them was cut."""
        cut = any(answer.finish_reason is FinishReason.LENGTH for answer in self._answers)
        return FinishReason.LENGTH if cut else FinishReason.STOP

    @property
    def tokens(self) -> TokenCounts:
        """Of all together."""
        counts = [answer.tokens for answer in self._answers]
        return TokenCounts(
            *(sum(getattr(count, name) for count in counts) for name in ("prompt", "fast", "slow", "new", "reused"))
        )

    def to_dict(self) -> dict[str, object]:
        """`windows` has what `sfvqa ask --json` prints of each."""
        return {"schema_version": SCHEMA_VERSION, "windows": [self._record(*part) for part in self.parts]}

    def _record(self, window: Window, said: Answer | VideoError) -> dict[str, object]:
        if isinstance(said, Answer):
            return said.to_dict()
        error = {"type": type(said).__name__, "message": said.with_flags}
        return {
            "schema_version": SCHEMA_VERSION,
            "window": window.to_dict(),
            "question": self.question,
            "status": "error",
            "error": error,
        }


def line_of(part: tuple[Window, Answer | VideoError]) -> str:
    """A window and what was said about it, or why nothing was, in a line."""
    window, said = part
    text = said.text if isinstance(said, Answer) else f"({said.message})"
    return f"{window}  {' '.join(text.split())}"


def plan(video: VideoReader, windows: WindowOptions, sampling: SamplingOptions) -> tuple[Window, ...]:
    """The windows of a video; UsageError where there are more than a request may have. Raises VideoError too."""
    found = plan_windows(video, windows, sampling)
    if len(found) > _MOST_WINDOWS:
        raise UsageError(
            f"The video has {plural(len(found), 'window')}, and a request may have {_MOST_WINDOWS:,}.",
            "Make them longer, or ask about a part of the video.",
        )
    return found


def lay_out(request: Request, windows: WindowOptions, fit: Fit, kept_open: OpenVideo) -> tuple[Window, ...]:
    """The windows of a request's video, which is opened for it, and kept open. Raises VideoError, UsageError."""
    if request.video is None:
        raise UsageError("There is no video to ask about in windows.", "Name one, or leave `window` out.")
    if request.generation.schema is not None:
        raise UsageError("Answers about windows are lines of text.", "Leave out `window` or `response_format`.")
    with ExitStack() as using:
        video = using.enter_context(open_video(request.video, request.reading))
        found = plan(video, windows, request.sampling)
        by_scene = request.sampling.strategy is SamplingStrategy.SCENE
        parts = [] if by_scene else [choose_unread(video, each.of(request.sampling)).indices for each in found]
        using.pop_all()
        kept_open.keep(video, WindowsReader(video, parts, fit))
    return found


async def ask_of_each(
    request: Request,
    windows: Sequence[Window],
    ask: Ask,
    model: str,
    is_gone_within: Callable[[float], Awaitable[bool]],
) -> AsyncGenerator[Event | WindowsAnswer]:
    """Ask about each in turn: its line once it is known, progress as it comes, and at last the answer.

    Raises what goes wrong with more than the video. Where the caller is gone, which `is_gone_within` some seconds says
    while the service has no place, there is no answer.
    """
    parts: list[tuple[Window, Answer | VideoError]] = []
    for window in windows:
        wanted = replace(request, sampling=window.of(request.sampling), window=window)
        said: Answer | VideoError | None = None
        while said is None:
            try:
                async with aclosing(ask(wanted)) as events:
                    async for event in events:
                        if isinstance(event, Answer):
                            said = event
                        else:
                            yield event
                if said is None:
                    return
            except VideoError as error:
                said = error
            except ServerBusyError:
                if not parts:
                    raise
                if await is_gone_within(_PATIENCE_SECONDS):
                    return
        parts.append((window, said))
        yield line_of(parts[-1]) + ("\n" if len(parts) < len(windows) else "")
    yield WindowsAnswer(request.question, model, parts)
