"""Predicates over a query position `q` and a key position `k`, built from integer terms.

Every predicate lowers to two kinds of atom: `Member`, "this term lies in this exact set of integers", and
`Chosen`, a seeded draw. The terms of `sparsedsl.terms` are found here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.segments import Segment, first_member
from sparsedsl.terms import (
    DISTANCE,
    Binary,
    Constant,
    K,
    Operator,
    Position,
    Q,
    Term,
    binary,
    check_size,
    evaluate,
    substitute,
    term_text,
    value_range,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "DISTANCE",
    "FALSE",
    "TRUE",
    "AllOf",
    "AnyOf",
    "Binary",
    "Chosen",
    "Comparison",
    "Constant",
    "K",
    "Member",
    "Negation",
    "Operator",
    "Position",
    "Predicate",
    "Q",
    "Relation",
    "Term",
    "all_of",
    "any_of",
    "binary",
    "comparison",
    "drawn",
    "evaluate",
    "holds",
    "lowered",
    "negation",
    "negations_inside",
    "predicate_text",
    "substitute",
    "substituted",
    "term_text",
    "value_range",
]

Relation = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Comparison:
    """left relation right, as the user wrote it."""

    relation: Relation
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Member:
    """term ∈ members: the one atom that every predicate but `Chosen` lowers to."""

    term: Term
    members: IntegerSet


@dataclass(frozen=True, slots=True)
class Chosen:
    """k is among the `count` values that a seeded draw without repetition picks from 0..q (all, if fewer)."""

    count: int
    seed: int
    q: Term = Q
    k: Term = K


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds; with no part, always true."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Some part holds; with no part, never true."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """The part does not hold."""

    part: Predicate


Predicate = Comparison | Member | Chosen | AllOf | AnyOf | Negation

TRUE = AllOf(())
FALSE = AnyOf(())

_HOLDS: dict[Relation, IntegerSet] = {
    "==": IntegerSet.of([0]),
    "!=": ~IntegerSet.of([0]),
    "<": IntegerSet.interval(-INFINITY, 0),
    "<=": IntegerSet.interval(-INFINITY, 1),
    ">": IntegerSet.interval(1, INFINITY),
    ">=": IntegerSet.interval(0, INFINITY),
}


def lowered(predicate: Predicate) -> Predicate:
    """The predicate with every comparison as a membership: left < right -> left - right ∈ {..., -1}."""
    match predicate:
        case Comparison(relation, left, right):
            return Member(binary("-", left, right), _HOLDS[relation])
        case Member() | Chosen():
            return predicate
        case AllOf(parts):
            return all_of(*(lowered(part) for part in parts))
        case AnyOf(parts):
            return any_of(*(lowered(part) for part in parts))
        case Negation(part):
            return negation(lowered(part))


def comparison(relation: Relation, left: Term, right: Term) -> Predicate:
    """left relation right, for terms that a user wrote; TRUE or FALSE where both are constants.

    Raises
        WrongValue: the difference of the two sides leaves 62 bits.
    """
    difference = binary("-", left, right)
    check_size(difference)
    if isinstance(left, Constant) and isinstance(right, Constant):
        return TRUE if left.value - right.value in _HOLDS[relation] else FALSE
    return Comparison(relation, left, right)


def all_of(*parts: Predicate) -> Predicate:
    """The conjunction: flattened, without repetitions, TRUE dropped, FALSE if a part is FALSE."""
    flat = [piece for part in parts for piece in (part.parts if isinstance(part, AllOf) else (part,))]
    distinct = tuple(dict.fromkeys(flat))
    if FALSE in distinct:
        return FALSE
    return distinct[0] if len(distinct) == 1 else AllOf(distinct)


def any_of(*parts: Predicate) -> Predicate:
    """The disjunction: flattened, without repetitions, FALSE dropped, TRUE if a part is TRUE."""
    flat = [piece for part in parts for piece in (part.parts if isinstance(part, AnyOf) else (part,))]
    distinct = tuple(dict.fromkeys(flat))
    if TRUE in distinct:
        return TRUE
    return distinct[0] if len(distinct) == 1 else AnyOf(distinct)


def negation(part: Predicate) -> Predicate:
    """The complement; a membership is complemented in its set."""
    match part:
        case Negation(inner):
            return inner
        case Member(term, members):
            return Member(term, ~members)
        case AllOf(()):
            return FALSE
        case AnyOf(()):
            return TRUE
    return Negation(part)


def negations_inside(predicate: Predicate) -> Predicate:
    """~(a & b) -> ~a | ~b, down to the atoms, so that every negation sits in the set of a membership."""
    match predicate:
        case AllOf(parts):
            return all_of(*(negations_inside(part) for part in parts))
        case AnyOf(parts):
            return any_of(*(negations_inside(part) for part in parts))
        case Negation(AllOf(parts)):
            return any_of(*(negations_inside(negation(part)) for part in parts))
        case Negation(AnyOf(parts)):
            return all_of(*(negations_inside(negation(part)) for part in parts))
    return predicate


def substituted(predicate: Predicate, q: Term, k: Term) -> Predicate:
    """The predicate with its positions replaced."""
    match predicate:
        case Comparison(relation, left, right):
            return Comparison(relation, substitute(left, q, k), substitute(right, q, k))
        case Member(term, members):
            return Member(substitute(term, q, k), members)
        case Chosen(count, seed, query, key):
            return Chosen(count, seed, substitute(query, q, k), substitute(key, q, k))
        case AllOf(parts):
            return AllOf(tuple(substituted(part, q, k) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(substituted(part, q, k) for part in parts))
        case Negation(part):
            return Negation(substituted(part, q, k))


def holds(predicate: Predicate, q: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the predicate holds, on broadcastable int64 arrays of positions."""
    import numpy as np

    match predicate:
        case Comparison(relation, left, right):
            difference = evaluate(left, q, k) - evaluate(right, q, k)
            return np.broadcast_to(_HOLDS[relation].contains(difference), np.broadcast(q, k).shape)
        case Member(term, members):
            return np.broadcast_to(members.contains(evaluate(term, q, k)), np.broadcast(q, k).shape)
        case Chosen(count, seed, query, key):
            rows, columns = evaluate(query, q, k), evaluate(key, q, k)
            distinct_rows, row_of = np.unique(rows, return_inverse=True)
            distinct_columns, column_of = np.unique(columns, return_inverse=True)
            table = np.zeros((distinct_rows.size, distinct_columns.size), dtype=np.bool_)
            for i, row in enumerate(distinct_rows):
                table[i] = np.isin(distinct_columns, drawn(int(row), count, seed))
            found = table[row_of.reshape(rows.shape), column_of.reshape(columns.shape)]
            return np.broadcast_to(found, np.broadcast(q, k).shape)
        case AllOf(parts):
            result = np.ones(np.broadcast(q, k).shape, dtype=np.bool_)
            for part in parts:
                result &= holds(part, q, k)
            return result
        case AnyOf(parts):
            result = np.zeros(np.broadcast(q, k).shape, dtype=np.bool_)
            for part in parts:
                result |= holds(part, q, k)
            return result
        case Negation(part):
            return ~holds(part, q, k)


