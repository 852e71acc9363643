"""Which frames are wanted and how they are read; contradictions are found here, before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    import typer

    from sfvqa.video.fitting import CropMode
    from sfvqa.video.readers import ReadOptions
    from sfvqa.video.sampling import SamplingOptions

_STRENGTH = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 1}
"""How strong an option is, by where it comes from: a flag, its variable, the config file."""

_ALTERNATIVES = (("sampling", "fps"), ("sampling", "timestamps"), ("fps", "timestamps"), ("frames", "timestamps"))
"""Options that may contradict each other."""


@dataclass(frozen=True)
class FrameRequest:
    """What the options of `ask` and `frames` say; None leaves it to the model. Raises UsageError when built.

    `fewer_if_short` lets the frames be fewer than in training where memory is short.
    """

    num_frames: int | None = None
    strategy: str | None = None
    fps: float | None = None
    timestamps_seconds: tuple[float, ...] | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    crop: str | None = None
    reader: str = "auto"
    read_threads: int | None = None
    read_timeout_seconds: float = 600.0
    fewer_if_short: bool = False

    def __post_init__(self) -> None:
        from sfvqa.video.sampling import SamplingOptions

        # Built for their checks: what is wrong with them must be said before a model is loaded.
        self.sampling(SamplingOptions())
        self.reading()

    @classmethod
    def of(cls, context: "typer.Context") -> "FrameRequest":
        """The request in the parameters of a command that takes these options, each from flag, variable or file."""
        given = dict(context.params)
        for first, second in _ALTERNATIVES:
            if not _contradict(first, second, given):
                continue
            weaker = _weaker(first, second, context)
            if weaker is None:
                raise _contradiction(first, second, given)
            given[weaker] = None
        frames = given["frames"]
        return cls(
            num_frames=frames.count if frames else None,
            strategy=given["sampling"],
            fps=given["fps"],
            timestamps_seconds=given["timestamps"],
            start_seconds=given["start"],
            end_seconds=given["end"],
            crop=given["crop"],
            reader=given["reader"],
            read_threads=given["read_threads"],
            read_timeout_seconds=given["read_timeout"],
            fewer_if_short=frames is not None and frames.count is None,
        )

    def sampling(self, default: "SamplingOptions") -> "SamplingOptions":
        """The frames to take of any video, with the model's number and strategy where none is asked for."""
        from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

        strategy = default.strategy
        if self.strategy is not None:
            strategy = SamplingStrategy(self.strategy)
        elif self.fps is not None:
            strategy = SamplingStrategy.FPS
        elif self.timestamps_seconds is not None:
            strategy = SamplingStrategy.TIMESTAMPS
        return SamplingOptions(
            num_frames=self.num_frames or default.num_frames,
            strategy=strategy,
            fps=self.fps,
            timestamps_seconds=self.timestamps_seconds,
            start_seconds=self.start_seconds,
            end_seconds=self.end_seconds,
        )

    def crop_mode(self) -> "CropMode | None":
        """How frames become square, None where that is left to the model."""
        from sfvqa.video.fitting import CropMode

        return None if self.crop is None else CropMode(self.crop)

    def reading(self) -> "ReadOptions":
        """How the file is read."""
        from sfvqa.video.readers import ReaderName, ReadOptions

        return ReadOptions(
            ReaderName(self.reader), num_threads=self.read_threads, timeout_seconds=self.read_timeout_seconds
        )


def _contradict(first: str, second: str, given: Mapping[str, object]) -> bool:
    """Whether two options cannot both hold: all alternatives but `--sampling fps --fps 2` and the like."""
    both = given[first] is not None and given[second] is not None
    return both and given[first] != second


def _weaker(first: str, second: str, context: "typer.Context") -> str | None:
    """The one of two options that the other overrules, None where both come from the same place."""
    strengths = []
    for name in (first, second):
        source = context.get_parameter_source(name)
        strengths.append(_STRENGTH.get(source.name, 0) if source else 0)
    if strengths[0] == strengths[1]:
        return None
    return first if strengths[0] < strengths[1] else second


def _contradiction(first: str, second: str, given: Mapping[str, object]) -> UsageError:
    if first == "sampling":
        wrong = f"--{second} goes with --sampling {second}, not with --sampling {given['sampling']}."
    elif first == "frames":
        wrong = "--timestamps says which frames are wanted, --frames how many."
    else:
        wrong = f"--{first} and --{second} are two ways of choosing frames."
    return UsageError(wrong, "Leave one of them out.")
