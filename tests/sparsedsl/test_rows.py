"""Rows, columns, blocks and repetition of predicates, against the dense meaning."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsedsl.pattern import Pattern
from sparsedsl.rows import Rows, block_size, never_ahead, repetition
from tests.proofs.random_patterns import patterns


def bits(inside: NDArray[np.bool_]) -> int:
    return sum(1 << int(at) for at in np.flatnonzero(inside))


@settings(max_examples=400)
@given(patterns(), st.integers(1, 40))
def test_rows_and_columns(pattern: Pattern, count: int) -> None:
    predicate = pattern.predicate()
    for unit in {1, block_size(predicate) or 1}:
        dense = pattern.dense(count * unit)[::unit, ::unit] if count * unit < 300 else None
        if dense is None:
            continue
        rows = Rows(predicate, unit=unit, count=count)
        drawn = "random_blocks" in str(pattern)
        for place in range(count):
            assert rows.row(place) == bits(dense[place])
            assert rows.row_set(place).bits(0, count) == bits(dense[place])
            assert drawn or rows.column(place) == bits(dense[:, place])


@settings(max_examples=300)
@given(patterns(), st.integers(2, 4))
def test_blocks_tell_all_but_the_cut(pattern: Pattern, blocks: int) -> None:
    size = block_size(pattern.predicate())
    if not 1 < size <= 12:
        return
    dense = pattern.dense(blocks * size)
    for q in range(blocks):
        for k in range(blocks):
            tile = dense[q * size : (q + 1) * size, k * size : (k + 1) * size]
            for part in (np.tri(size, dtype=np.bool_), ~np.tri(size, dtype=np.bool_)) if q == k else (tile >= 0,):
                assert tile[part].all() or not tile[part].any()


@settings(max_examples=200)
@given(patterns())
def test_repetition(pattern: Pattern) -> None:
    rows = Rows(pattern.predicate(), unit=1, count=1)
    found = repetition(rows.predicate)
    if found is None or sum(found) > 70:
        return
    period, start = found
    dense = pattern.dense(start + 2 * period + 15)[start:, start:]
    assert (dense[period:, period:] == dense[:-period, :-period]).all()


@settings(max_examples=300)
@given(patterns())
def test_never_ahead(pattern: Pattern) -> None:
    if never_ahead(pattern.predicate()):
        assert not np.triu(pattern.dense(40), 1).any()
