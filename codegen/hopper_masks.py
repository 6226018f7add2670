"""The lines of the kernels for Hopper that take out of a PARTIAL tile what its mask does not let through.

A mask that is a span is decided by one or two bounds a row, each compared with a number that stands in the instruction;
any other pair by pair.
"""

from __future__ import annotations

from dataclasses import replace

from sparsedsl.codegen.kernel_walk import Masks
from sparsedsl.codegen.spans import Span, span_of
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.index import Predicate


def forward_lines(mask: Predicate, masks: Masks, *, ragged_keys: bool) -> tuple[str, ...]:
    """Scores `b_s` of `COLUMNS` keys from `k_first` on, for queries `q`: -inf outside, and all unless `present`."""
    told = f"# {shortened(predicate_source(mask), 100)}"
    span = span_of(mask, "q")
    if span is not None:
        ends = (*span.end, "q * 0 + k_len") if ragged_keys else span.end
        return told, *cut_lines(replace(span, end=ends), "b_s", "-inf", "k_first", "COLUMNS", "present")
    return (
        told,
        "k = gl.expand_dims(k_first + fresh(gl.arange(0, COLUMNS, gl.SliceLayout(0, S_LAYOUT))), 0)",
        f"keep = {masks.call(mask, 'gl.expand_dims(q, 1)', 'k')}",
        *(["keep = keep & (k < k_len)"] if ragged_keys else []),
        'b_s = gl.where(keep & present, b_s, float("-inf"))',
    )


def backward_lines(mask: Predicate, masks: Masks, *, by_bounds: bool) -> tuple[str, ...]:
    """Weights `b_p` of 64 keys `k` and the queries from `q_first` on: 0 outside."""
    span = span_of(mask, "k") if by_bounds else None
    if span is not None:
        told = f"# {shortened(predicate_source(mask), 100)}"
        return told, *cut_lines(span, "b_p", "0", "q_first", "BLOCK_M")
    return (
        "q = gl.expand_dims(q_first + gl.arange(0, BLOCK_M, gl.SliceLayout(0, S_LAYOUT)), 0)",
        "k = gl.expand_dims(k, 1)",
        f"b_p = gl.where({masks.call(mask, 'q', 'k')}, b_p, 0.0)",
    )


def cut_lines(
    span: Span, numbers: str, filling: str, first_column: str, columns: str, present: str = ""
) -> tuple[str, ...]:
    """The lines that fill what a tile's numbers have outside a span, by `until` and `since` of an emitted module."""
    lines = []
    ends = (("since", span.first, "maximum", columns), ("until", span.end, "minimum", "0"))
    for name, bounds, which, outside in ends:
        if not bounds:
            continue
        bound = bounds[0]
        for other in bounds[1:]:
            bound = f"gl.{which}({bound}, {other})"
        bound = f"{bound} - {first_column}"
        if present:
            bound = f"gl.where({present}, {bound}, {outside})"
        lines.append(f'{numbers} = {name}({numbers}, {bound}, "{filling}", {columns})')
    return tuple(lines)


def shortened(text: str, most: int) -> str:
    """A comment's or a docstring's text, cut where it is long."""
    text = text.replace("\\", "\\\\")
    return text if len(text) <= most else f"{text[: most - 4]} ..."
