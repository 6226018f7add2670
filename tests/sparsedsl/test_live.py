"""Counting live pairs against the dense matrix."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from sparsedsl.errors import NoNormalForm
from sparsedsl.live import live_pairs
from sparsedsl.pattern import Pattern
from tests.proofs.random_patterns import patterns


@given(patterns(), st.integers(1, 90))
def test_equals_dense(pattern: Pattern, length: int) -> None:
    try:
        counted = live_pairs(pattern, length)
    except NoNormalForm:
        assume(False)
    assert counted == pattern.dense(length, length).sum()
