"""The table of times from a demux pass, on made-up packets."""

from sfvqa.video.readers.frame_table import Demuxed, FrameTable, KeyFrame, PacketTimes, build_table


def packets(pattern: str, order: list[int]) -> tuple[PacketTimes, ...]:
    """K a key frame, - another, d one to be discarded; `order` gives the presentation times, decode times count up."""
    return tuple(
        PacketTimes(pts, place - 2, 1, kind == "K", kind != "d", False)
        for place, (kind, pts) in enumerate(zip(pattern, order, strict=True))
    )


def table(pattern: str, order: list[int], ends_early: bool = False) -> FrameTable | None:
    return build_table(Demuxed(packets(pattern, order), 1, 0.0, ends_early, skips_packets=False))


def test_times_are_sorted_and_groups_begin_at_key_frames() -> None:
    built = table("K---K--", [0, 3, 1, 2, 4, 6, 5])
    assert built == FrameTable((0, 1, 2, 3, 4, 5, 6), (KeyFrame(0, -2), KeyFrame(4, 2)))
    assert built.groups([0, 3, 4, 6]) == [(0, [0, 1 + 2]), (1, [4, 6])]


def test_a_frame_shown_before_the_key_frame_that_it_follows_belongs_to_the_group_before() -> None:
    built = table("K--K--", [0, 2, 1, 5, 3, 4])
    assert built is not None
    assert built.groups([3, 4, 5]) == [(0, [3, 4]), (1, [5])]


def test_what_cannot_be_decoded_at_the_start_and_what_is_discarded_is_not_offered() -> None:
    built = table("--K--d", [0, 1, 5, 3, 6, 7])
    assert built is not None
    assert built.times == (5, 6)


def test_the_incomplete_group_before_a_cut_is_left_out_in_decoding_order() -> None:
    built = table("K--K--", [0, 2, 1, 5, 3, 4], ends_early=True)
    assert built is not None
    assert built.times == (0, 1, 2), "3 and 4 are shown before the lost key frame but hang on it"


def test_of_a_single_group_the_frames_stay_that_no_lost_one_can_come_before() -> None:
    # Decode times are -2 … 4; the last packet, decoded at 4, may be cut, and what was lost comes after 4.
    built = table("K------", [0, 4, 2, 1, 3, 8, 6], ends_early=True)
    assert built is not None
    assert built.times == (0, 1, 2, 3, 4)


def test_times_that_jump_back_or_are_absent_are_not_used() -> None:
    assert table("K-K-", [10, 11, 3, 4]) is None
    assert (
        build_table(
            Demuxed((PacketTimes(None, 0, 1, True, True, False),), 1, 0.0, ends_early=False, skips_packets=False)
        )
        is None
    )


def test_frames_without_a_time_behind_the_first_key_frame_come_before_it() -> None:
    """Leading pictures of an open group in a piece that was cut out of a video."""
    times = [0, None, 0, 3, 2, 4]
    built = build_table(
        Demuxed(
            tuple(PacketTimes(pts, None, 1, place == 0, True, False) for place, pts in enumerate(times)),
            1,
            0.0,
            ends_early=False,
            skips_packets=False,
        )
    )
    assert built is not None
    assert (built.times, built.num_before) == ((0, 2, 3, 4), 2)


def test_what_damage_makes_look_like_a_key_frame_within_a_group_is_none() -> None:
    """Noise in place of packets was taken for key frames, and the whole file for one without usable times."""
    built = table("K---KKKK---K", [0, 3, 1, 2, 4, 8, 6, 5, 7, 10, 9, 11])
    assert built is not None
    assert built.times == tuple(range(12))
    assert [key.pts for key in built.keys] == [0, 4, 8, 11]
