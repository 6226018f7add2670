"""`check` against boolean matrices, on composed patterns."""

from __future__ import annotations

from functools import reduce
from operator import or_

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.verdict import Verdict, check
from tests.proofs.brute_force import (
    MOST_LAYERS,
    Oracle,
    contiguous,
    first_gap,
    holes,
    intervals,
    scope,
)
from tests.proofs.random_patterns import layered


def assert_agrees(pattern: Pattern | PerHead | Stack, seq_len: int, layers: int | None, residual: bool) -> Verdict:
    """Every field of the verdict, from matrices alone."""
    if isinstance(pattern, Stack):
        layers = None
    verdict = check(pattern, seq_len=seq_len, layers=layers, residual=residual)
    oracle = Oracle.of(pattern, seq_len, layers, residual)
    edges = reduce(or_, oracle.layers)
    # A normal form knows that it looks ahead, even where the length is too short to show it.
    assert verdict.ahead or not np.triu(edges, 1).any()
    needed = scope(seq_len, ahead=verdict.ahead)

    assert verdict.degree == max(int(layer.sum(axis=1).max()) for layer in oracle.layers)
    assert verdict.live_pairs == max(int(layer.sum()) for layer in oracle.layers)
    triangle = seq_len * (seq_len + 1) // 2
    assert verdict.density == max(int(np.tril(layer).sum()) for layer in oracle.layers) / triangle
    keyless = intervals(reduce(or_, (np.asarray(~layer.any(axis=1)) for layer in oracle.layers)))
    assert verdict.keyless.first == keyless[:16]
    assert verdict.keyless.count == len(keyless)
    assert verdict.keyless.tokens == sum(hi - lo for lo, hi in keyless)

    depths = len(verdict.reach)
    assert len(verdict.contiguous) == depths
    for layer in range(1, depths + 1):
        joined = oracle.after(layer)
        assert verdict.reach[layer - 1] == joined[-1].sum()
        assert verdict.contiguous[layer - 1] == contiguous(joined & needed, ahead=verdict.ahead)

    powers = oracle.powers(len(pattern) if isinstance(pattern, Stack) else MOST_LAYERS)
    complete_at = [layer for layer, joined in enumerate(powers, 1) if (joined | ~needed).all()]
    assert verdict.settled
    assert verdict.depth == (complete_at[0] if complete_at else None)

    # Without a number of layers: what never changes any more, or else the layers that the verdict shows.
    joined = oracle.after(oracle.count or (len(powers) if residual else depths))
    if residual:
        # The joined pairs only grow, and the curves end where they stop.
        assert (joined[-1] == oracle.after(depths)[-1]).all()
    assert verdict.complete == bool((joined | ~needed).all())
    assert verdict.joined_pairs == (joined & needed).sum()
    assert verdict.pairs == needed.sum()
    gap = first_gap(joined, ahead=verdict.ahead)
    if gap is None:
        assert verdict.counterexample is None
    else:
        found = verdict.counterexample
        assert found is not None
        assert (found.q, found.k, found.seq_len) == (*gap, max(gap) + 1)
    assert verdict.holes.first == holes(joined[-1])[:16]
    assert verdict.holes.count == len(holes(joined[-1]))
    assert verdict.holes.tokens == sum(hi - lo for lo, hi in holes(joined[-1]))
    return verdict


@settings(max_examples=6000)
@given(layered(), st.integers(1, 48), st.integers(1, 9) | st.none(), st.booleans())
def test_every_field_of_the_verdict(
    pattern: Pattern | PerHead | Stack, seq_len: int, layers: int | None, residual: bool
) -> None:
    assert_agrees(pattern, seq_len, layers, residual)
