"""Conditions on q and k: texts and sympy expressions against Python's own arithmetic."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sparsedsl as sd
from sparsedsl import k, q
from sparsedsl.errors import SparseDSLError
from sparsedsl.index import AllOf, Binary, Comparison, Constant, K, Negation, Q
from sparsedsl.leaves import Where

SIZE = 13


def told(condition: str) -> list[list[bool]]:
    """What Python itself makes of a condition on whole numbers; `and or not` only."""
    code = compile(condition, "condition", "eval")
    return [[bool(eval(code, {"q": a, "k": b})) for b in range(SIZE)] for a in range(SIZE)]


def terms() -> st.SearchStrategy[str]:
    """Arithmetic with Python's meaning, every operation in parentheses or not."""
    leaf = st.sampled_from(["q", "k", "q - k", "0", "1", "3", "17"])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds("({} + {})".format, inner, inner),
            st.builds("({}) - ({})".format, inner, inner),
            st.builds("({}) * {}".format, inner, st.integers(0, 5)),
            st.builds("({}) // {}".format, inner, st.integers(1, 7)),
            st.builds("({}) % {}".format, inner, st.integers(1, 7)),
            st.builds("-({})".format, inner),
            st.builds("({})**2".format, st.sampled_from(["q", "k", "(q - k)", "2"])),
            st.builds("{} % 4 + {} // 3 * 2 - 1".format, st.sampled_from("qk"), st.sampled_from("qk")),
        ),
        max_leaves=4,
    )


def conditions() -> st.SearchStrategy[str]:
    relation = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    compared = st.one_of(
        st.builds("{} {} {}".format, terms(), relation, terms()),
        st.builds("{} {} {} {} {}".format, terms(), relation, terms(), relation, terms()),
    )
    return st.recursive(
        compared,
        lambda inner: st.one_of(
            st.builds("({} and {})".format, inner, inner),
            st.builds("({} or {})".format, inner, inner),
            st.builds("(not {})".format, inner),
            st.builds("{} and {} or {}".format, inner, inner, inner),
            st.builds("not {} or {}".format, inner, inner),
        ),
        max_leaves=4,
    )


@given(conditions())
def test_a_text_means_what_python_means(condition: str) -> None:
    try:
        pattern = sd.where(condition)
    except SparseDSLError as error:
        assume("62 bits" not in error.what)
        raise
    assert pattern.dense(SIZE).tolist() == told(condition)
    assert sd.parse(f"where({condition})") == pattern
    assert sd.parse(str(pattern)) == pattern
    assert eval(repr(pattern), {"where": sd.where}) == pattern


@settings(max_examples=40)
@given(conditions(), conditions())
def test_signs_join_like_words(a: str, b: str) -> None:
    try:
        first, second = sd.where(a), sd.where(b)
    except SparseDSLError as error:
        assume("62 bits" not in error.what)
        raise
    for signs, words in (
        (f"({a}) & ({b})", f"({a}) and ({b})"),
        (f"({a}) | ({b})", f"({a}) or ({b})"),
        (f"~({a})", f"not ({a})"),
    ):
        assert sd.where(signs) == sd.where(words)
    assert (first & second).dense(SIZE).tolist() == sd.where(f"({a}) and ({b})").dense(SIZE).tolist()


EXPRESSIONS = [
    (q - k < 4, "q - k < 4"),
    (q - k >= 0, "q - k >= 0"),
    (sympy.Eq(q, k), "q == k"),
    (sympy.Ne(q % 3, 1), "q % 3 != 1"),
    ((q - k < 4) & (k % 2 > 0), "q - k < 4 and k % 2 > 0"),
    ((q < 3) | (k < 2), "q < 3 or k < 2"),
    (~((q < 3) | (k < 2)), "not (q < 3 or k < 2)"),
    (sympy.floor(q / 4) > sympy.floor(k / 4), "q // 4 > k // 4"),
    (sympy.floor((q + k) / 3) <= 2, "(q + k) // 3 <= 2"),
    (sympy.floor(q / 2 + k / 3) <= 4, "(3 * q + 2 * k) // 6 <= 4"),
    (sympy.Eq(q // 4, k // 4), "q // 4 == k // 4"),
    (q / 2 < k, "q < 2 * k"),
    (q / 2 - k / 3 + 1 >= sympy.Rational(5, 4) * k, "6 * q - 4 * k + 12 >= 15 * k"),
    (q // 3 <= 2, "q // 3 <= 2"),
    (k <= q // 2 * 3, "k <= q // 2 * 3"),
    (q**2 - k**2 > 5, "q ** 2 - k ** 2 > 5"),
    (2 * q + 3 <= k * 5, "2 * q + 3 <= k * 5"),
    ((q * k) % 5 <= 2, "q * k % 5 <= 2"),
    (sympy.And(q > 2, q < 9, k > 1), "q > 2 and q < 9 and k > 1"),
    (sympy.Not(sympy.Eq(q % 2, 0)), "not q % 2 == 0"),
    (sympy.true, "0 == 0"),
    (sympy.false, "0 == 1"),
    (sympy.Symbol("q") < 5, "q < 5"),
    (sympy.Symbol("q", integer=True) - sympy.Symbol("k", positive=True) < 5, "q - k < 5"),
]


@pytest.mark.parametrize(("expression", "text"), EXPRESSIONS)
def test_sympy_says_the_same_as_the_text(expression: sympy.Basic, text: str) -> None:
    pattern = sd.where(expression)
    assert pattern.dense(SIZE).tolist() == sd.where(text).dense(SIZE).tolist()
    assert pattern.dense(SIZE).tolist() == told(text)
    assert sd.parse(str(pattern)) == pattern
    assert eval(repr(pattern), {"where": sd.where}) == pattern


def test_a_predicate_is_checked_and_takes_the_form_of_its_text() -> None:
    predicate = Negation(AllOf((Comparison("<", Binary("+", Q, Constant(0)), K), Comparison("==", K, Constant(3)))))
    pattern = sd.where(predicate)
    assert pattern == sd.where("not (q < k and k == 3)")
    assert sd.parse(str(pattern)) == pattern
    with pytest.raises(SparseDSLError, match="takes a positive number"):
        sd.where(Comparison("<", Binary("//", Q, K), Constant(3)))


def test_conditions_compose_with_patterns() -> None:
    pattern = (sd.where("q % 4 == 3") | sd.sliding(2)).blocks(2) & sd.causal()
    want = [[(a // 2 % 4 == 3 or a // 2 - b // 2 in (0, 1)) and b <= a for b in range(SIZE)] for a in range(SIZE)]
    assert pattern.dense(SIZE).tolist() == want
    assert isinstance(sd.where("q == k"), Where)


def test_precedence_is_pythons() -> None:
    for text in (
        "q - k - 1 < 2",
        "q - (k - 1) < 2",
        "q // 2 * 2 == q",
        "q * 2 // 3 == k",
        "q % 3 * 2 < k",
        "-q + k < 2",
        "-q // 2 < -k",
        "-q % 5 == k % 5",
        "-2**2 + q < k",
        "q - -k < 9",
        "1 < q <= k < 9 != 4",
        "not q < 3 and k < 4 or q == k",
        "not (q < 3 or k < 4) and q != k",
    ):
        assert sd.where(text).dense(SIZE).tolist() == told(text), text
