"""Lifetimes against the dense matrix, at a length beyond which nothing new happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

import sparsedsl as sd
from sparsedsl.errors import NoNormalForm
from sparsedsl.lifetimes import ENDLESS, UNREAD, Lifetimes, lifetimes
from sparsedsl.pattern import Pattern
from tests.strategies import periodic_patterns

SHOWN, LENGTH = 60, 3000


@settings(max_examples=60)
@given(periodic_patterns())
def test_lifetimes_equal_the_matrix(pattern: Pattern) -> None:
    try:
        found = lifetimes(pattern)
    except NoNormalForm:
        assume(False)
    assume(len(found.first) + found.period < 1000)
    matrix = pattern.dense(LENGTH)[:, :SHOWN]
    for key in range(SHOWN):
        readers = np.flatnonzero(matrix[key:, key])
        want = int(readers[-1]) if len(readers) else UNREAD
        if found.of(key) == ENDLESS:
            # Powers are apart by a factor of 3 at most here, everything else by a short period; blocks are of <= 6.
            assert want >= LENGTH // 3 - SHOWN - 6, key
        else:
            assert found.of(key) == want, key
    last = found.last_readers(0, SHOWN)
    assert [int(each) for each in last] == [key + found.of(key) for key in range(SHOWN)]


def test_the_shortest_form() -> None:
    assert lifetimes(sd.sliding(4) | sd.sink(2)) == Lifetimes((ENDLESS, ENDLESS), (3,))
    assert lifetimes((sd.sliding(4) | sd.sink(2)) & sd.causal() & sd.where("k % 3 < 3")) == lifetimes(
        sd.sliding(4) | sd.sink(2)
    )
    assert lifetimes(sd.sliding(2).blocks(3)) == Lifetimes((), (5, 4, 3))
    assert lifetimes(sd.where("k > q")) == Lifetimes((), (UNREAD,))


def test_mistakes() -> None:
    with pytest.raises(NoNormalForm) as found:
        lifetimes(sd.random_blocks(16, 2))
    assert str(found.value).splitlines() == [
        "NoNormalForm: it can't be told for how long the keys are read",
        "  where     random_blocks(block=16, count=2, seed=0)",
        "  got       no period",
        "  expected  a pattern without random choices that repeats after at most 65536 units",
        "  try       a cache that keeps every key; sliding(1024) | sink(4) needs 1028",
    ]


def test_unions_of_long_periods() -> None:
    """longnet's heads: of each segment, keys of one residue are read to its end."""
    from sparsedsl.patterns.longnet import longnet

    levels = [(64, 1), (512, 4), (8192, 32)]
    heads = longnet(segments=[w for w, _ in levels], dilations=[r for _, r in levels], heads=8).heads
    for number, head in enumerate(heads):
        found = lifetimes(head)
        assert found.period == 8192
        for key in (0, 5, 63, 64, 777, 4096 + number, 8191):
            # A reader shares the segment, and the head's residue with the key.
            ends = [key - key % w + w - r + number % r for w, r in levels if r == 1 or key % r == number % r]
            assert found.of(key) == max(ends) - key, (number, key)
