"""`sfvqa frames`: what a model would see of a video, as a table, one JSON object, or a contact sheet."""

import json as jsonlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.answers import describe_crop, describe_frames, describe_video
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import NamedModel
from sfvqa.cli.options import OutputOptions, Video, parse_file
from sfvqa.cli.screen import printable_line
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sfvqa.checkpoints.known import TrainedWith
    from sfvqa.video import Clip, CropMode, FitWithin, ReadOptions, SamplingOptions


_SMALLEST_EDGE = 64  # of frames that nobody looks at, read only to know which can be


def choose_fit(sampling: "SamplingOptions", *, is_drawn: bool) -> "FitWithin":
    """How frames are fitted, for a sheet of as many as there may be; UsageError if they are more than it holds."""
    from sfvqa.video import FitWithin
    from sfvqa.video.contact_sheet import MAX_CELLS, fit_for_sheet

    if not is_drawn:
        return FitWithin(_SMALLEST_EDGE, _SMALLEST_EDGE)
    most = len(sampling.timestamps_seconds or ()) or sampling.num_frames
    if most > MAX_CELLS:
        raise UsageError(f"{most:,} frames were asked for, a sheet holds {MAX_CELLS:,}.", "Ask for fewer (--frames).")
    return fit_for_sheet(most)


@dataclass(frozen=True)
class ClipView:
    """A clip, what was asked for, and how the model's square is cut from it.

    Raises UnreadableVideoError when built where the centre crop refuses the picture, as `ask` does.
    """

    clip: "Clip"
    sampling: "SamplingOptions"
    crop: "CropMode"

    def __post_init__(self) -> None:
        from sfvqa.video.fitting import CropMode, size_for_shortest_edge

        if self.crop is CropMode.CENTER:
            size_for_shortest_edge(self.clip.video.width, self.clip.video.height, 1)  # for its refusal of slivers

    @property
    def summary(self) -> str:
        """The video, the frames and the crop in a line."""
        return f"{self.clip.video.path.name}: {describe_video(self.clip.video)}; {self._choice}"

    @property
    def _choice(self) -> str:
        missing = f", {len(self.clip.missing)} missing" if self.clip.missing else ""
        frames = describe_frames(self.clip.timestamps_seconds, self.sampling)
        return f"{frames}{missing}; {describe_crop(self.crop, self.clip.video)}"

    def table(self) -> str:
        """A line a frame, missing ones with the reason, under a line that names the columns."""
        from sfvqa.video import format_time

        found = [(index, time, "") for index, time in self._frames()]
        found += [
            (gap.index, gap.timestamp_seconds, f"missing: {printable_line(gap.reason)}") for gap in self.clip.missing
        ]
        rows = [("index", "time", ""), *((str(index), format_time(time), note) for index, time, note in sorted(found))]
        indices, times = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{index:>{indices}}  {time:<{times}}  {note}".rstrip() for index, time, note in rows)

    def _frames(self) -> list[tuple[int, float]]:
        return list(zip(self.clip.indices, self.clip.timestamps_seconds, strict=True))

    def document(self, video: Path, model: str, reading: "ReadOptions", warnings: list[str]) -> dict[str, object]:
        """The object that `--json` prints; `video` is the path as it was given."""
        clip, sampling, info = self.clip, self.sampling, self.clip.video
        return {
            "schema_version": 1,
            "video": str(video),
            "info": {**asdict(info), "path": str(video)},
            "frames": [{"index": index, "timestamp_seconds": time} for index, time in self._frames()],
            "missing": [asdict(gap) for gap in clip.missing],
            "warnings": warnings,
            "settings": {
                "model": model,
                **asdict(sampling),
                "crop": self.crop.value,
                "lost_share": round(self.crop.lost_share(info.width, info.height), 4),
                "reader": clip.reader,
                "read_threads": reading.num_threads,
                "read_timeout_seconds": reading.timeout_seconds,
            },
        }

    def sheet(self) -> "Image":
        """The frames as one picture."""
        from sfvqa.video.contact_sheet import cells_of, draw_contact_sheet

        clip = self.clip
        dark = " (dark)" if self.crop.lost_share(clip.video.width, clip.video.height) else ""
        facts = f"{describe_video(clip.video)}; {self._choice}{dark}"
        return draw_contact_sheet(cells_of(clip), titles=[clip.video.path.name], facts=facts, crop=self.crop)


def expect_model(name: str | None) -> tuple[str, "TrainedWith", str]:
    """The name of a model, how it looked at videos in training, and why it is taken, in a sentence.

    It is the model of that name or folder, downloaded or not; without a name the one `ask` would choose, if it fits the
    memory, which cannot be known here. Raises ModelError.
    """
    from sfvqa.checkpoints.find import expected_model, find
    from sfvqa.checkpoints.known import read_trained_with

    if name is not None:
        return name, read_trained_with(find(name)), f"These are the frames that {name} would see."
    here = expected_model()
    model = f"{here.name}, which is on this machine and which `ask` uses if it fits the memory,"
    if here.is_bundled:
        model = f"the bundled {here.name}"
    return here.name, read_trained_with(here), f"These are the frames that {model} would see; --model names another."


Sheet = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=parse_file,
        metavar="FILE",
        help="Draw the frames into this picture: .png, .jpg or .webp.",
        rich_help_panel=OutputOptions.panel,
    ),
]
HELP = """\b
[bold]Examples[/bold]
  sfvqa frames clip.mp4
  sfvqa frames clip.mp4 --out sheet.png
  sfvqa frames clip.mp4 --fps 2 --start 1:00 --end 1:30
  sfvqa frames clip.mp4 --timestamps 5,1:30,1:31.5
  sfvqa frames clip.mp4 --crop pad --model slowfast-7b-64f
  sfvqa frames clip.mp4 --json | jq ".frames[].timestamp_seconds"

Show what the model would see of a video, without loading a model: index and
time of each frame, how much of the picture is cut off, and what is wrong with
the file."""


def frames(
    video: Video, out: Sheet = None, *, model: NamedModel = None, frames: FrameOptions, output: OutputOptions
) -> None:
    """Check everything that can be checked, read, and say what was seen."""
    from sfvqa.cli.video import check_video
    from sfvqa.cli.whole_file import check_picture_path, write_picture
    from sfvqa.video.readers.local_file import local_video
    from sfvqa.video.reading import read_clip_progressively

    check_video(video)
    if out is not None:
        check_picture_path(out, keep=video)
    name, trained_with, reason = expect_model(model)
    wanted, reading = frames.resolve(trained_with.sampling), frames.read_options()
    fit = choose_fit(wanted, is_drawn=out is not None)
    notices = output.notices()
    notices.detail(reason)
    with local_video(video, timeout_seconds=frames.read_timeout) as path:
        clip = notices.follow(read_clip_progressively(path, wanted, reading=reading, fit=fit))
    view = ClipView(clip, wanted, frames.crop_mode() or trained_with.crop)
    num_chosen = len(clip.indices) + len(clip.missing)
    warnings = [*clip.warnings, *trained_with.warnings(wanted, num_chosen, view.crop)]
    if out is not None:
        write_picture(view.sheet(), out)
    document = view.document(video, name, reading, warnings)
    sys.stdout.write((jsonlib.dumps(document, allow_nan=False) if output.json else view.table()) + "\n")
    sys.stdout.flush()
    notices.hint(view.summary)  # at the end, where it is seen: the table may be long
    for warning in warnings:
        notices.warn(warning)
    if out is not None:
        notices.note(f"The frames are drawn in {out}.")
