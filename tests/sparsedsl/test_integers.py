"""IntegerSet against Python's own sets, on a window wide enough for every operation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsedsl.integers import INFINITY, IntegerSet

SEEN = range(-60, 60)
FAR = range(-400, 400)

ends = st.integers(-40, 40)
residues = st.integers(1, 8).flatmap(
    lambda period: st.builds(
        IntegerSet.residues, st.just(period), st.lists(st.integers(0, period - 1), min_size=1, max_size=3)
    )
)
intervals = st.one_of(
    st.builds(IntegerSet.interval, ends, ends),
    st.builds(lambda end: IntegerSet.interval(-INFINITY, end), ends),
    st.builds(lambda start: IntegerSet.interval(start, INFINITY), ends),
)
sets = st.recursive(
    intervals | residues | st.builds(IntegerSet.of, st.sets(ends, max_size=5)),
    lambda inner: st.one_of(
        st.builds(IntegerSet.__or__, inner, inner),
        st.builds(IntegerSet.__and__, inner, inner),
        st.builds(IntegerSet.__sub__, inner, inner),
    ),
    max_leaves=5,
)


def listed(members: IntegerSet, window: range = SEEN) -> set[int]:
    return {x for x in window if x in members}


def seen(numbers: set[int]) -> set[int]:
    return {x for x in numbers if x in SEEN}


@given(sets, sets)
def test_set_algebra(a: IntegerSet, b: IntegerSet) -> None:
    one, other = listed(a), listed(b)
    assert listed(a | b) == one | other
    assert listed(a & b) == one & other
    assert listed(a - b) == one - other
    assert listed(~a) == set(SEEN) - one
    assert (a == b) == (listed(a, FAR) == listed(b, FAR))
    assert (a <= b) == (listed(a, FAR) <= listed(b, FAR))
    assert a != b or hash(a) == hash(b)


@given(sets, st.integers(-20, 20), st.integers(1, 6))
def test_images_and_preimages(a: IntegerSet, by: int, factor: int) -> None:
    far = listed(a, FAR)
    assert listed(a.shift(by)) == seen({x + by for x in far})
    assert listed(a.negate()) == seen({-x for x in far})
    assert listed(a.scale(factor)) == seen({x * factor for x in far})
    assert listed(a.lift(factor)) == {x for x in SEEN if x // factor in a}
    assert listed(a.sample(factor, by)) == {x for x in SEEN if by + factor * x in a}
    assert listed(a.dilate(3 * factor)) == seen({x + s for x in far for s in range(3 * factor)})
    assert listed(a.erode(factor)) == {x for x in SEEN if all(x - s in a for s in range(factor))}
    assert listed(a.modulo_preimage(factor)) == {x for x in SEEN if x % factor in a}


@given(sets, st.integers(-50, 20))
def test_questions(a: IntegerSet, hi: int) -> None:
    inside = [x for x in range(-50, hi) if x in a]
    assert a.count(-50, hi) == len(inside)
    assert a.bits(-50, hi) == sum(1 << (x + 50) for x in inside)
    assert list(a.members(-50, hi)) == inside
    numbers = np.arange(-60, 60)
    assert a.contains(numbers).tolist() == [int(x) in a for x in numbers]
    for starts in (numbers, numbers[:3]):
        stops = hi - starts
        found = a.counts(starts, stops).tolist()
        assert found == [a.count(*map(int, each)) for each in zip(starts, stops, strict=True)]


def test_union_of_many_is_the_union() -> None:
    parts = [IntegerSet.interval(x, x + 2) for x in range(0, 20, 2)] + [IntegerSet.residues(3, [1])]
    assert listed(IntegerSet.union_of(parts)) == {x for x in SEEN if 0 <= x < 20 or x % 3 == 1}
