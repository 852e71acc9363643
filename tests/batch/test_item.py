"""What an item's id depends on, and what it does not."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.item import Item, item_id

TEXTS = st.text(st.characters(), max_size=8)  # lone surrogates too: names that are not UTF-8
SECONDS = st.none() | st.floats(0, 1e6, allow_nan=False)
ITEMS = st.builds(
    Item,
    video=st.just(Path("/videos/a.mp4")),
    name=TEXTS,
    question=TEXTS,
    own_id=st.none() | TEXTS,
    start_seconds=SECONDS,
    end_seconds=SECONDS,
    choices=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    answer=st.none() | TEXTS,
    group=st.none() | TEXTS,
)
SETTINGS = st.dictionaries(
    TEXTS, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)


@given(ITEMS, ITEMS, TEXTS, TEXTS, SETTINGS, SETTINGS)
def test_the_id_tells_what_may_change_the_answer(
    one: Item, other: Item, content: str, other_content: str, settings: dict[str, object], others: dict[str, object]
) -> None:
    """Whatever fields of two items are the same: the ids are, if and only if all are that count."""
    before = item_id(one, content, settings)
    for field in ("name", "question", "own_id", "start_seconds", "end_seconds", "choices"):
        changed = replace(one, **{field: getattr(other, field)})
        assert (item_id(changed, content, settings) == before) == (changed == one)
    assert (item_id(one, other_content, settings) == before) == (content == other_content)
    # As JSON tells them apart: 1 is not True there, though it is in Python.
    assert (item_id(one, content, others) == before) == (repr(sorted(settings.items())) == repr(sorted(others.items())))


@given(ITEMS, st.none() | TEXTS)
def test_neither_the_place_nor_a_label_changes_the_id(item: Item, label: str | None) -> None:
    fields = (("colour", label or "red"),)
    moved = replace(item, video=Path("/elsewhere/b.mp4"), answer=label, group=label, fields=fields)
    assert item_id(moved, "whole:0", {}) == item_id(item, "whole:0", {})


def test_the_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Or nothing that was answered before would be found again."""
    item = Item(Path("/v/ä.mp4"), "ä.mp4", "What?", start_seconds=90, choices=("a", "b"))
    settings = {"num_frames": 8, "model": "tiny"}
    assert item_id(item, "whole:0", settings) == "397d15c8b5c71fab6fb40cfd"
    assert item_id(item, "whole:0", dict(reversed(settings.items()))) == "397d15c8b5c71fab6fb40cfd"
    assert item_id(replace(item, start_seconds=90.0), "whole:0", settings) == "397d15c8b5c71fab6fb40cfd"


def test_a_setting_that_has_no_value_in_json_is_refused() -> None:
    item = Item(Path("a"), "a", "Q?")
    with pytest.raises(ValueError, match="not JSON compliant"):
        item_id(item, "whole:0", {"fps": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        item_id(item, "whole:0", {"path": Path("a")})
