"""Factored predicates: the same pairs, with fewer conditions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sparsedsl import causal, chunked, per_head, random_blocks, sink, sliding, strided, where
from sparsedsl.factored import factored
from sparsedsl.index import TRUE, holds, lowered, negations_inside
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet
from tests.proofs.random_patterns import patterns

q, k = np.mgrid[:40, :40]


@settings(max_examples=200)
@given(patterns())
def test_the_same_pairs(pattern: Pattern) -> None:
    predicate = negations_inside(lowered(pattern.predicate()))
    np.testing.assert_array_equal(holds(factored(predicate), q, k), pattern.dense(40))


EVEN, ODD = where("k % 2 == 0"), where("k % 2 == 1")


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        (sliding(4) & EVEN | sliding(4) & ODD, sliding(4)),
        (sliding(4) & EVEN & causal() | sliding(4) & ODD & causal(), sliding(4) & causal()),
        (strided(3) & sliding(9) | strided(3) & sink(2), strided(3) & (sliding(9) | sink(2))),
        (
            sliding(2) | chunked(4) & EVEN | random_blocks(2, 1) | chunked(4) & ODD,
            sliding(2) | random_blocks(2, 1) | chunked(4),
        ),
    ],
    ids=str,
)
def test_alternatives_share_what_they_have_in_common(pattern: Pattern, same: Pattern) -> None:
    found = factored(lowered(pattern.predicate()))
    np.testing.assert_array_equal(holds(found, q, k), pattern.dense(40))
    # The order of the alternatives is no part of the meaning.
    assert len(str(found)) == len(str(lowered(same.predicate())))


def test_residues_that_are_all_there_are_no_condition() -> None:
    assert factored(lowered((EVEN | ODD).predicate())) == TRUE
    assert factored(lowered(where("k % 3 < 2").predicate())) != TRUE


def test_the_heads_of_longnet_are_one_rule_a_level() -> None:
    graph = longnet(segments=[8, 16, 32], dilations=[1, 2, 4], heads=4).union()
    levels = (chunked(8) | chunked(16) & strided(2) | chunked(32) & strided(4)) & causal()
    np.testing.assert_array_equal(graph.dense(70), levels.dense(70))
    found = factored(lowered(graph.predicate()))
    assert len(str(found)) == len(str(lowered(levels.predicate())))


def test_blocks_stay_blocks() -> None:
    heads = per_head([(sliding(2) | sink(1)).blocks(64) & causal(), (strided(4) | sink(1)).blocks(64) & causal()])
    form = normalise(heads.union())
    assert (form.unit, form.cut) == (64, True)


@pytest.mark.parametrize("text", ["k % 64 >= 56", "(k % 5 == 3) & (q % 4 == 1)", "(k // 8) % 3 == 2"])
def test_residues_make_no_breaks(text: str) -> None:
    form = normalise(where(text))
    assert (form.q_breaks, form.k_breaks) == ((0,), (0,))
    np.testing.assert_array_equal(form.dense(150, 150), where(text).dense(150))