@lru_cache(maxsize=1 << 16)
def drawn(row: int, count: int, seed: int) -> tuple[int, ...]:
    """The sorted choice of `count` different integers from 0..row, the same on every machine and version."""
    if row < 0:
        return ()
    if count > row:
        return tuple(range(row + 1))
    chosen: set[int] = set()
    for number in _digits(row, seed):
        chosen.add(number % (row + 1))
        if len(chosen) == count:
            break
    return tuple(sorted(chosen))


def _digits(row: int, seed: int) -> Iterator[int]:
    draw = 0
    while True:
        yield int.from_bytes(blake2b(f"{seed}/{row}/{draw}".encode(), digest_size=8).digest(), "big")
        draw += 1


# --- text


def predicate_text(predicate: Predicate, level: int = 0) -> str:
    """The predicate as the text that `parse` reads inside `where(...)`, `a < b` and `b < c` as a chain."""
    match predicate:
        case Comparison():
            return _chain_text((predicate,), level)
        case AllOf(()):
            return _parenthesised("0 == 0", 0, level)
        case AnyOf(()):
            return _parenthesised("0 == 1", 0, level)
        case AllOf(parts):
            chains = _chains(parts)
            if len(chains) == 1:
                return _chain_text(chains[0], level)
            return _parenthesised(" & ".join(_chain_text(chain, 3) for chain in chains), 2, level)
        case AnyOf(parts):
            return _parenthesised(" | ".join(predicate_text(part, 2) for part in parts), 1, level)
        case Negation(part):
            return f"~{predicate_text(part, 3)}"
        case Member(term, members):
            return predicate_text(any_of(*(_compared(term, segment) for segment in members.segments)), level)
        case Chosen(count, seed, query, key):
            return _parenthesised(f"{key} in chosen({count}, {seed}, {query})", 0, level)


def _compared(term: Term, segment: Segment) -> Predicate:
    """{term ∈ segment} by comparisons: between the ends, and in a run of residues."""
    lo, hi, period, word = segment
    if hi - lo == 1:
        return Comparison("==", term, Constant(lo))
    ends = [Comparison("<=", Constant(lo), term)] if lo > -INFINITY else []
    ends += [Comparison("<", term, Constant(hi))] if hi < INFINITY else []
    return all_of(*ends, *([_residue_runs(term, period, word)] if period > 1 else []))


def _residue_runs(term: Term, period: int, word: int) -> Predicate:
    """{term mod period ∈ word}: each run of neighbouring residues a comparison."""
    rest = Binary("%", term, Constant(period))
    runs, at = [], 0
    while word >> at:
        first = first_member(word, period, at)
        at = first + 1
        while word >> at & 1:
            at += 1
        alone = at - first == 1
        ends = [Comparison("<=", Constant(first), rest), Comparison("<", rest, Constant(at))]
        runs.append(Comparison("==", rest, Constant(first)) if alone else all_of(*ends))
    return any_of(*runs)


def _chains(parts: tuple[Predicate, ...]) -> list[tuple[Predicate, ...]]:
    """The parts in order, in groups: a < b and b < c are one group, which prints as a < b < c."""
    chains: list[tuple[Predicate, ...]] = []
    for part in parts:
        last = chains[-1][-1] if chains else None
        if isinstance(last, Comparison) and isinstance(part, Comparison) and last.right == part.left:
            chains[-1] += (part,)
        else:
            chains.append((part,))
    return chains


def _chain_text(chain: tuple[Predicate, ...], level: int) -> str:
    match chain:
        case (Comparison(_, first, _), *_):
            ends = [f" {each.relation} {each.right}" for each in chain if isinstance(each, Comparison)]
            return _parenthesised(f"{first}{''.join(ends)}", 0, level)
    return predicate_text(chain[0], level)


def _parenthesised(text: str, own: int, level: int) -> str:
    return f"({text})" if level > own else text
