"""Masks that are spans: each row of a tile reads one run of columns, so that two numbers a row decide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsedsl.codegen.terms import LARGEST
from sparsedsl.index import AllOf, Binary, Comparison, Member, Position, Predicate, Term, lowered
from sparsedsl.integers import IntegerSet


@dataclass(frozen=True, slots=True)
class Span:
    """Row x reads the columns y with `first` <= y < `end`, of which all hold: sources over the row's name."""

    first: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


def span_of(mask: Predicate, row: Literal["q", "k"]) -> Span | None:
    """The mask as a span of each query's keys, or of each key's queries; None where it is no conjunction of bounds."""
    match mask:
        case AllOf(parts):
            found = [span_of(part, row) for part in parts]
            spans = [each for each in found if each is not None]
            if len(spans) < len(found):
                return None
            return Span(tuple(x for each in spans for x in each.first), tuple(x for each in spans for x in each.end))
        case Comparison():
            return span_of(lowered(mask), row)
        case Member(term, members):
            return _of_membership(term, members, row)
    return None


def _of_membership(term: Term, members: IntegerSet, row: Literal["q", "k"]) -> Span | None:
    if len(members.segments) != 1 or members.segments[0].period != 1:
        return None
    lo, hi, *_ = members.segments[0]
    bounded = lo > -LARGEST, hi <= LARGEST
    match term:
        case Position(name) if name != row:
            first, end = f"{row} * 0 + {lo}", f"{row} * 0 + {hi}"  # the same for all rows
        case Binary("-", Position("q"), Position("k")) if row == "k":  # k + lo <= q < k + hi
            first, end = _moved("k", lo), _moved("k", hi)
        case Binary("-", Position("q"), Position("k")):  # q - hi < k <= q - lo
            first, end = _moved("q", 1 - hi), _moved("q", 1 - lo)
            bounded = bounded[::-1]
        case _:
            return None
    return Span((first,) if bounded[0] else (), (end,) if bounded[1] else ())


def _moved(name: str, by: int) -> str:
    return name if by == 0 else f"{name} {'+' if by > 0 else '-'} {abs(by)}"
