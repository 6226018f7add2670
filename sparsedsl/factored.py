"""An equal predicate with fewer conditions, for the normal form: alternatives share what they have in common.

The heads of a layer often differ in one residue only. Their union then says "some residue", which is no condition at
all once the heads hold every one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sparsedsl.index import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Binary,
    Constant,
    K,
    Member,
    Predicate,
    Q,
    Term,
    all_of,
    any_of,
)
from sparsedsl.integers import EMPTY, INFINITY, IntegerSet

CAUSAL = Member(Binary("-", Q, K), IntegerSet.interval(0, INFINITY))


def factored(predicate: Predicate) -> Predicate:
    """The predicate, lowered and without negations, with a & x | a & y as a & (x | y), down to the conditions.

    Cost
        O(conditions) steps for each round, and a round for each condition that alternatives have in common.
    Example
        >>> from sparsedsl import chunked, strided, where
        >>> from sparsedsl.index import lowered
        >>> heads = [chunked(8) & strided(2) & where(f"k % 2 == {head}") for head in range(2)]
        >>> factored(lowered((heads[0] | heads[1]).predicate())) == (chunked(8) & strided(2)).predicate()
        True

    """
    match predicate:
        case Member(term, members):
            return _on_remainder(term, members)
        case AllOf(parts):
            return all_of(*map(factored, parts))
        case AnyOf(parts):
            return _alternatives(map(factored, parts))
    return predicate


def _on_remainder(term: Term, members: IntegerSet) -> Predicate:
    """x % n - c ∈ S -> x % n ∈ S + c; true or false where that holds of every remainder, or of none."""
    match term:
        case Binary("+" | "-" as sign, Binary("%", _, Constant()) as remainder, Constant(shift)):
            return _on_remainder(remainder, members.shift(shift if sign == "-" else -shift))
        case Binary("%", _, Constant(divisor)):
            inside = members & IntegerSet.interval(0, divisor)
            number = inside.count(0, divisor)
            if number in (0, divisor):
                return TRUE if number else FALSE
            return Member(term, inside)
    return Member(term, members)


def _alternatives(parts: Iterable[Predicate]) -> Predicate:
    """The disjunction, with what some alternatives have in common taken out of them."""
    joined = any_of(*parts)
    if not isinstance(joined, AnyOf):
        return joined
    alternatives = [_conditions(part) for part in joined.parts]
    while groups := _in_common(alternatives):
        taken = {place for _, others in groups for place, _ in others}
        kept = [each for place, each in enumerate(alternatives) if place not in taken]
        for common, others in groups:
            rest = _alternatives(other for _, other in others)
            kept.append(_conditions(all_of(*common, rest)))
        alternatives = kept
    return any_of(*_united(all_of(*each) for each in alternatives))


def _conditions(predicate: Predicate) -> tuple[Predicate, ...]:
    return predicate.parts if isinstance(predicate, AllOf) else (predicate,)


# What alternatives have in common; for each of them its place, and the one condition in which it differs.
Group = tuple[tuple[Predicate, ...], list[tuple[int, Predicate]]]


def _in_common(alternatives: Sequence[tuple[Predicate, ...]]) -> list[Group]:
    """Groups of two and more alternatives that differ in one condition only; no alternative is in two of them."""
    found: dict[frozenset[Predicate], list[tuple[int, Predicate]]] = defaultdict(list)
    for place, conditions in enumerate(alternatives):
        for each in conditions:
            # The causal cut stays outside, where a normal form in blocks can hold it.
            if each != CAUSAL and len(conditions) > 1:
                found[frozenset(conditions) - {each}].append((place, each))
    groups: list[Group] = []
    used: set[int] = set()
    for _, others in sorted(found.items(), key=lambda item: -len(item[1])):
        free = [(place, other) for place, other in others if place not in used]
        if len(free) > 1:
            place, other = free[0]
            groups.append((tuple(each for each in alternatives[place] if each != other), free))
            used.update(place for place, _ in free)
    return groups


def _united(alternatives: Iterable[Predicate]) -> list[Predicate]:
    """term ∈ A or term ∈ B -> term ∈ A ∪ B."""
    members: dict[Term, IntegerSet] = {}
    others: list[Predicate] = []
    for each in alternatives:
        if isinstance(each, Member) and each != CAUSAL:
            members[each.term] = members.get(each.term, EMPTY) | each.members
        else:
            others.append(each)
    return [*(_on_remainder(term, each) for term, each in members.items()), *others]
