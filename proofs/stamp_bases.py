"""Bases by construction and by chance: upper bounds where the exhaustive search is out of reach.

Three ways, each a heuristic: it may miss a smaller basis, and what it gives is a basis by test, not by trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import exp, prod
from random import Random

from sparsedsl.proofs.bits import lowest_missing
from sparsedsl.proofs.stamps import basis_range, largest_range, sums

# The cells that `composed` multiplies, and the nodes spent on each.
_CELL_HOPS, _CELL_COUNT, _CELL_NODES = 4, 12, 20_000
# Steps of one cooling in `in_runs`, and its temperatures, in distances covered.
_COOLING, _HOT, _COLD = 1500, 8.0, 0.4


def radices(units: int, layers: int) -> tuple[int, ...]:
    """Numbers of digits whose product is at least `units`, one a layer: the greatest least, then the sum small.

    >>> radices(512, 4), radices(512, 5), radices(512, 3)
    ((5, 5, 5, 5), (4, 4, 4, 4, 2), (8, 8, 8))

    """
    greatest = ceil_root(units, layers)
    digits = [greatest] * layers
    for place in reversed(range(layers)):
        others = prod(digits) // digits[place]
        digits[place] = max(1, -(-units // others))
    return tuple(sorted((each for each in digits if each > 1), reverse=True))


def ceil_root(units: int, degree: int) -> int:
    """The least b with b**degree >= units; exact.

    >>> ceil_root(512, 3), ceil_root(513, 3), ceil_root(1, 5)
    (8, 9, 1)

    """
    low, high = 0, units
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**degree >= units else (middle, high)
    return high


def composed(hops: int, target: int) -> tuple[int, ...]:
    """A basis that covers the target, made of smaller ones.

    Set
        If A covers 0, ..., a in g hops and B covers 0, ..., b in h hops, then A ∪ (a + 1) B covers
        0, ..., (a + 1)(b + 1) - 1 in g + h hops. The parts are digits {1, ..., c} for one hop, and small bases.
    Cost
        Under a second for the small bases, once; then O(hops · target**(1/hops)) time.
    Example
        >>> composed(2, 8), composed(1, 3)
        ((1, 3, 4), (1, 2, 3))

    """
    best = _joined([(tuple(range(1, radix)), radix - 1) for radix in radices(target + 1, hops)])
    for part in range(2, min(hops, _CELL_HOPS) + 1):
        whole, rest = divmod(hops, part)
        for count in range(1, _CELL_COUNT + 1):
            reach, basis = _cell(count, part)
            parts, covered = [], 1
            for _ in range(whole):
                if covered <= target:
                    parts.append((basis, reach))
                    covered *= reach + 1
            if covered <= target:
                if not rest:
                    continue
                left = radices(-(-(target + 1) // covered), rest)
                parts += [(tuple(range(1, radix)), radix - 1) for radix in left]
            made = _joined(parts)
            if len(made) < len(best):
                best = made
    return tuple(each for each in best if each <= target)


@cache
def _cell(count: int, hops: int) -> tuple[int, tuple[int, ...]]:
    reach, basis, _ = largest_range(count, hops, most_nodes=_CELL_NODES)
    return reach, basis


def _joined(parts: Sequence[tuple[tuple[int, ...], int]]) -> tuple[int, ...]:
    weight, basis = 1, []
    for part, reach in parts:
        basis += [weight * each for each in part]
        weight *= reach + 1
    return tuple(basis)


def symmetric(count: int, hops: int, target: int, *, most_nodes: int) -> tuple[int, ...] | None:
    """A basis that is its own mirror image: with a, also last - a; many of the best are.

    Cost
        At most `most_nodes` sets of sums, each O(hops · count · target / 64) time.
    Example
        >>> symmetric(4, 2, 12, most_nodes=1000)
        (1, 3, 5, 6)

    """
    pairs, middle = (count - 1) // 2, count % 2 == 0
    nodes = 0
    least = max(-(-target // hops), count)
    for last in range(least, least + least // 3 + 2):
        if middle and last % 2:
            continue
        centre = {last, last // 2} if middle else {last}
        # The branch: the lower halves still to be looked at.
        waiting: list[tuple[int, ...]] = [(1,) if pairs else ()]
        while waiting:
            half = waiting.pop()
            nodes += 1
            if nodes > most_nodes:
                return None
            if len(half) == pairs:
                basis = tuple(sorted({*half, *(last - each for each in half), *centre}))
                if len(basis) <= count and lowest_missing(sums(basis, hops, target)) > target:
                    return basis
                continue
            highest = min(basis_range(half, hops) + 1, (last - 1) // 2)
            waiting += [(*half, each) for each in range(half[-1] + 1, highest + 1)]
    return None


def in_runs(count: int, hops: int, target: int, *, random: Random, most_tries: int) -> tuple[int, ...] | None:
    """A symmetric basis whose gaps come in a few runs of equal gaps, found by simulated annealing.

    Set
        Gaps d_1 (m_1 times), d_2 (m_2 times), ..., a long run in the middle, and the same backwards.
    Cost
        At most `most_tries` sets of sums, each O(hops · count · target / 64) time; the same random numbers, the
        same answer.
    Example
        >>> len(in_runs(12, 2, 54, random=Random(1), most_tries=2000))
        12

    """
    tries = 0
    while tries < most_tries and count > 4:
        runs = [(1, random.randint(1, 1 + count // 8))]
        runs += [(random.randint(1, 12), random.randint(1, 4)) for _ in range(random.randint(1, 3))]
        centre = (random.randint(1, 25), count - 2 * sum(length for _, length in runs))
        if centre[1] < 0:
            tries += 1
            continue
        covered = -1
        for step in range(min(_COOLING, most_tries - tries)):
            changed = _changed(runs, centre, random) if covered >= 0 else (runs, centre)
            tries += 1
            if changed is None:
                continue
            basis = _from_runs(*changed)
            now = sums(basis, hops, target).bit_count()
            if now > target:
                return basis
            temperature = _HOT * (_COLD / _HOT) ** (step / _COOLING)
            if now >= covered or random.random() < exp((now - covered) / temperature):
                (runs, centre), covered = changed, now
    return None


def _from_runs(runs: list[tuple[int, int]], centre: tuple[int, int]) -> tuple[int, ...]:
    basis, last = [], 0
    for gap, length in (*runs, centre, *reversed(runs)):
        for _ in range(length):
            last += gap
            basis.append(last)
    return tuple(basis)


def _changed(
    runs: list[tuple[int, int]], centre: tuple[int, int], random: Random
) -> tuple[list[tuple[int, int]], tuple[int, int]] | None:
    """A neighbour: one gap, or the length of one run, by a little; None where that leaves no such basis."""
    near = list(runs)
    place = random.randrange(len(near))
    gap, length = near[place]
    kind = random.random()
    if kind < 0.35 and place:
        near[place] = (max(1, gap + random.choice((-2, -1, 1, 2))), length)
        return near, centre
    if kind < 0.6:
        return near, (max(1, centre[0] + random.choice((-2, -1, 1, 2))), centre[1])
    if kind < 0.8:
        step = random.choice((-1, 1))
        near[place], centre = (gap, length + step), (centre[0], centre[1] - 2 * step)
    else:
        other = random.randrange(len(near))
        near[place] = (gap, length + 1)
        near[other] = (near[other][0], near[other][1] - 1)
    # The first gap stays 1, so that 1 is a member.
    if near[0][1] < 1 or min(length for _, length in near) < 0 or centre[1] < 0:
        return None
    return near, centre
