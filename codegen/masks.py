"""The smallest predicate that decides a PARTIAL tile: a pattern's predicate with everything known struck out."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedsl.index import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Binary,
    Constant,
    Member,
    Position,
    Predicate,
    Term,
    all_of,
    any_of,
    negations_inside,
    value_range,
)
from sparsedsl.integers import EMPTY, EVERYTHING, INFINITY, LAST_POSITION, IntegerSet, Segment
from sparsedsl.linear import value_period


@dataclass(frozen=True, slots=True)
class Box:
    """What is known of the pairs of some tiles: inclusive ranges of positions.

    `q` and `k` are absolute. `q_near` and `k_near` are the same positions less a common multiple of `period`, which
    bounds what does not change when both positions move by a period: distances and residues.
    """

    q: tuple[int, int]
    k: tuple[int, int]
    q_near: tuple[int, int]
    k_near: tuple[int, int]
    period: int

    def range_of(self, term: Term) -> tuple[int, int]:
        """Inclusive bounds of a term inside the box."""
        lo, hi = value_range(term, self.q, self.k)
        if _repeats(term, self.period):
            low, high = value_range(term, self.q_near, self.k_near)
            lo, hi = max(lo, low), min(hi, high)
        return lo, hi


def _repeats(term: Term, period: int) -> bool:
    """Whether the term is the same at (q + period, k + period)."""
    match term:
        case Binary("-", Position("q"), Position("k")):
            return True
        case Binary("-", Binary("//", Position("q"), Constant(a)), Binary("//", Position("k"), Constant(b))):
            return a == b and period % a == 0
    repeats_after = value_period(term)
    return repeats_after is not None and period % repeats_after == 0


def simplified(predicate: Predicate, box: Box) -> Predicate:
    """A predicate equal to the given one inside the box, with no membership that the box already decides.

    `term ∈ members` -> true, false, or a set without the bounds that the term cannot pass inside the box.
    """
    match predicate:
        case Member(term, members):
            lo, hi = box.range_of(term)
            seen = members & IntegerSet.interval(lo, hi + 1)
            if not seen:
                return FALSE
            if seen == IntegerSet.interval(lo, hi + 1):
                return TRUE
            return Member(term, _without_needless_ends(members, lo, hi))
        case AllOf(parts):
            return all_of(*_merged([simplified(part, box) for part in parts], intersect=True))
        case AnyOf(parts):
            return any_of(*_merged([simplified(part, box) for part in parts], intersect=False))
    return predicate


def tidy(predicate: Predicate) -> Predicate:
    """The same predicate: negations in the sets, memberships of one term joined, nothing that follows from the rest."""
    match negations_inside(predicate):
        case AllOf(parts):
            joined = all_of(*map(_constant, _merged([tidy(part) for part in parts], intersect=True)))
            if not isinstance(joined, AllOf):
                return joined
            known = {part.term: part.members for part in joined.parts if isinstance(part, Member)}
            return all_of(*(part if isinstance(part, Member) else _given(part, known) for part in joined.parts))
        case AnyOf(parts):
            return any_of(*map(_constant, _merged([tidy(part) for part in parts], intersect=False)))
        case inside:
            return _constant(inside)


def _given(predicate: Predicate, known: dict[Term, IntegerSet]) -> Predicate:
    """The predicate where these memberships hold."""
    match predicate:
        case Member(term, members) if term in known:
            inside = members & known[term]
            return FALSE if not inside else TRUE if inside == known[term] else predicate
        case AllOf(parts):
            return all_of(*(_given(part, known) for part in parts))
        case AnyOf(parts):
            return any_of(*(_given(part, known) for part in parts))
    return predicate


def _constant(part: Predicate) -> Predicate:
    if isinstance(part, Member) and part.members in (EMPTY, EVERYTHING):
        return TRUE if part.members else FALSE
    return part


def _without_needless_ends(members: IntegerSet, lo: int, hi: int) -> IntegerSet:
    """Members, freely changed outside [lo, hi] so that its first and last segment need no bound there."""
    kept = [segment for segment in members.segments if segment.hi > lo and segment.lo <= hi]
    for place, end in ((0, "lo"), (-1, "hi")):
        segment = kept[place]
        free = segment._replace(lo=-INFINITY) if end == "lo" else segment._replace(hi=INFINITY)
        if _agree(segment, free, lo, hi):
            kept[place] = free
    return IntegerSet(tuple(kept))


def _agree(one: Segment, other: Segment, lo: int, hi: int) -> bool:
    window = IntegerSet.interval(lo, hi + 1)
    return not (IntegerSet((other,)) & window) - IntegerSet((one,))


def _merged(parts: list[Predicate], *, intersect: bool) -> list[Predicate]:
    """Memberships of one term joined into one."""
    sets: dict[Term, IntegerSet] = {}
    others: list[Predicate] = []
    for part in parts:
        if not isinstance(part, Member):
            others.append(part)
        elif part.term not in sets:
            sets[part.term] = part.members
        elif intersect:
            sets[part.term] &= part.members
        else:
            sets[part.term] |= part.members
    return [Member(term, members) for term, members in sets.items()] + others


def positions(tiles: tuple[int, int], size: int) -> tuple[int, int]:
    """The inclusive range of positions in a half-open range of tiles."""
    return tiles[0] * size, LAST_POSITION if tiles[1] == INFINITY else tiles[1] * size - 1
