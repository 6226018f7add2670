"""Residue order: a pattern whose pairs agree modulo d, told in ranks inside one class of positions.

Class c holds the positions d · rank + c. A predicate over positions becomes one over ranks by putting these in; where
it is the same for every class that has pairs, one kernel walks all classes by stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm

from sparsedsl.codegen.masks import tidy
from sparsedsl.errors import NoNormalForm
from sparsedsl.index import (
    DISTANCE,
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Binary,
    Constant,
    Member,
    Negation,
    Predicate,
    Term,
    all_of,
    any_of,
    binary,
    lowered,
    negation,
)
from sparsedsl.integers import EMPTY, EVERYTHING, IntegerSet
from sparsedsl.linear import linear
from sparsedsl.normal import normalise_predicate

# Steps beyond this have classes too short to be worth it.
LONGEST_STEP = 1 << 10


@dataclass(frozen=True, slots=True)
class Ranked:
    """A predicate over ranks, and the residue classes that have pairs; in all others there is none."""

    predicate: Predicate
    classes: tuple[int, ...]


def step_of(predicate: Predicate) -> int:
    """A d such that all pairs agree modulo d, read off the conditions on q - k; 0 where these allow no pair."""
    match predicate:
        case AllOf(parts):
            # lcm(0, d) is 0: one condition that allows nothing is enough.
            return lcm(*(step_of(part) for part in parts))
        case AnyOf(parts):
            return gcd(*(step_of(part) for part in parts))
        case Member(term, members) if term == DISTANCE:
            return _common_step(members) if members != IntegerSet.of([0]) else 1
    return 1


def _common_step(distances: IntegerSet) -> int:
    """gcd of the members."""
    step = 0
    for lo, hi, period, word in distances.segments:
        if period == 1:
            if hi - lo > 1:
                return 1
            step = gcd(step, lo)
            continue
        step = gcd(step, period, *(residue for residue in range(period) if word >> residue & 1))
    return step


def ranked(predicate: Predicate, step: int) -> Ranked | None:
    """The predicate in ranks of the classes modulo `step`; None where classes differ otherwise than by being empty.

    Example
        >>> from sparsedsl.constructors import dilated
        >>> print(ranked(dilated(3, 5).predicate(), 5))
        Ranked(predicate=Member(term=Binary(operator='-', left=Position(name='q'), right=Position(name='k')), \
members=IntegerSet({0, 1, 2})), classes=(0, 1, 2, 3, 4))

    """
    if step > LONGEST_STEP:
        return None
    classes: dict[Predicate, list[int]] = {}
    for residue in range(step):
        inside = _in_ranks(lowered(predicate), step, residue)
        if inside is None:
            return None
        if inside != FALSE:
            classes.setdefault(tidy(inside), []).append(residue)
    if len(classes) > 1:
        classes = {each: own for each, own in classes.items() if not _empty(each)}
    first, *others = classes or {FALSE: []}
    if not all(_equal(first, each) for each in others):
        return None
    return Ranked(first, tuple(sorted(residue for own in classes.values() for residue in own)))


def _equal(one: Predicate, other: Predicate) -> bool:
    try:
        return normalise_predicate(one) == normalise_predicate(other)
    except NoNormalForm:
        return False


def _empty(predicate: Predicate) -> bool:
    try:
        return not any(row for _, cell in normalise_predicate(predicate).pieces() for row in cell.rows)
    except NoNormalForm:
        return False


def _in_ranks(predicate: Predicate, step: int, residue: int) -> Predicate | None:
    """The predicate at positions step · rank + residue; None where a term does not come apart."""
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            inside = [_in_ranks(part, step, residue) for part in parts]
            if None in inside:
                return None
            join = all_of if isinstance(predicate, AllOf) else any_of
            return join(*(part for part in inside if part is not None))
        case Negation(part):
            within = _in_ranks(part, step, residue)
            return None if within is None else negation(within)
        case Member(term, members):
            found = _sum_in_ranks(term, step, residue)
            if found is None:
                return None
            weights, constant = found
            if not weights:
                return TRUE if constant in members else FALSE
            common = gcd(*weights.values())
            inside_ranks = members.shift(-constant).sample(common)
            if inside_ranks in (EMPTY, EVERYTHING):
                return TRUE if inside_ranks else FALSE
            return Member(_term({atom: weight // common for atom, weight in weights.items()}), inside_ranks)
    return None


def _sum_in_ranks(term: Term, step: int, residue: int) -> tuple[dict[Term, int], int] | None:
    """The term at positions step · rank + residue, as a weighted sum over ranks and a constant."""
    weights, constant = linear(term)
    total: dict[Term, int] = {}
    for atom, weight in weights.items():
        inside = _atom_in_ranks(atom, step, residue)
        if inside is None:
            return None
        for inner, by in inside[0].items():
            total[inner] = total.get(inner, 0) + weight * by
        constant += weight * inside[1]
    return {atom: weight for atom, weight in total.items() if weight}, constant


def _atom_in_ranks(atom: Term, step: int, residue: int) -> tuple[dict[Term, int], int] | None:
    match atom:
        case Binary("//" | "%" as operator, inner, Constant(divisor)):
            found = _sum_in_ranks(inner, step, residue)
            if found is None:
                return None
            weights, constant = found
            if not weights:
                return {}, constant // divisor if operator == "//" else constant % divisor
            common = gcd(divisor, *weights.values())
            # (common · x + common · m + rest) // divisor = (x + m) // (divisor / common), for 0 <= rest < common.
            whole, rest = divmod(constant, common)
            x = _term({each: weight // common for each, weight in weights.items()})
            x = x if whole == 0 else binary("+", x, Constant(whole))
            size = divisor // common
            if operator == "//":
                if size > 1:
                    return {Binary("//", x, Constant(size)): 1}, 0
                return {each: weight // common for each, weight in weights.items()}, whole
            return ({Binary("%", x, Constant(size)): common} if size > 1 else {}), rest
        case Binary():
            return None
    return {atom: step}, residue


def _term(weights: dict[Term, int]) -> Term:
    """The weighted sum as a term, what is added before what is taken off."""
    result: Term | None = None
    for atom, weight in sorted(weights.items(), key=lambda item: item[1] < 0):
        part = atom if abs(weight) == 1 else binary("*", Constant(abs(weight)), atom)
        if result is None:
            result = part if weight > 0 else binary("*", Constant(weight), atom)
        else:
            result = binary("+" if weight > 0 else "-", result, part)
    assert result is not None
    return result
