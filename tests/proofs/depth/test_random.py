"""`prove` on composed patterns and random sets of distances, against matrices and sums of its own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedsl import offsets
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.depth.proof import Proof
from sparsedsl.proofs.depth.prover import prove
from tests.proofs.depth.brute_force import depths, distance_depths, looks_back
from tests.proofs.random_patterns import layered

LENGTHS = 40


def assert_agrees(proof: Proof, found: list[int | None], *, least: bool) -> None:
    """The statement and both bounds at every length from 2 on; found[n] is the depth at n, None for never."""
    for length in range(2, len(found)):
        depth = found[length]
        fails = proof.complete is False and length >= (proof.fails_from or 0)
        if proof.complete is not None and (fails or least):
            assert (depth is None) == fails, length
        if depth is None or fails:
            continue
        below, above = proof.depth(length)
        if proof.lower is not None:
            assert below <= depth, length
        if proof.upper is not None:
            assert above is not None
            assert depth <= above, length
        if proof.exact:
            assert below == above == depth, length


@settings(max_examples=100, deadline=None)
@given(layered(), st.booleans())
def test_statements_of_composed_patterns_hold(pattern: Pattern | PerHead | Stack, residual: bool) -> None:
    proof = prove(pattern, residual=residual)
    proof.verify()
    most = 12 if proof.facts.ahead else LENGTHS
    found = depths(pattern, most, residual=residual, ahead=proof.facts.ahead)
    assert_agrees(proof, found, least=proof.fails_first)
    # Where a pattern has a normal form and looks back, completeness is always settled.
    if proof.facts.is_exact and not proof.facts.ahead and proof.facts.endless:
        assert proof.complete is not None
        assert looks_back(pattern, LENGTHS)
    if proof.complete and proof.facts.endless and proof.facts.is_exact and not proof.facts.ahead:
        assert proof.lower is not None


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 45), min_size=1, max_size=6), st.booleans())
def test_every_finite_set_of_distances_is_settled_exactly(distances: set[int], with_one: bool) -> None:
    members = distances | {1} if with_one else distances
    proof = prove(offsets(members))
    proof.verify()
    found = distance_depths(members, 300)
    if 1 in members:
        assert proof.complete
        assert proof.exact
    else:
        assert (proof.complete, proof.fails_from) == (False, 2)
    assert_agrees(proof, found, least=True)
