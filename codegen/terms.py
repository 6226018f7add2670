"""Print predicates as Triton source.

Triton divides towards zero, Python towards minus infinity. Where an operand may be negative the text spells the
floor out, so that the same source means the same on a GPU, in Triton's interpreter and on torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsedsl.codegen.geometric import geometric_tail
from sparsedsl.errors import Unsupported
from sparsedsl.index import (
    AllOf,
    AnyOf,
    Binary,
    Chosen,
    Comparison,
    Constant,
    Member,
    Negation,
    Position,
    Predicate,
    Term,
    lowered,
    value_range,
)
from sparsedsl.integers import IntegerSet, Segment
from sparsedsl.segments import first_member, last_member

# Positions in kernels are int32; a bound beyond them always holds.
LARGEST = (1 << 31) - 1
_POSITIONS = (0, LARGEST)
# Sets of more pieces than this are looked up, bit by bit, as far as FARTHEST_BIT.
MOST_COMPARISONS = 8
FARTHEST_BIT = 1 << 20
# (a value's source, the set) -> source of its membership, in one pair of parentheses.
LookUp = Callable[[str, IntegerSet], str]
_NUMBERS = IntegerSet.interval(-LARGEST, LARGEST + 1)


def term_source(term: Term, level: int = 0) -> str:
    """The term over `q` and `k`, parenthesised only where precedence asks for it."""
    match term:
        case Position(name):
            return name
        case Constant(value):
            return str(value)
        case Binary("//" | "%" as operator, left, right):
            divisor = term_source(right, 3)
            if value_range(left, _POSITIONS, _POSITIONS)[0] >= 0:
                return _wrapped(f"{term_source(left, 2)} {operator} {divisor}", 2, level)
            remainder = f"({term_source(left, 2)} % {divisor} + {divisor}) % {divisor}"
            if operator == "%":
                return _wrapped(remainder, 2, level)
            return _wrapped(f"({term_source(left, 1)} - {remainder}) // {divisor}", 2, level)
        case Binary(operator, left, right):
            own = 2 if operator == "*" else 1
            text = f"{term_source(left, own)} {operator} {term_source(right, own + 1)}"
            return _wrapped(text, own, level)


def _wrapped(text: str, own: int, level: int) -> str:
    return f"({text})" if own < level else text


def predicate_source(predicate: Predicate, look_up: LookUp | None = None) -> str:
    """The predicate as an elementwise boolean expression over integer tensors `q` and `k`.

    Sets of more than MOST_COMPARISONS pieces go through `look_up`; without it their size is told in words.
    """
    return _source(predicate, look_up)[1:-1]


def _source(predicate: Predicate, look_up: LookUp | None) -> str:
    """The predicate in one pair of parentheses."""
    match predicate:
        case Member(term, members):
            return _member_source(term, members & _NUMBERS, look_up)
        case Comparison():
            return _source(lowered(predicate), look_up)
        case AllOf(parts):
            return f"({' & '.join([_source(part, look_up) for part in parts] if parts else ['q == q'])})"
        case AnyOf(parts):
            return f"({' | '.join([_source(part, look_up) for part in parts] if parts else ['q != q'])})"
        case Negation(part):
            return f"(~{_source(part, look_up)})"
        case Chosen():
            raise Unsupported("a random choice cannot be decided inside a tile")


def _member_source(term: Term, members: IntegerSet, look_up: LookUp | None) -> str:
    segments = list(members.segments)
    pieces = []
    tail = geometric_tail(segments)
    if tail is not None and (tail.base, tail.offset, tail.width) == (2, 0, 1) and tail.scale.bit_count() == 1:
        value = term_source(term, 2)
        value = value if value.isidentifier() or value.startswith("(") else f"({value})"
        pieces.append(f"(({value} >= {tail.scale}) & (({value} & ({value} - 1)) == 0))")
        segments = segments[: tail.start]
    if len(segments) > MOST_COMPARISONS:
        listed = [
            each for each in segments if each.lo >= -FARTHEST_BIT and each.hi <= FARTHEST_BIT and each.period == 1
        ]
        if look_up is None:
            return f"({term_source(term)} in a set of {len(segments)} pieces)"
        pieces.append(look_up(term_source(term), IntegerSet(tuple(listed))))
        segments = [each for each in segments if each not in listed]
    pieces = [_segment_source(term, segment) for segment in segments] + pieces
    if not pieces:
        return "(q != q)"
    return pieces[0] if len(pieces) == 1 else f"({' | '.join(pieces)})"


def _segment_source(term: Term, segment: Segment) -> str:
    lo, hi, period, word = segment
    text = term_source(term, 1)
    if hi - lo == 1:
        return f"({text} == {lo})"
    conditions = []
    # A bound is needed where one more period would reach a number that a kernel can hold.
    if last_member(word, period, lo) >= -LARGEST:
        conditions.append(f"({text} >= {lo})")
    if first_member(word, period, hi) <= LARGEST:
        conditions.append(f"({text} < {hi})")
    if period > 1:
        residues = [residue for residue in range(period) if word >> residue & 1]
        # Divisibility reads the same under either rounding; another residue needs the floor.
        divisible = f"{term_source(term, 2)} % {period}"
        remainder = divisible if residues == [0] else term_source(Binary("%", term, Constant(period)))
        equal = [f"({remainder} == {residue})" for residue in residues]
        conditions.append(equal[0] if len(equal) == 1 else f"({' | '.join(equal)})")
    if not conditions:
        return "(q == q)"
    return conditions[0] if len(conditions) == 1 else f"({' & '.join(conditions)})"
