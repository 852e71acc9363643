"""Who has which video: none is left out or given twice, and one that costs every worker its life is found out."""

import random

import pytest

from sfvqa.batch.cluster.crew import LARGEST_SHARE, MOST_LOSSES, Share, Shares
from sfvqa.batch.item import Item, VideoItems, group_items
from tests.batch.made import item_of


def groups_of(num_videos: int, num_questions: int = 2) -> list[VideoItems]:
    items = [item_of(question, f"{video:04}.mp4") for video in range(num_videos) for question in range(num_questions)]
    return group_items(items)


def names(share: Share) -> list[str]:
    return [group[0].name for group in group_items(share.items)]


@pytest.mark.parametrize(("num_videos", "num_workers"), [(1, 1), (7, 2), (300, 2), (10_000, 16)])
def test_shares_are_large_at_first_and_single_videos_at_the_end(num_videos: int, num_workers: int) -> None:
    shares, sizes, given = Shares(groups_of(num_videos)), list[int](), list[str]()
    while (share := shares.take(num_workers)) is not None:
        sizes.append(len(names(share)))
        given += names(share)
    assert given == [f"{video:04}.mp4" for video in range(num_videos)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= LARGEST_SHARE
    assert sizes[-min(num_workers, len(sizes)) :] == [1] * min(num_workers, len(sizes))
    assert shares.is_empty


def test_what_a_lost_worker_had_not_finished_is_given_out_video_by_video_after_all_others() -> None:
    groups = groups_of(12)
    shares = Shares(groups)
    share = shares.take(2)
    assert share is not None
    assert names(share) == ["0000.mp4", "0001.mp4", "0002.mp4"]
    for item in (*groups[0], groups[1][1]):
        share.items.remove(item)
    assert shares.lost(share) is None
    rest = []
    while (following := shares.take(2)) is not None:
        rest.append(following)
    assert [names(each) for each in rest[-2:]] == [["0001.mp4"], ["0002.mp4"]]
    assert rest[-2].items == [groups[1][0]]
    assert sum(len(names(each)) for each in rest) == 9 + 2


def test_a_video_that_costs_workers_their_life_is_given_up_and_no_other() -> None:
    shares, culprit, num_lost, answered = Shares(groups_of(40)), "0013.mp4", 0, list[Item]()
    given_up: list[VideoItems] = []
    while not shares.is_empty:
        share = shares.take(3)
        assert share is not None
        for group in group_items(share.items):
            if group[0].name == culprit:
                num_lost += 1
                given_up += [found] if (found := shares.lost(share)) else []
                break
            for item in group:
                share.items.remove(item)
                answered.append(item)
    assert [group[0].name for group in given_up] == [culprit]
    assert num_lost <= MOST_LOSSES + 1
    assert len(answered) == len(set(answered)) == 39 * 2


def test_workers_that_are_lost_for_other_reasons_cost_no_video() -> None:
    """One in three is lost, each time in the middle of a share."""
    chance, shares, answered = random.Random(3), Shares(groups_of(200)), list[Item]()
    while not shares.is_empty:
        share = shares.take(4)
        assert share is not None
        is_lost = len(names(share)) > 1 and chance.random() < 0.3
        items = share.items[: chance.randrange(len(share.items)) if is_lost else None]
        for item in items:
            share.items.remove(item)
            answered.append(item)
        if is_lost:
            assert shares.lost(share) is None
        else:
            assert not share.items
    assert len(answered) == len(set(answered)) == 400


def test_a_share_of_which_nothing_was_left_gives_nothing_back() -> None:
    shares = Shares(groups_of(1))
    share = shares.take(1)
    assert share is not None
    share.items.clear()
    assert shares.lost(share) is None
    assert shares.is_empty
