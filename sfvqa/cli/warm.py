"""A running server in place of a model that is loaded here: whether there is one that would answer the same, and use.

What is said and printed is what it would be without one.
"""

import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.cli.options import CacheOptions, OptionGroup, parse_size, rare_setting
from sfvqa.cli.screen import can_ask
from sfvqa.given_file import STANDARD_INPUT
from sfvqa.registry import BUNDLED_MODEL

if TYPE_CHECKING:
    from sfvqa.cli.answer_options import TurnOptions
    from sfvqa.cli.frame_options import FrameOptions
    from sfvqa.cli.model import ModelOptions
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.question import PromptOptions
    from sfvqa.serve.client import Connection, SeenVideo, ServedChat
    from sfvqa.serve.status import ServerStatus
    from sfvqa.video.sampling import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class ServerUse(OptionGroup):
    """Whether a running server may answer."""

    panel = "The model"

    no_server: Annotated[bool, rare_setting("Load the model here, even if `sfvqa serve` has the same one loaded.")] = (
        False
    )


@dataclass(frozen=True)
class Warm:
    """A running server that would answer as this command would, and how videos are looked at."""

    status: "ServerStatus"
    model: "ModelOptions"
    frames: "FrameOptions"
    answers: "TurnOptions"
    notices: "Notices"

    @property
    def sampling(self) -> "SamplingOptions":
        """The frames to take of any video."""
        from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

        served = self.status.served
        return self.frames.resolve(SamplingOptions(served.num_frames, SamplingStrategy(served.strategy)))

    def see(self, connection: "Connection", video: Path, prompt: "PromptOptions", **wanted: Any) -> "SeenVideo":
        """Have a video seen, under a progress bar, and say what was seen. Raises what encoding raises, OSError."""
        from sfvqa.cli.answers import tell_what_was_seen
        from sfvqa.serve.client import VideoToSee

        answers, served = self.answers, self.status.served
        own_tokens = answers.subtitle_tokens if answers.reads_text_track else None
        to_see = VideoToSee(
            path=video,
            sampling=self.sampling,
            crop=self.frames.crop_mode(),
            reading=self.frames.read_options(),
            prompt=prompt,
            own_subtitles=answers.reads_text_track,
            subtitle_tokens=own_tokens,
        )
        generation = {**answers.generation_fields(), "schema": answers.schema and answers.schema.text}
        steps = connection.see(to_see, {"generation": generation, **wanted})
        seen = self.notices.follow(_saying_first(steps, self._say_what_was_chosen))
        settings = ModelSettings(
            served.model, quantization=served.quantization, adapter=served.asked_for.get("adapter")
        )
        tell_what_was_seen(seen, settings, self.sampling, self.notices)
        return seen

    def _say_what_was_chosen(self) -> None:
        served = self.status.served
        self.model.say_if_configured(self.notices)
        for kind, sentence in (*(served.said_of_choice if self.model.model is None else ()), *served.said_of_plan):
            getattr(self.notices, kind)(sentence)


def find_server(
    use: ServerUse,
    video: Path,
    model: "ModelOptions",
    frames: "FrameOptions",
    answers: "TurnOptions",
    cache: CacheOptions,
    notices: "Notices",
    *,
    may_offer_download: bool = False,
) -> Warm | None:
    """A server that would answer the same, if there is one and this is something it can do.

    Left to the usual way is what asks for the video to be looked at anew, a number of frames that depends on the free
    memory, standard input, what is said in a video, and what would offer a better model on a terminal.
    """
    if answers.speech:
        return None
    anew = cache.no_cache or cache.full_hash or frames.fewer_if_short or str(video) == STANDARD_INPUT
    if use.no_server or anew or not hasattr(socket, "AF_UNIX"):
        return None
    from sfvqa.serve.status import servers

    settings = model.settings(model.model or "")
    for status in servers():
        if status.socket and status.served.is_the_same(model.model, settings, parse_size(cache.cache_size)):
            offers = may_offer_download and status.served.model == BUNDLED_MODEL and can_ask()
            return None if offers else Warm(status, model, frames, answers, notices)
    return None


def ask_server(warm: Warm | None, video: Path, questions: Sequence[str], *, json: bool, batch_size: int) -> bool:
    """Have the questions answered and print the answers; False, and no answer printed, where no server does it.

    Notices may have been said by then, where the server ends while it sees the video.
    """
    if warm is None:
        return False
    from sfvqa.cli.answers import print_answers, print_as_json
    from sfvqa.serve.client import Connection, Refused

    answers, notices = warm.answers, warm.notices
    try:
        connection = Connection(warm.status)
    except Refused:
        return False
    with connection:
        wanted = {"questions": questions, "choices": answers.compared, "batch_size": batch_size}
        try:
            warm.see(connection, video, answers.fixed_prompt, **wanted)
        except Refused:
            return False
        streams = connection.answers(len(questions))
        said = print_answers(questions, streams, notices, print_whole=print_as_json if json else None)
    notices.timings(said)
    return True


def begin_chat(
    warm: Warm | None, video: Path, context: int | None, prompt_of: "Callable[[Path], PromptOptions]"
) -> "tuple[ServedChat, Callable[[Path], ServedChat], SamplingOptions] | None":
    """Begin a conversation, and how to begin one about another video; None where no server does it."""
    if warm is None:
        return None
    from sfvqa.serve.client import Connection, Refused, ServedChat, gone_is_an_error

    try:
        connection = Connection(warm.status)
    except Refused:
        return None
    try:
        begun = ServedChat(connection, warm.see(connection, video, prompt_of(video), context_tokens=context))
    except Refused:
        connection.close()
        return None

    def open_other(path: Path) -> ServedChat:
        with gone_is_an_error("Start the chat again."):
            return ServedChat(connection, warm.see(connection, path, prompt_of(path), context_tokens=context))

    return begun, open_other, warm.sampling


def _saying_first(
    steps: "Generator[Any, None, SeenVideo]", say: "Callable[[], None]"
) -> "Generator[Any, None, SeenVideo]":
    """The same steps; what is to be said comes once the first is through."""
    is_said = False
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            if not is_said:
                say()
            seen: SeenVideo = end.value
            return seen
        if not is_said:
            say()
            is_said = True
        yield step
