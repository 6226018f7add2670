"""A few of the cases that `python -m tests.fuzz` draws by the ten thousand; and that its checks can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

import sparsedsl as sd
from sparsedsl.codegen.tiles import schedule
from tests import fuzz


@settings(max_examples=150)
@given(fuzz.cases())
def test_every_stage_equals_dense(case: fuzz.Case) -> None:
    fuzz.check_case(case, fuzz.Counts())


def test_the_kinds_are_counted() -> None:
    counts = fuzz.Counts()
    for pattern, q_len, k_len in ((sd.sliding(4), 9, 12), (sd.random_blocks(16, 1) & sd.causal(), 40, 30)):
        fuzz.check_case(fuzz.Case(pattern, q_len, k_len, ((4, 2), (8, 8)), planned=True), counts)
    assert counts.kinds["cases"] == 2
    assert counts.kinds["normal form"] == counts.kinds["no normal form"] == 1
    assert counts.kinds["tile programs"] == counts.kinds["tables"] == 2
    assert counts.kinds["plans in one part"] == 2


def test_a_wrong_program_is_noticed() -> None:
    program = schedule(sd.sliding(9) & sd.where("k % 2 == 0"), 4, 4)
    whole = (sd.sliding(9) & sd.where("k % 2 == 0")).dense(20)
    fuzz._check_program(program, 5, 5, whole)
    fewer = replace(program, groups=program.groups[1:])
    twice = replace(program, groups=(*program.groups, program.groups[0]))
    for wrong in (fewer, twice):
        with pytest.raises(AssertionError):
            fuzz._check_program(wrong, 5, 5, whole)
    with pytest.raises(AssertionError):
        fuzz._check_program(program, 5, 5, sd.sliding(9).dense(20))
