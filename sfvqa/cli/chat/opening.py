"""From a video to a chat about it: the first one, and those that /open names."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli import session
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.video_file import VideoFile
    from sfvqa.inference.chat import Chat
    from sfvqa.inference.prompt_options import PromptOptions
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.video.sampling import SamplingOptions

TOKENS_PLANNED_FOR = 2048
"""How long a conversation is taken to be when memory is planned and --context does not say: a few dozen turns."""


@dataclass(frozen=True)
class VideoOpener:
    """Starts a chat about a video, each with the options that the command was given; `first` is the video of these."""

    model: "VideoQA"
    frames: "FrameRequest"
    request: "AnswerRequest"
    context_tokens: int | None
    cache: "VideoCache | None"
    first: Path
    notices: "Notices"

    @property
    def sampling(self) -> "SamplingOptions":
        """Which frames of a video are asked for."""
        return self.frames.sampling(self.model.default_sampling)

    def start(self, file: "VideoFile", prompt: "PromptOptions") -> "Chat":
        """Read and encode a video under a progress bar, and begin a chat about it."""
        encoded = session.encode_video(self.model, file, self.frames, self.notices)
        return self.model.chat(encoded, self.request.generation(), prompt=prompt, context_tokens=self.context_tokens)

    def open(self, path: Path) -> "Chat":
        """The same with another video. Raises VideoError and what encoding does, UsageError for standard input."""
        from sfvqa.cli.video_file import VideoFile
        from sfvqa.video.readers.local_file import check_local_file
        from sfvqa.video.readers.standard_input import STANDARD_INPUT

        if str(path) == STANDARD_INPUT:
            raise UsageError("A chat cannot open a video on standard input.", "Save it to a file, and open that.")
        check_local_file(path)
        with VideoFile(path, self.frames, self.cache, self.notices) as file:
            return self.start(file, self._request_for(path).prompt(file))

    def _request_for(self, path: Path) -> "AnswerRequest":
        """The request without a subtitle file where that belongs to another video."""
        subtitles = self.request.fixed_prompt.subtitles
        if subtitles is None or _is_same_file(path, self.first):
            return self.request
        self.notices.warn(
            f"The subtitles of {subtitles.source} belong to {self.first.name}: there are none here.", again=True
        )
        return replace(
            self.request, fixed_prompt=replace(self.request.fixed_prompt, subtitles=None, subtitle_tokens=None)
        )


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # the first video may be gone by now
        return False
