"""The text of a mask decides as its set does, up to the largest numbers that a kernel holds."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sparsedsl.codegen.terms import predicate_source
from sparsedsl.index import Member
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.terms import DISTANCE

LARGEST = (1 << 31) - 1
DISTANCES = [*range(-200, 200), *range(LARGEST - 200, LARGEST + 1), *range(-LARGEST, -LARGEST + 200)]


@pytest.mark.parametrize("period", [1, 2, 3, 7, 16, 60])
@pytest.mark.parametrize("lo", [-INFINITY, -LARGEST, -LARGEST + 40, 0, 66])
@pytest.mark.parametrize("hi", [INFINITY, LARGEST + 1, LARGEST - 5, LARGEST - 80, 130])
def test_bounds_that_a_mask_needs(period: int, lo: int, hi: int) -> None:
    for residues in ([0], [1 % period, period - 1], [period // 2]):
        members = IntegerSet.interval(lo, hi) & IntegerSet.residues(period, residues)
        source = predicate_source(Member(DISTANCE, members))
        distances = np.array(DISTANCES, dtype=np.int64)
        q = np.maximum(distances, 0)
        found = eval(source, {"q": q, "k": q - distances})
        assert np.array_equal(found, members.contains(distances)), source


def test_a_bound_beyond_all_positions_is_left_out() -> None:
    members = IntegerSet.interval(0, INFINITY) & IntegerSet.residues(3, [0])
    source = predicate_source(Member(DISTANCE, members))
    assert source == "(q - k >= 0) & ((q - k) % 3 == 0)"
    assert not re.search(r"\d{9}", source)
