"""The files that `sfvqa profile` writes beside what it prints, and the earlier profile that it reads."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.cli.text import plural
from sfvqa.cli.whole_file import check_place, whole_file, whole_text_file
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from sfvqa.cli.profile.request import PlannedProfile
    from sfvqa.cli.render import Notices
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.profiling.compare import Comparison
    from sfvqa.profiling.profile import Profile


@dataclass(frozen=True)
class ProfileFiles:
    """A table, a picture, a trace; None for what is not wanted."""

    csv: Path | None
    plot: Path | None
    trace: Path | None

    def check(self, *, keep: Sequence[Path | None]) -> None:
        """Fail now for what would fail after minutes: UsageError, SfvqaError."""
        wanted = [path for path in (self.csv, self.plot, self.trace) if path is not None]
        if len({path.resolve() for path in wanted}) < len(wanted):
            raise UsageError("Two of --csv, --plot and --trace name the same file.", "Name one for each.")
        for path in wanted:
            check_place(path, keep=[kept for kept in keep if kept is not None])
        if self.plot is not None:
            from sfvqa.profiling.plot import FORMATS, check_matplotlib

            if self.plot.suffix.lower() not in FORMATS:
                raise UsageError(
                    f"“{self.plot}” does not say what kind of picture it is.", f"End it in {' or '.join(FORMATS)}."
                )
            check_matplotlib()

    def earlier(self, path: Path | None) -> dict[str, Any] | None:
        """The profile to compare with. UsageError where it is none."""
        from sfvqa.profiling.compare import read_profile

        return None if path is None else read_profile(path)

    def check_comparable(self, old: dict[str, Any] | None, planned: "PlannedProfile") -> None:
        """UsageError where nothing of what is to be measured is in the earlier profile."""
        from sfvqa.profiling.compare import check_comparable

        if old is not None:
            check_comparable(old, planned.options.frame_counts)

    def compare(self, old: dict[str, Any], new: "Profile") -> "Comparison":
        """The two of them side by side."""
        from sfvqa.profiling.compare import compare

        return compare(old, new)

    def write_trace(self, answerer: "VideoQA", video: Path, planned: "PlannedProfile", notices: "Notices") -> None:
        """Trace one more run, where that is wanted."""
        if self.trace is None:
            return
        from sfvqa.profiling.trace import write_trace

        most = max(planned.options.frame_counts)
        with (
            notices.waiting(f"Tracing one run with {plural(most, 'frame')}"),
            tempfile.TemporaryDirectory() as folder,
            whole_file(self.trace, what="trace") as file,
        ):
            written = Path(folder) / "trace.json"
            write_trace(answerer.checkpoint, video, most, planned.work, written)
            with written.open("rb") as trace:
                while block := trace.read(1 << 20):
                    file.write(block)
        notices.note(f"A trace of one run with {plural(most, 'frame')} is in {self.trace}.")

    def write(self, profile: "Profile", notices: "Notices") -> None:
        """Write table and picture, each whole or not at all."""
        if self.csv is not None:
            from sfvqa.profiling.csv_table import write_csv

            with whole_text_file(self.csv) as stream:
                num_rows = write_csv(profile, stream)
            notices.note(f"{plural(num_rows, 'row')} written to {self.csv}.")
        if self.plot is not None:
            from sfvqa.profiling.plot import FORMATS, draw

            with whole_file(self.plot, what="picture") as file:
                draw(profile, file, FORMATS[self.plot.suffix.lower()])
            notices.note(f"The picture is in {self.plot}.")
