"""The normal form against the dense matrix, and what it says about known patterns."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsedsl.arithmetic import where
from sparsedsl.constructors import (
    causal,
    chunked,
    dilated,
    empty,
    full,
    offsets,
    power,
    random_blocks,
    sink,
    sliding,
    strided,
)
from sparsedsl.errors import NoNormalForm
from sparsedsl.forms import LONGEST_PERIOD, NormalForm, Periodic
from sparsedsl.index import Comparison, Constant, K, Q, binary
from sparsedsl.integers import EMPTY, INFINITY, IntegerSet
from sparsedsl.leaves import Where
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention
from tests.strategies import periodic_patterns

lengths = st.integers(0, 40)
FIRST_QUERIES = Where(Comparison("<", Q, Constant(3)))


def normal_or_skip(pattern: Pattern) -> NormalForm:
    """The normal form; examples that repeat too late to have one are drawn again."""
    try:
        return normalise(pattern)
    except NoNormalForm as error:
        assume(error.what != "the pattern's period is too long")
        raise


# --- the form denotes the pattern


@settings(max_examples=300)
@given(periodic_patterns(), lengths, lengths)
def test_dense_of_the_form_is_dense_of_the_pattern(pattern: Pattern, q_len: int, k_len: int) -> None:
    form = normal_or_skip(pattern)
    form.verify()
    np.testing.assert_array_equal(form.dense(q_len, k_len), pattern.dense(q_len, k_len))


@given(periodic_patterns(), lengths, lengths, st.integers(-20, 60))
def test_dense_agrees_from_any_first_position(pattern: Pattern, q_len: int, k_len: int, q_start: int) -> None:
    got = normal_or_skip(pattern).dense(q_len, k_len, q_start=q_start)
    np.testing.assert_array_equal(got, pattern.dense(q_len, k_len, q_start=q_start))


@given(periodic_patterns(3), st.integers(2, 6))
def test_refined_forms_denote_the_same_pattern(pattern: Pattern, size: int) -> None:
    form = normal_or_skip(pattern.blocks(size) & causal())
    for unit in range(1, form.unit + 1):
        if form.unit % unit == 0:
            refined = form.refined(unit)
            refined.verify()
            assert refined.unit == unit
            assert (refined == form) == (unit == form.unit)
            np.testing.assert_array_equal(refined.dense(31, 37), form.dense(31, 37))


@given(periodic_patterns())
def test_looks_ahead_is_true_of_patterns_with_a_key_to_the_right(pattern: Pattern) -> None:
    form = normal_or_skip(pattern)
    if np.triu(pattern.dense(60), 1).any():
        assert form.looks_ahead
    assert not normal_or_skip(pattern & causal()).looks_ahead


@given(periodic_patterns(3), periodic_patterns(3))
def test_set_operations_on_forms_are_those_on_matrices(left: Pattern, right: Pattern) -> None:
    a, b = left.dense(29), right.dense(29)
    for composed, expected in ((left | right, a | b), (left & right, a & b), (left - right, a & ~b), (~left, ~a)):
        np.testing.assert_array_equal(normal_or_skip(composed).dense(29, 29), expected)


def test_a_wrong_form_is_noticed() -> None:
    """The comparisons above can fail: one distance too many is seen."""
    form = normalise(sliding(4))
    wider = NormalForm(1, False, (0,), (0,), ((Periodic((IntegerSet.interval(0, 5),)),),))
    assert (form.dense(9, 9) == sliding(4).dense(9)).all()
    assert not (wider.dense(9, 9) == sliding(4).dense(9)).all()


# --- the form of known patterns


def test_a_window_is_one_interval_of_distances() -> None:
    expected = NormalForm(1, False, (0,), (0,), ((Periodic((IntegerSet.interval(0, 7),)),),))
    assert normalise(sliding(7)) == expected
    assert normalise(offsets(range(7))) == expected
    assert normalise(causal() & sliding(7, ahead=3)) == expected


def test_power_attention_is_told_in_blocks() -> None:
    form = normalise(power_attention(block=256))
    assert (form.unit, form.cut, form.q_breaks, form.k_breaks, form.period) == (256, True, (0,), (0, 1), 1)
    sinks, others = (cell.row(0) for cell in form.cells[0])
    assert IntegerSet.interval(0, INFINITY) <= sinks
    assert list(others.members(0, 40)) == [0, 1, 2, 3, 4, 8, 16, 32]
    assert not form.looks_ahead


def test_sinks_break_the_keys_and_global_queries_the_queries() -> None:
    form = normalise((sink(4) | sliding(8)) & causal())
    assert (form.unit, form.cut, form.q_breaks, form.k_breaks, form.period) == (1, False, (0,), (0, 4), 1)
    form = normalise(FIRST_QUERIES | sliding(8, ahead=1))
    assert (form.q_breaks, form.k_breaks) == ((0, 3), (0,))
    assert form.looks_ahead


def test_an_absolute_part_outside_the_rest_leaves_no_break() -> None:
    assert normalise(sink(4) & empty()) == normalise(empty())
    assert normalise(sink(4) | full()) == normalise(full())


def test_chunks_have_one_row_for_each_place() -> None:
    form = normalise(chunked(4) & causal())
    assert (form.unit, form.cut, form.period) == (4, True, 1)
    form = form.refined(1)
    assert [list(form.cells[0][0].row(r).members(-9, 9)) for r in range(4)] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    form = normalise(chunked(4))
    assert (form.unit, form.period, form.looks_ahead) == (4, 1, True)


def test_mixed_blocks_are_told_in_their_common_divisor() -> None:
    form = normalise((sliding(2).blocks(6) | sliding(3).blocks(4)) & causal())
    assert form.unit == 2
    assert form.period == 6
    tokens = normalise((sliding(2).blocks(6) | sliding(5)) & causal())
    assert tokens.unit == 1


def test_strides_and_dilations_are_progressions_of_period_one() -> None:
    for pattern in (strided(8) & causal(), dilated(512, 8)):
        form = normalise(pattern)
        assert form.period == 1
        assert list(form.cells[0][0].row(0).members(0, 25)) == [0, 8, 16, 24]


def test_the_period_of_residues_is_the_least() -> None:
    even_keys = Where(Comparison("==", binary("%", K, Constant(2)), Constant(0)))
    again = Where(Comparison("==", binary("%", binary("%", K, Constant(6)), Constant(2)), Constant(0)))
    assert normalise(even_keys) == normalise(again)
    assert normalise(even_keys).period == 2


def test_full_and_empty_are_one_cell() -> None:
    assert normalise(full()).cells == ((Periodic((IntegerSet.interval(-INFINITY, INFINITY),)),),)
    assert normalise(empty()).cells == ((Periodic((EMPTY,)),),)
    assert normalise(full()).looks_ahead
    assert not normalise(empty()).looks_ahead


# --- cost, and what has no form


@pytest.mark.parametrize("window", [10**3, 10**6, 10**9])
def test_cost_does_not_depend_on_lengths(window: int) -> None:
    pattern = (sliding(window) | dilated(window, 7) | power() | sink(window)) & causal()
    start = perf_counter()
    form = normalise(pattern)
    assert perf_counter() - start < 0.5
    assert sum(len(row.segments) for cells in form.cells for cell in cells for row in cell.rows) < 60


def test_random_blocks_have_no_normal_form() -> None:
    with pytest.raises(NoNormalForm) as caught:
        normalise(random_blocks(64, 2, seed=1) & causal())
    assert str(caught.value).splitlines() == [
        "NoNormalForm: the pattern is not periodic",
        "  where     random_blocks(block=64, count=2, seed=1) & causal()",
        "  got       a seeded random choice",
        "  expected  conditions on q - k, on residues of q and k, or on absolute positions",
        "  try       dense and check, which take such a pattern as it is",
    ]


def test_a_hyperbola_has_no_normal_form() -> None:
    with pytest.raises(NoNormalForm) as caught:
        normalise(Where(Comparison("<", binary("*", Q, K), Constant(60))))
    assert str(caught.value).splitlines() == [
        "NoNormalForm: the pattern is not periodic",
        "  where     where(q * k < 60)",
        "  got       q * k - 60, which neither repeats nor is a distance",
        "  expected  conditions on q - k, on residues of q and k, or on absolute positions",
        "  try       dense and check, which take such a pattern as it is",
    ]


def test_coprime_chunks_repeat_too_late() -> None:
    with pytest.raises(NoNormalForm) as caught:
        normalise(chunked(257) | chunked(263))
    assert str(caught.value).splitlines() == [
        "NoNormalForm: the pattern's period is too long",
        "  where     chunked(257) | chunked(263)",
        f"  got       a period of {257 * 263}",
        f"  expected  at most {LONGEST_PERIOD}",
        "  try       dilations, strides and chunks that divide each other",
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        dilated(4, 100_000),
        dilated(2, 2**39),
        sliding(3).blocks(2**30),
        chunked(10**9),
        offsets({0, 2**40}),
        power(base=2**20).blocks(2**20),
        sink(2**40) & causal(),
    ],
    ids=str,
)
def test_vast_numbers_have_short_forms(pattern: Pattern) -> None:
    start = perf_counter()
    form = normalise(pattern)
    assert perf_counter() - start < 0.5
    for q_start in (0, 10**5 - 3, 3 * 10**5, 2**30 + 5):
        np.testing.assert_array_equal(form.dense(7, 9, q_start=q_start), pattern.dense(7, 9, q_start=q_start))


@pytest.mark.parametrize(
    ("pattern", "period"),
    [
        (strided(70_000), 70_000),
        (dilated(2000, 100_000), 100_000),
        (sliding(3).blocks(2**40).blocks(2**40), 2**40),
        (chunked(10**9) | sliding(3), 10**9),
    ],
    ids=str,
)
def test_vast_periods_are_refused_at_once(pattern: Pattern, period: int) -> None:
    start = perf_counter()
    with pytest.raises(NoNormalForm) as caught:
        normalise(pattern)
    assert perf_counter() - start < 0.5
    assert caught.value.got == f"a period of {period}"
    assert pattern.dense(5)[4, 4]


def test_rows_that_no_query_has_do_not_look_ahead() -> None:
    # Queries 7, 19, ... would read key q + 1, which lies in another chunk, if that were one of the first two keys.
    pattern = where("(q % 3 == 1) & (k < 2)") - chunked(4) | power()
    assert not np.triu(pattern.dense(200), 1).any()
    assert not normalise(pattern).looks_ahead
    assert normalise(pattern | where("(q % 3 == 0) & (k == 1)")).looks_ahead
