"""Additive bases: the table of best ranges, the search against plain enumeration, and the constructions."""

from __future__ import annotations

import json
from itertools import combinations, combinations_with_replacement
from math import comb
from random import Random

import pytest

from sparsedsl.errors import StateMismatch
from sparsedsl.proofs.stamp_bases import ceil_root, composed, in_runs, radices, symmetric
from sparsedsl.proofs.stamps import BasisSearch, basis_range, counting_bound, counting_range, largest_range

# distances, hops -> the greatest range, and a basis that has it.
TABLE: dict[tuple[int, int], tuple[int, tuple[int, ...] | None]] = {
    **{(2, hops): (reach, None) for hops, reach in ((2, 4), (3, 7), (4, 10), (5, 14), (6, 18))},
    (2, 7): (23, (1, 5)),
    (3, 2): (8, None),
    (3, 3): (15, (1, 4, 5)),
    (3, 4): (26, (1, 5, 8)),
    (3, 5): (35, (1, 6, 7)),
    (3, 6): (52, (1, 7, 12)),
    (3, 7): (69, (1, 8, 13)),
    (4, 2): (12, None),
    (4, 3): (24, (1, 4, 7, 8)),
    (4, 4): (44, (1, 3, 11, 18)),
    (4, 5): (71, (1, 4, 12, 21)),
    (4, 6): (114, (1, 4, 19, 33)),
    (4, 7): (165, (1, 5, 24, 37)),
    (5, 3): (36, (1, 4, 6, 14, 15)),
    (5, 4): (70, (1, 3, 11, 15, 32)),
    (5, 5): (126, (1, 4, 9, 31, 51)),
    (5, 6): (216, (1, 7, 12, 43, 52)),
    (6, 3): (52, (1, 3, 7, 9, 19, 24)),
    (2, 28): (238, (1, 15)),
    (3, 28): (1678, (1, 21, 154)),
}


def covered(distances: tuple[int, ...], hops: int) -> int:
    """The range by listing every multiset of hops."""
    reached = {sum(each) for each in combinations_with_replacement((0, *distances), hops)}
    return next(each for each in range(max(reached) + 2) if each not in reached) - 1


@pytest.mark.parametrize(("cell", "best"), TABLE.items(), ids=[f"k{k}-h{h}" for k, h in TABLE])
def test_the_table_is_found(cell: tuple[int, int], best: tuple[int, tuple[int, ...] | None]) -> None:
    reach, basis, proved = largest_range(*cell)
    assert (reach, proved) == (best[0], True)
    assert covered(basis, cell[1]) == reach
    if best[1] is not None:
        assert covered(best[1], cell[1]) == basis_range(best[1], cell[1]) == reach


@pytest.mark.parametrize("hops", range(1, 31))
def test_two_distances_follow_the_formula(hops: int) -> None:
    assert largest_range(2, hops)[0] == (hops * hops + 6 * hops + 1) // 4


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_search_is_plain_enumeration(count: int, hops: int) -> None:
    """Every set of so many distances up to the target, in no order and with no pruning."""
    for target in range(1, counting_range(count, hops) + 2):
        exists = any(
            covered(each, hops) >= target
            for size in range(1, count + 1)
            for each in combinations(range(1, target + 1), size)
        )
        search = BasisSearch(count, hops, target)
        search.run(10**6)
        assert (search.found is not None) == exists
        assert search.exhausted or exists
        if search.found is not None:
            assert len(search.found) <= count
            assert covered(search.found, hops) >= target
        if target > 30:
            break


def test_four_distances_by_enumeration_too() -> None:
    best = max(covered(each, 3) for size in (1, 2, 3, 4) for each in combinations(range(1, 16), size))
    assert best == largest_range(4, 3)[0] == 24


def test_counting_bounds() -> None:
    for hops in (1, 2, 3, 8):
        for target in (0, 1, 2, 7, 100, 511):
            least = counting_bound(target, hops)
            assert comb(least + hops, hops) - 1 >= target
            assert least == 0 or comb(least - 1 + hops, hops) - 1 < target


@pytest.mark.parametrize("pause", [1, 7, 500, 4000])
def test_a_search_goes_on_where_it_stood(pause: int) -> None:
    whole = BasisSearch(5, 8, 511)
    whole.run(10**6)
    parts = BasisSearch(5, 8, 511)
    while parts.found is None:
        parts.run(parts.nodes + pause)
        if parts.found is None:
            parts = BasisSearch.resumed(5, 8, 511, json.loads(json.dumps(parts.place())))
    assert (parts.found, parts.nodes) == (whole.found, whole.nodes)
    assert covered(parts.found, 8) >= 511


def test_an_exhausted_search_stays_exhausted() -> None:
    search = BasisSearch(3, 3, 16)
    search.run(10**6)
    assert search.exhausted
    assert BasisSearch.resumed(3, 3, 16, search.place()).exhausted


@pytest.mark.parametrize(
    "place",
    [
        None,
        {"members": [1]},
        {"members": [2], "following": 3, "nodes": 0},
        {"members": [1, 7], "following": 8, "nodes": 0},
        {"members": [1, 3, 2], "following": 3, "nodes": 0},
        {"members": [1, 3], "following": 99, "nodes": 0},
        {"members": [1, "3"], "following": 4, "nodes": 0},
        {"members": [1, 1], "following": 4, "nodes": 0},
        {"members": [1, 2, 3, 4], "following": 5, "nodes": 0},
        {"members": [1, 3], "following": 4, "nodes": -1},
    ],
)
def test_a_place_where_no_search_stands(place: object) -> None:
    with pytest.raises(StateMismatch, match="never stands"):
        BasisSearch.resumed(4, 4, 44, place)


@pytest.mark.parametrize("target", [1, 5, 40, 511, 5000])
@pytest.mark.parametrize("hops", [1, 2, 3, 8])
def test_composed_bases_cover(target: int, hops: int) -> None:
    basis = composed(hops, target)
    assert basis_range(basis, hops) >= target
    assert len(basis) >= counting_bound(target, hops)


def test_heuristics_give_bases() -> None:
    mirrored = symmetric(12, 4, 511, most_nodes=20_000)
    assert mirrored is not None
    assert len(mirrored) == 12
    assert covered(mirrored, 4) >= 511
    assert {mirrored[-1] - each for each in mirrored[:-1]} == set(mirrored[:-1])
    in_gaps = in_runs(42, 2, 511, random=Random(3), most_tries=40_000)
    assert in_gaps is not None
    assert covered(in_gaps, 2) >= 511
    # Nothing is made up where there is no basis: 7 distances don't reach 511 in 5 hops.
    assert symmetric(7, 5, 511, most_nodes=5_000) is None
    assert in_runs(7, 5, 511, random=Random(3), most_tries=500) is None


def test_radices() -> None:
    for units in range(1, 200):
        for layers in range(1, 9):
            found = radices(units, layers)
            product = 1
            for each in found:
                product *= each
            assert product >= units
            assert len(found) <= layers
            assert max(found, default=1) == ceil_root(units, layers)
            assert ceil_root(units, layers) ** layers >= units
            assert units == 1 or (ceil_root(units, layers) - 1) ** layers < units
