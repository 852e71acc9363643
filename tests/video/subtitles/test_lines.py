"""Which lines are wanted: by range, and evenly where there are too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.video.subtitles import SubtitleLine, lines_between, spread_evenly


@pytest.mark.parametrize(
    ("start", "end", "texts"),
    [(0, 10, "ABC"), (2, 3, "AB"), (2.5, 2.5, "B"), (4.5, 5, ""), (6, 6, "C"), (7, 9, "C"), (7.1, 9, "")],
)
def test_lines_shown_at_some_time_of_the_range(start: float, end: float, texts: str) -> None:
    lines = [SubtitleLine(1, 2, "A"), SubtitleLine(2, 4, "B"), SubtitleLine(6, 7, "C")]
    assert "".join(line.text for line in lines_between(lines, start, end)) == texts


@given(st.integers(0, 200), st.integers(0, 200))
def test_evenly_means_no_gap_is_much_longer_than_another(num_items: int, count: int) -> None:
    kept = spread_evenly(range(num_items), count)
    assert len(kept) == min(count, num_items)
    assert kept == sorted(set(kept))
    if 0 < count < num_items:
        gaps = [later - earlier for earlier, later in zip([-1, *kept], [*kept, num_items], strict=True)]
        inner = gaps[1:-1]
        assert not inner or max(inner) - min(inner) <= 1
        assert max(gaps[0], gaps[-1]) <= num_items // (2 * count) + 2
