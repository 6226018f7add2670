"""Masks that two bounds a row decide: against the mask itself, pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparsedsl as sd
from sparsedsl.codegen.hopper_choice import hopper_programs, values_ahead
from sparsedsl.codegen.hopper_masks import cut_lines
from sparsedsl.codegen.plan import plan
from sparsedsl.codegen.spans import Span, span_of
from sparsedsl.codegen.terms import LARGEST, predicate_source
from sparsedsl.index import AllOf, AnyOf, Binary, Constant, Member, Position, Predicate, Term
from sparsedsl.integers import INFINITY, IntegerSet

Q, K = Position("q"), Position("k")
TERMS: tuple[Term, ...] = (K, Q, Binary("-", Q, K))


@st.composite
def bounds(draw: st.DrawFn) -> Predicate:
    lo = draw(st.sampled_from([-INFINITY, -LARGEST, -5, 0, 3, 17]))
    hi = draw(st.sampled_from([INFINITY, LARGEST, 20, 33]))
    return Member(draw(st.sampled_from(TERMS)), IntegerSet.interval(lo, hi))


def kept(span: Span, row: str) -> torch.Tensor:
    """[q, k] of 40 positions each, by the span's own sources."""
    own, other = torch.arange(40)[:, None], torch.arange(40)
    keep = torch.ones(40, 40, dtype=torch.bool)
    for source in span.first:
        keep &= other >= eval(source, {row: own})
    for source in span.end:
        keep &= other < eval(source, {row: own})
    return keep if row == "q" else keep.T


@pytest.mark.parametrize("row", ["q", "k"])
@given(parts=st.lists(bounds(), min_size=1, max_size=3))
def test_a_span_is_its_mask(row: str, parts: list[Predicate]) -> None:
    mask = parts[0] if len(parts) == 1 else AllOf(tuple(parts))
    span = span_of(mask, "q" if row == "q" else "k")
    own = Position("q" if row == "q" else "k")
    if any(isinstance(part, Member) and part.term == own for part in parts):
        assert span is None
        return
    assert span is not None
    q, k = torch.arange(40)[:, None], torch.arange(40)
    expected = eval(predicate_source(mask), {"q": q, "k": k})
    assert torch.equal(kept(span, row), torch.as_tensor(expected).expand(40, 40))


@pytest.mark.parametrize(
    "mask",
    [
        AnyOf((Member(K, IntegerSet.interval(0, 4)), Member(TERMS[2], IntegerSet.interval(0, 9)))),
        Member(TERMS[2], IntegerSet.interval(0, 3) | IntegerSet.interval(5, 9)),
        Member(TERMS[2], IntegerSet.residues(2, [0])),
        Member(Binary("//", K, Constant(4)), IntegerSet.interval(0, 4)),
    ],
)
def test_what_is_no_conjunction_of_bounds_is_no_span(mask: Predicate) -> None:
    assert span_of(mask, "q") is None
    assert span_of(mask, "k") is None


def test_lines_of_a_span() -> None:
    span = Span(("q - 3", "q * 0 + 2"), ("q + 1",))
    assert cut_lines(span, "b_s", "-inf", "k_first", "COLUMNS", "present") == (
        'b_s = since(b_s, gl.where(present, gl.maximum(q - 3, q * 0 + 2) - k_first, COLUMNS), "-inf", COLUMNS)',
        'b_s = until(b_s, gl.where(present, q + 1 - k_first, 0), "-inf", COLUMNS)',
    )
    assert cut_lines(Span((), ("k + 8",)), "b_p", "0", "q_first", "64") == (
        'b_p = until(b_p, k + 8 - q_first, "0", 64)',
    )


@pytest.mark.parametrize(
    ("pattern", "ahead"),
    [
        (sd.sliding(256), True),
        (sd.dilated(512, 8), True),
        (sd.sliding(1024), False),
        (sd.sliding(4096), False),
        (sd.causal(), False),
        (sd.parse("(sliding(4) | power() | sink(1)).blocks(128) & causal()"), True),
    ],
)
def test_few_or_scattered_key_tiles_get_one_more_slot_for_values(pattern: sd.Pattern, ahead: bool) -> None:
    (part,) = plan(pattern).parts
    assert values_ahead(hopper_programs(part, 128), part) == ahead
