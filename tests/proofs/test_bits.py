"""Sums of sets and counts of steps against their definitions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedsl.proofs.bits import ones, steps_below, sums


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[int, int, int]]], list[int]]:
    """Sets, rows and limits of a few classes, as of the queries 0, ..., units - 1; some rows like those of chunks."""
    classes, units = draw(st.integers(1, 6)), draw(st.integers(6, 60))
    limits = [max(range(s, units, classes)) + 1 for s in range(classes)]
    sets = [draw(st.integers(0, ones(limit))) for limit in limits]
    term = st.tuples(st.integers(0, units), st.integers(1, 5), st.integers(1, units))
    rows = [draw(st.lists(term, max_size=3)) for _ in range(classes)]
    step = draw(st.integers(1, 3))
    for s in range(classes):
        # The distances s % step, ..., s from class s, as inside a chunk.
        rows[s] = [*rows[s], (0, step, s // step + 1)]
    return sets, rows, limits


@settings(max_examples=300)
@given(problems())
def test_sums(problem: tuple[list[int], list[list[tuple[int, int, int]]], list[int]]) -> None:
    sets, rows, limits = problem
    expected = []
    for s, limit in enumerate(limits):
        seen = 0
        for first, step, count in rows[s]:
            for distance in range(first, first + step * count, step):
                seen |= sets[(s - distance) % len(sets)] << distance
        expected.append(seen & ones(limit))
    assert sums(sets, rows, limits) == expected


@settings(max_examples=300)
@given(st.integers(0, ones(80)), st.integers(0, 40), st.integers(1, 90))
def test_steps_below(bits: int, more: int, period: int) -> None:
    end = max(bits.bit_length() - 1, 0) + more
    members = [d for d in range(80) if bits >> d & 1]
    assert steps_below(bits, end, period) == sum(len(range(d, end + 1, period)) for d in members)
