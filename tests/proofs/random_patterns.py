"""Hypothesis strategies that compose patterns: causal, looking ahead, periodic or not, lifted, per head, stacked."""

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
    random_blocks,
    sink,
    sliding,
    strided,
)
from sparsedsl.index import Comparison, Constant, K, Predicate, Q, binary
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern

small = st.integers(1, 6)


def conditions() -> st.SearchStrategy[Predicate]:
    """Arithmetic conditions, some of which have no normal form."""
    q_rest = binary("%", Q, Constant(3))
    k_chunk = binary("//", K, Constant(4))
    return st.sampled_from(
        [
            Comparison(">=", binary("%", K, Constant(5)), Constant(3)),
            Comparison("==", q_rest, Constant(1)),
            Comparison("<", Q, Constant(9)),
            Comparison("==", K, Constant(3)),
            Comparison(">=", K, Constant(20)),
            Comparison("==", binary("%", binary("*", Q, K), Constant(4)), Constant(0)),
            Comparison("<", binary("*", Q, K), Constant(60)),
            Comparison("==", binary("%", k_chunk, Constant(2)), Constant(0)),
            Comparison("<=", binary("+", K, K), Q),
        ]
    )


def leaves() -> st.SearchStrategy[Pattern]:
    """One constructor call."""
    return st.one_of(
        st.builds(sliding, small),
        st.builds(lambda window, ahead: sliding(window, ahead=ahead), small, st.integers(0, 2)),
        st.builds(dilated, small, small),
        st.builds(lambda base: power(base=base), st.integers(2, 4)),
        st.builds(sink, small),
        st.builds(strided, small),
        st.builds(chunked, small),
        st.builds(offsets, st.sets(st.integers(0, 12), min_size=1, max_size=4)),
        st.builds(offsets, st.sets(st.integers(-4, 12), min_size=1, max_size=4)),
        st.just(causal()),
        st.sampled_from([full(), empty()]),
        st.builds(lambda block, seed: random_blocks(block, 2, seed=seed), st.integers(1, 5), st.integers(0, 9)),
        st.builds(Where, conditions()),
    )


def patterns() -> st.SearchStrategy[Pattern]:
    """Composed patterns, most of them causal."""
    composed = st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a - b, inner, inner),
            st.builds(lambda a: ~a, inner),
            st.builds(lambda a, size: a.blocks(size), inner, st.integers(1, 5)),
        ),
        max_leaves=4,
    )
    lifted = st.builds(lambda a, size: a.blocks(size), composed, st.integers(1, 7))
    either = composed | lifted
    cut = st.builds(lambda a: a & causal(), either)
    with_window = st.builds(lambda a, w: (a | sliding(w)) & causal(), either, small)
    return st.one_of(cut, with_window, either)


def heads() -> st.SearchStrategy[PerHead]:
    """A pattern for each of a few heads."""
    return st.builds(per_head, st.lists(patterns(), min_size=1, max_size=3))


def stacks() -> st.SearchStrategy[Stack]:
    """A pattern for each layer."""
    layers = st.lists(patterns() | heads(), min_size=1, max_size=4)
    return st.builds(lambda each, count: Stack(each, layers=count), layers, st.integers(1, 7))


def layered() -> st.SearchStrategy[Pattern | PerHead | Stack]:
    """A pattern, a pattern for each head, or a pattern for each layer."""
    return st.one_of(patterns(), patterns(), heads(), stacks())
