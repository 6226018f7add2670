"""Text and source rebuild every value; a mistake gets one clear error with its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparsedsl
from sparsedsl.errors import SparseDSLError
from sparsedsl.index import Member
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern
from sparsedsl.terms import DISTANCE, Binary, Constant, K, Q, Term
from sparsedsl.text import parse
from tests.proofs.random_patterns import layered

NAMES = {name: getattr(sparsedsl, name) for name in sparsedsl.__all__ if name not in ("check", "compile")}


@given(layered())
def test_text_and_source_rebuild_the_value(pattern: Pattern | PerHead | Stack) -> None:
    assert parse(str(pattern)) == pattern
    assert eval(repr(pattern), NAMES) == pattern


TERMS: list[Term] = [DISTANCE, Q, Binary("%", K, Constant(5)), Binary("//", K, Constant(3)), Binary("+", Q, K)]


@st.composite
def integer_sets(draw: st.DrawFn) -> IntegerSet:
    """Intervals, residues, single numbers, and what set operations make of them."""
    found = IntegerSet.of(draw(st.sets(st.integers(-9, 30), max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        lo, hi = draw(st.just(-INFINITY) | st.integers(-9, 9)), draw(st.just(INFINITY) | st.integers(10, 40))
        period = draw(st.integers(1, 9))
        residues = draw(st.sets(st.integers(0, period - 1)))
        other = IntegerSet.interval(lo, hi) & IntegerSet.residues(period, sorted(residues))
        found = draw(st.sampled_from([found | other, found & other, found - other, ~(found | other)]))
    return found


@given(st.sampled_from(TERMS), integer_sets())
def test_memberships_of_the_compiler_are_printed_as_conditions(term: Term, members: IntegerSet) -> None:
    made = Where(Member(term, members))
    read = parse(str(made))
    assert str(read) == str(made)
    assert parse(str(read)) == read
    assert isinstance(read, Pattern)
    for q_len, k_len in ((41, 41), (7, 90)):
        assert np.array_equal(read.dense(q_len, k_len), made.dense(q_len, k_len))


def test_the_text_of_a_membership() -> None:
    members = IntegerSet.interval(0, 64) & IntegerSet.residues(8, [1, 2, 3, 6]) | IntegerSet.of([100])
    text = "where((1 <= q - k < 63) & ((1 <= (q - k) % 8 < 4) | ((q - k) % 8 == 6)) | (q - k == 100))"
    assert str(Where(Member(DISTANCE, members))) == text


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("sliding(4", "SyntaxMistake", "^"),
        ("slidng(4)", "UnknownName", "^^^^^^"),
        ("sliding(-4)", "EmptyWindow", "^"),
        ("sliding(4) |", "SyntaxMistake", "^"),
        ("", "SyntaxMistake", ""),
        ("sliding(4) sink(2)", "SyntaxMistake", "^"),
        ("sliding('x')", "WrongType", "^"),
        ("where(q % 0 == 1)", "", "^"),
        ("__import__('os')", "UnknownName", "^"),
        ("(" * 500 + "causal()" + ")" * 500, "SyntaxMistake", ""),
    ],
)
def test_a_mistake_gets_one_error(text: str, code: str, place: str) -> None:
    with pytest.raises(SparseDSLError) as caught:
        parse(text)
    shown = str(caught.value)
    assert shown.startswith(code)
    assert place in shown
    assert "expected" in shown


def test_the_text_of_an_error() -> None:
    with pytest.raises(SparseDSLError) as caught:
        parse("sliding(window=0) | sink(4)")
    assert str(caught.value).splitlines() == [
        "EmptyWindow: the window holds no key",
        "  where     sliding(window=0) | sink(4)",
        "            ^^^^^^^^^^^^^^^^^",
        "  got       window = 0",
        "  expected  window >= 1, because a window counts the query's own key",
        "  try       sliding(1) for the diagonal, or drop the term",
    ]
