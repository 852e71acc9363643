"""What `sfvqa frames` shows of a clip: a table, one JSON object, a contact sheet, a summary. Prints nothing itself."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.describe import describe_crop, describe_frames, describe_video
from sfvqa.cli.text import printable_line
from sfvqa.errors import UsageError
from sfvqa.video import Clip, CropMode, FitWithin, ReadOptions, SamplingOptions, format_time
from sfvqa.video.contact_sheet import MAX_CELLS, Cell, draw_contact_sheet, fit_for_sheet
from sfvqa.video.fitting import size_for_shortest_edge

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST_FIT = FitWithin(64, 64)
"""For a clip that nobody looks at: its frames are read only to know which can be."""


def choose_sheet_fit(sampling: SamplingOptions) -> FitWithin:
    """How frames are fitted for a sheet of as many as there may be; UsageError if they are more than it holds."""
    most = len(sampling.timestamps_seconds or ()) or sampling.num_frames
    if most > MAX_CELLS:
        raise UsageError(f"{most:,} frames were asked for, a sheet holds {MAX_CELLS:,}.", "Ask for fewer (--frames).")
    return fit_for_sheet(most)


@dataclass(frozen=True)
class ClipView:
    """A clip, what was asked for, and how the model's square is cut from it.

    Raises UnreadableVideoError when built where the centre crop refuses the picture, as `ask` does.
    """

    clip: Clip
    sampling: SamplingOptions
    crop: CropMode

    def __post_init__(self) -> None:
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
        rows = [
            (str(index), format_time(time), "")
            for index, time in zip(self.clip.indices, self.clip.timestamps_seconds, strict=True)
        ]
        rows += [
            (str(gap.index), format_time(gap.timestamp_seconds), f"missing: {printable_line(gap.reason)}")
            for gap in self.clip.missing
        ]
        rows.sort(key=lambda row: int(row[0]))
        rows.insert(0, ("index", "time", ""))
        indices, times = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = (f"{index:>{indices}}  {time:<{times}}  {note}".rstrip() for index, time, note in rows)
        return "\n".join(lines)

    def document(self, video: Path, model: str, reading: ReadOptions, warnings: list[str]) -> dict[str, object]:
        """The object that `--json` prints; `video` is the path as it was given."""
        clip, sampling, info = self.clip, self.sampling, self.clip.video
        return {
            "schema_version": 1,
            "video": str(video),
            "info": {**asdict(info), "path": str(video)},
            "frames": [
                {"index": index, "timestamp_seconds": time}
                for index, time in zip(clip.indices, clip.timestamps_seconds, strict=True)
            ],
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
        clip = self.clip
        cells = [
            Cell(index, time, pixels)
            for index, time, pixels in zip(clip.indices, clip.timestamps_seconds, clip.frames, strict=True)
        ]
        cells += [Cell(gap.index, gap.timestamp_seconds, None) for gap in clip.missing]
        cells.sort(key=lambda cell: cell.index)
        dark = " (dark)" if self.crop.lost_share(clip.video.width, clip.video.height) else ""
        facts = f"{describe_video(clip.video)}; {self._choice}{dark}"
        return draw_contact_sheet(cells, title=clip.video.path.name, facts=facts, crop=self.crop)
