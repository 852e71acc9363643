"""Numbers spread evenly over numbers: the arithmetic that the strategies share."""

from collections.abc import Sequence


def spread(available: int, wanted: int) -> list[int]:
    """`wanted` numbers from 0 to `available` - 1, both included, as even as whole numbers allow (halves round up).

    All of them if there are no more than wanted; one alone is the one in the middle.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    if wanted >= available:
        return list(range(available))
    if wanted == 1:
        return [(available - 1) // 2]
    steps = wanted - 1
    return [(2 * place * (available - 1) + steps) // (2 * steps) for place in range(wanted)]


def spread_within(available: int, wanted: int) -> list[int]:
    """The middles of `wanted` equal parts of the numbers below `available`: as even as `spread`, away from the ends.

    wanted ≤ available, so that no two are the same.

    >>> spread_within(10, 1), spread_within(10, 2), spread_within(3, 3)
    ([5], [2, 7], [0, 1, 2])
    """
    return [(2 * part + 1) * available // (2 * wanted) for part in range(wanted)]


def share_out(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` out over parts of these sizes: one each, the rest in proportion to what is left of each part.

    The largest remainders get what whole numbers leave over, earlier parts first. No part gets more than its size;
    len(sizes) ≤ total ≤ sum(sizes).

    >>> share_out([100, 50, 1], 10)
    [6, 3, 1]
    """
    left = [size - 1 for size in sizes]
    rest = total - len(sizes)
    if rest == 0:
        return [1] * len(sizes)
    quotas = [divmod(rest * size, sum(left)) for size in left]
    shares = [1 + whole for whole, _ in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda part: -quotas[part][1])
    for part in by_remainder[: total - sum(shares)]:
        shares[part] += 1
    return shares
