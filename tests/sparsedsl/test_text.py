"""Text and source rebuild every value; a mistake gets one clear error with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparsedsl
from sparsedsl.errors import SparseDSLError
from sparsedsl.index import Member
from sparsedsl.integers import IntegerSet
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern
from sparsedsl.terms import DISTANCE, Constant, K, Q, Term, binary
from sparsedsl.text import parse
from tests.proofs.random_patterns import layered
from tests.sparsedsl.test_integers import sets

NAMES = {name: getattr(sparsedsl, name) for name in sparsedsl.__all__ if name not in ("check", "compile")}


@given(layered())
def test_text_and_source_rebuild_the_value(pattern: Pattern | PerHead | Stack) -> None:
    assert parse(str(pattern)) == pattern
    assert eval(repr(pattern), NAMES) == pattern


@given(sets, st.sampled_from([DISTANCE, Q, K, binary("%", DISTANCE, Constant(6)), binary("//", K, Constant(3))]))
def test_a_membership_is_printed_as_comparisons_with_the_same_pairs(members: IntegerSet, term: Term) -> None:
    pattern = Where(Member(term, members))
    read = parse(str(pattern))
    assert isinstance(read, Pattern)
    assert str(read) == str(pattern)
    assert (read.dense(50) == pattern.dense(50)).all()


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
