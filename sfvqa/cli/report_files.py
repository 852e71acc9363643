"""The files that `sfvqa report` writes beside what it prints."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.text import plural, readable_size
from sfvqa.cli.whole_file import check_place, whole_text_file
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from sfvqa.batch.report.against import Comparison
    from sfvqa.batch.report.collecting import RunFacts
    from sfvqa.batch.report.summary import Summary
    from sfvqa.cli.render import Notices


@dataclass(frozen=True)
class ReportFiles:
    """A table, a page, how many frames of a video it shows, and where the videos lie; None for what is not wanted."""

    csv: Path | None
    html: Path | None
    num_thumbnails: int
    videos: Path | None

    def check(self, *records: Path | None) -> None:
        """Fail now for what would fail at the end: UsageError, SfvqaError."""
        wanted = [path for path in (self.csv, self.html) if path is not None]
        if len({os.path.realpath(path) for path in wanted}) < len(wanted):
            raise UsageError("--csv and --html name the same file.", "Name two.")
        if self.videos is not None and not self.videos.is_dir():
            raise UsageError(f"There is no folder {self.videos} with videos.", "Name the folder they lie in.")
        for path in wanted:
            check_place(path, keep=[kept for kept in records if kept is not None])

    def write(self, run: "RunFacts", summary: "Summary", comparison: "Comparison | None", notices: "Notices") -> None:
        """Write what is wanted, each whole or not at all."""
        if self.csv is not None:
            self._write_csv(self.csv, run, notices)
        if self.html is not None:
            self._write_page(self.html, run, summary, comparison, notices)

    def _write_csv(self, path: Path, run: "RunFacts", notices: "Notices") -> None:
        from sfvqa.batch.report.collecting import last_records
        from sfvqa.batch.report.csv_table import write_csv

        with whole_text_file(path) as stream:
            num_rows = write_csv(last_records(run), stream, run.rule)
        notices.note(f"{plural(num_rows, 'row')} written to {path}.")

    def _write_page(
        self, path: Path, run: "RunFacts", summary: "Summary", comparison: "Comparison | None", notices: "Notices"
    ) -> None:
        from sfvqa.batch.report.page.writing import PageOptions, write_page

        options = PageOptions(self.num_thumbnails, self.videos)
        with whole_text_file(path) as stream:
            outcome = notices.follow(write_page(stream, run, summary, comparison, options))
        size = readable_size(path.stat().st_size)
        notices.note(f"A page about {plural(outcome.num_videos, 'video')} written to {path} ({size}).")
        if outcome.num_without_pictures:
            notices.warn(
                f"{plural(outcome.num_without_pictures, 'video')} could not be read for the page, which says why. "
                "--videos names the folder they lie in now."
            )
