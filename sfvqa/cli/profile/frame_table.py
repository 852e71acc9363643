"""A table with a column a number of frames, which goes on below where a terminal is too narrow for all of them."""

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table


class FrameTable:
    """Rows under numbers of frames. As many columns stand side by side as fit, at least one; none is cut off."""

    def __init__(self, frame_counts: Sequence[int]) -> None:
        self._frame_counts = frame_counts
        self._rows: list[tuple[str, tuple[str, ...]]] = []

    def add_row(self, words: str, *cells: str) -> None:
        """What the row is about, and what is said of it for each number of frames."""
        self._rows.append((words, cells))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        alone = [self._width(console, options, slice(place, place + 1)) for place in range(len(self._frame_counts))]
        return Measurement(max(alone), self._width(console, options, slice(None)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        start, end = 0, len(self._frame_counts)
        while start < end:
            stop = start + 1
            while stop < end and self._width(console, options, slice(start, stop + 1)) <= options.max_width:
                stop += 1
            if start:
                yield ""
            yield self._table(slice(start, stop))
            start = stop

    def _width(self, console: Console, options: ConsoleOptions, columns: slice) -> int:
        unlimited = options.update(max_width=1000)
        return console.measure(self._table(columns), options=unlimited).maximum

    def _table(self, columns: slice) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("frames", no_wrap=True)
        for count in self._frame_counts[columns]:
            table.add_column(f"{count}", justify="right", no_wrap=True)
        for words, cells in self._rows:
            if any(cells[columns]):
                table.add_row(words, *cells[columns])
        return table
