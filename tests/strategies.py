"""Hypothesis strategies that compose patterns out of everything the language has, absolute positions included."""

from __future__ import annotations

from hypothesis import strategies as st

from sparsedsl.constructors import (
    causal,
    chunked,
    dilated,
    empty,
    full,
    offsets,
    per_head,
    power,
    sink,
    sliding,
    strided,
)
from sparsedsl.index import Comparison, Constant, K, Predicate, Q, binary
from sparsedsl.layers import PerHead
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern

small = st.integers(1, 9)


def conditions() -> st.SearchStrategy[Predicate]:
    """Arithmetic conditions with a normal form: global queries, residues, distances in other units."""
    distance = binary("-", Q, K)
    return st.one_of(
        st.builds(lambda n: Comparison("<", Q, Constant(n)), small),
        st.builds(lambda n: Comparison(">=", K, Constant(n)), small),
        st.builds(lambda n: Comparison(">=", binary("%", K, Constant(n)), Constant(n // 2)), small),
        st.builds(lambda n: Comparison("==", binary("%", Q, Constant(n)), Constant(n - 1)), st.integers(1, 5)),
        st.builds(
            lambda d, r: Comparison("==", binary("%", binary("//", distance, Constant(2)), Constant(d)), Constant(r)),
            st.integers(1, 4),
            st.integers(0, 3),
        ),
        st.builds(
            lambda r: Comparison("==", binary("%", binary("*", Q, K), Constant(5)), Constant(r)), st.integers(0, 4)
        ),
        st.builds(
            lambda n: Comparison(
                "<=", binary("*", Q, Constant(2)), binary("+", binary("*", K, Constant(2)), Constant(n))
            ),
            small,
        ),
    )


def leaves() -> st.SearchStrategy[Pattern]:
    """One constructor call."""
    return st.one_of(
        st.builds(lambda window, ahead: sliding(window, ahead=ahead), small, st.sampled_from([0, 0, 2])),
        st.builds(dilated, small, st.integers(1, 4)),
        st.builds(lambda base: power(base=base), st.integers(2, 3)),
        st.builds(sink, small),
        st.builds(strided, small),
        st.builds(chunked, small),
        st.builds(offsets, st.sets(st.integers(-4, 20), min_size=1, max_size=3)),
        st.sampled_from([causal(), full(), empty()]),
        st.builds(Where, conditions()),
    )


def periodic_patterns(max_leaves: int = 5) -> st.SearchStrategy[Pattern]:
    """Compositions, each of whose leaves has a normal form; the whole may repeat too late to have one."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a - b, inner, inner),
            st.builds(lambda a: ~a, inner),
            st.builds(lambda a, size: a.blocks(size), inner, st.integers(1, 6)),
            st.builds(lambda a: a & causal(), inner),
        ),
        max_leaves=max_leaves,
    )


def head_patterns() -> st.SearchStrategy[PerHead]:
    """Two to four heads, some of them alike."""
    return st.builds(
        lambda kinds, order: per_head([kinds[each % len(kinds)] for each in order]),
        st.lists(periodic_patterns(3), min_size=1, max_size=3),
        st.lists(st.integers(0, 2), min_size=2, max_size=4),
    )
