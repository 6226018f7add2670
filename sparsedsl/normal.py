"""From a pattern to its normal form (`forms.NormalForm`), built up from one membership at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, reduce
from math import gcd

from sparsedsl.errors import LONGEST_SHOWN_LINE, NoNormalForm, clipped
from sparsedsl.factored import CAUSAL, factored
from sparsedsl.forms import ALL, BACK, LONGEST_PERIOD, NOTHING, NormalForm, Periodic, spread_over
from sparsedsl.index import (
    AllOf,
    AnyOf,
    Binary,
    Chosen,
    Comparison,
    Constant,
    K,
    Member,
    Negation,
    Position,
    Predicate,
    Q,
    Term,
    all_of,
    any_of,
    evaluate,
    lowered,
    negations_inside,
    predicate_text,
)
from sparsedsl.integers import EMPTY, EVERYTHING, INFINITY, LAST_POSITION, IntegerSet, WordTooLong
from sparsedsl.linear import linear, value_period
from sparsedsl.pattern import Pattern
from sparsedsl.segments import Segment, first_member

# A condition on residues alone, such as q * k % 7 == 3, is tabulated up to this period.
LONGEST_TABLE = 1 << 10


@cache
def normalise(pattern: Pattern) -> NormalForm:
    """The normal form of a pattern.

    Cost
        O(periods · segments · operators) time and memory; no length enters.
    Raises
        NoNormalForm: the pattern is not periodic (seeded choices, or arithmetic that never repeats).
    Example
        >>> from sparsedsl import causal, power, sink, sliding
        >>> form = normalise((sliding(2) | power() | sink(1)).blocks(256) & causal())
        >>> form.unit, form.cut, form.k_breaks, form.period
        (256, True, (0, 1), 1)

    """
    return normalise_predicate(pattern.predicate(), where=clipped(str(pattern), LONGEST_SHOWN_LINE))


def normalise_predicate(predicate: Predicate, *, where: str = "") -> NormalForm:
    """The normal form of a predicate; see `normalise`."""
    predicate = negations_inside(lowered(predicate))
    try:
        return _form(predicate)
    except _NotPeriodic as reason:
        raise NoNormalForm(
            "the pattern is not periodic",
            where=where,
            got=str(reason),
            expected="conditions on q - k, on residues of q and k, or on absolute positions",
            hint="dense and check, which take such a pattern as it is",
        ) from None
    except WordTooLong as reason:
        raise NoNormalForm(
            "the pattern's period is too long",
            where=where,
            got=f"a period of {reason}",
            expected=f"at most {LONGEST_PERIOD}",
            hint="dilations, strides and chunks that divide each other",
        ) from None


def _form(predicate: Predicate) -> NormalForm:
    # Factored there are fewer conditions, but perhaps longer words, or a cut that is not told in blocks.
    with suppress(_CutMisfit, WordTooLong):
        return _in_largest_unit(factored(predicate))
    with suppress(_CutMisfit):
        return _in_largest_unit(predicate)
    return _tidy(_build(predicate, 1))


def _in_largest_unit(predicate: Predicate) -> NormalForm:
    unit = gcd(*(_unit_of(atom) for atom in _atoms(predicate))) or 1
    return _tidy(_build(_cut_first(predicate) if unit == 1 else predicate, unit))


def _cut_first(predicate: Predicate) -> Predicate:
    """k <= q and (a or b) -> (k <= q and a) or (k <= q and b): short periods are cut before they make long ones."""
    match predicate:
        case AllOf(parts) if CAUSAL in parts:
            alternatives = next((part for part in parts if isinstance(part, AnyOf)), None)
            if alternatives is not None:
                cut = any_of(*(_cut_first(all_of(part, CAUSAL)) for part in alternatives.parts))
                return all_of(*(part for part in parts if part not in (CAUSAL, alternatives)), cut)
    return predicate


class _CutMisfit(Exception):
    """The causal cut can't be kept beside the blocks; the pattern must be told in tokens."""


class _NotPeriodic(Exception):
    """An atom that no normal form holds; the text names it."""


def _atoms(predicate: Predicate) -> Iterator[Predicate]:
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _atoms(part)
        case _:
            yield predicate


def _unit_of(atom: Predicate) -> int:
    """The largest block size that the atom can be told in; 0 where any size does."""
    if not isinstance(atom, Member):
        return 1
    if atom == CAUSAL:
        return 0
    if isinstance(atom.term, Position) and all(segment.period == 1 for segment in atom.members.segments):
        ends = [end for lo, hi, _, _ in atom.members.segments for end in (lo, hi) if abs(end) != INFINITY]
        return gcd(*ends)
    return _block_of(atom.term)


def _block_of(term: Term) -> int:
    """The greatest common divisor of the block sizes that positions are divided by."""
    match term:
        case Position():
            return 1
        case Constant():
            return 0
        case Binary("//", Position(), Constant(size)):
            return size
        case Binary(_, left, right):
            return gcd(_block_of(left), _block_of(right))


def _in_units(term: Term, unit: int) -> Term:
    """q // (unit · c) -> Q // c, Q being the query's unit."""
    match term:
        case Binary("//", Position() as position, Constant(size)) if size % unit == 0:
            return position if size == unit else Binary("//", position, Constant(size // unit))
        case Binary(operator, left, right):
            return Binary(operator, _in_units(left, unit), _in_units(right, unit))
    return term


# --- the pieces: one membership, then conjunction and disjunction


def _build(predicate: Predicate, unit: int) -> NormalForm:
    match predicate:
        case AllOf(parts):
            return reduce(_both, _by_period(parts, unit)) if parts else _single(ALL, unit)
        case AnyOf(parts):
            return reduce(_either, _by_period(parts, unit)) if parts else _single(NOTHING, unit)
        case Member(term, members):
            if predicate == CAUSAL:
                return replace(_single(BACK, unit), cut=unit > 1)
            if unit > 1 and isinstance(term, Position):
                return _axis(term, members.sample(unit), unit)
            return _member(_in_units(term, unit), members, unit)
        case Chosen():
            raise _NotPeriodic("a seeded random choice")
        case Comparison() | Negation():
            raise _NotPeriodic(predicate_text(predicate))


def _by_period(parts: tuple[Predicate, ...], unit: int) -> list[NormalForm]:
    # The short ones first: what they make together has fewer rows than the long ones.
    return sorted((_build(part, unit) for part in parts), key=lambda form: form.period)


def _single(cell: Periodic, unit: int) -> NormalForm:
    return NormalForm(unit, False, (0,), (0,), ((cell,),))


def _both(left: NormalForm, right: NormalForm) -> NormalForm:
    return replace(_overlaid(left, right, IntegerSet.__and__), cut=left.cut or right.cut)


def _either(left: NormalForm, right: NormalForm) -> NormalForm:
    for one, other in ((left, right), (right, left)):
        if one.cut and not other.cut and not _strictly_back(other):
            raise _CutMisfit
    return replace(_overlaid(left, right, IntegerSet.__or__), cut=left.cut or right.cut)


def _strictly_back(form: NormalForm) -> bool:
    """Whether every pair lies in an earlier unit, so that the causal cut changes nothing."""
    ahead_or_same = IntegerSet.interval(-INFINITY, 1)
    return not any(row & ahead_or_same for _, cell in form.pieces() for row in cell.rows)


def _overlaid(left: NormalForm, right: NormalForm, join: Callable[[IntegerSet, IntegerSet], IntegerSet]) -> NormalForm:
    q_breaks = tuple(sorted({*left.q_breaks, *right.q_breaks}))
    k_breaks = tuple(sorted({*left.k_breaks, *right.k_breaks}))
    cells = tuple(tuple(left.cell_at(q, k).combined(right.cell_at(q, k), join) for k in k_breaks) for q in q_breaks)
    return _tidy(NormalForm(left.unit, False, q_breaks, k_breaks, cells))


def _tidy(form: NormalForm) -> NormalForm:
    """Drop breaks with equal content on both sides."""
    rows = [0] + [a for a in range(1, len(form.q_breaks)) if form.cells[a] != form.cells[a - 1]]
    columns = [0] + [b for b in range(1, len(form.k_breaks)) if any(row[b] != row[b - 1] for row in form.cells)]
    return replace(
        form,
        q_breaks=tuple(form.q_breaks[a] for a in rows),
        k_breaks=tuple(form.k_breaks[b] for b in columns),
        cells=tuple(tuple(form.cells[a][b] for b in columns) for a in rows),
    )


def _member(term: Term, members: IntegerSet, unit: int) -> NormalForm:
    """The normal form of {term ∈ members}, by pulling the set back through the term to q - k, q or k."""
    weights, constant = linear(term)
    members = members.shift(-constant)
    if not weights:
        return _single(ALL if 0 in members else NOTHING, unit)
    if len(weights) == 1:
        ((atom, weight),) = weights.items()
        members = _divided(members, weight)
        match atom:
            case Position():
                return _axis(atom, members, unit)
            case Binary("//", inner, Constant(divisor)):
                return _member(inner, members.lift(divisor), unit)
            case Binary("%", inner, Constant(divisor)):
                try:
                    return _member(inner, members.modulo_preimage(divisor), unit)
                except _NotPeriodic:
                    return _tabulated(atom, members, unit)
    query, key = _same_size(weights)
    if query is not None and key is not None and weights[query] == -weights[key]:
        size = query.right.value if isinstance(query, Binary) and isinstance(query.right, Constant) else 1
        if size > LONGEST_PERIOD:
            raise WordTooLong(size)
        distances = spread_over(_divided(members, weights[query]), size)
        return _single(Periodic(tuple(distances.shift(r) for r in range(size))).reduced(), unit)
    return _tabulated(term, members.shift(constant), unit)


def _divided(members: IntegerSet, weight: int) -> IntegerSet:
    """{x : weight · x in members}."""
    return members.sample(weight) if weight > 0 else members.negate().sample(-weight)


def _same_size(weights: dict[Term, int]) -> tuple[Term | None, Term | None]:
    """The two atoms q // s and k // s (or q and k), if these are all there is."""
    if len(weights) != 2:
        return None, None
    one, other = weights
    for query, key in ((one, other), (other, one)):
        if (query, key) == (Q, K):
            return query, key
        match query, key:
            case Binary("//", Position("q"), Constant(a)), Binary("//", Position("k"), Constant(b)) if a == b:
                return query, key
    return None, None


def _axis(position: Position, members: IntegerSet, unit: int) -> NormalForm:
    """{Q ∈ members} or {K ∈ members}: pieces between the ends of the segments, residues inside."""
    members = members & IntegerSet.interval(0, INFINITY)
    segments = _touching(members.segments)
    ends = {end for lo, hi, _, _ in segments for end in (lo, hi) if end < LAST_POSITION}
    breaks = tuple(sorted({0, *ends}))
    contents = []
    for start in breaks:
        period, word = next(((s.period, s.word) for s in segments if s.lo <= start < s.hi), (1, 0))
        residues = IntegerSet.periodic(period, word)
        if position == Q:
            rows = tuple(EVERYTHING if r in residues else EMPTY for r in range(period))
        else:
            rows = tuple(residues.negate().shift(r) for r in range(period))
        contents.append(Periodic(rows))
    if position == Q:
        return NormalForm(unit, False, breaks, (0,), tuple((cell,) for cell in contents))
    return NormalForm(unit, False, (0,), breaks, (tuple(contents),))


def _touching(segments: tuple[Segment, ...]) -> list[Segment]:
    """The same positions, each segment begun where the last one ends if nothing of its word lies between.

    The first member of k % 64 >= 56 is 56, but a break there would part what is one rule.
    """
    touching: list[Segment] = []
    end = 0
    for lo, hi, period, word in segments:
        first = end if period > 1 and first_member(word, period, end) == lo else lo
        touching.append(Segment(first, hi, period, word))
        end = hi
    return touching


def _tabulated(term: Term, members: IntegerSet, unit: int) -> NormalForm:
    """{term ∈ members} for a term that depends on the residues of q and k only, by trying them all."""
    import numpy as np

    period = value_period(term)
    if period is None or period > LONGEST_TABLE:
        raise _NotPeriodic(f"{term}, which neither repeats nor is a distance")
    q = np.arange(period, dtype=np.int64)[:, None]
    k = np.arange(period, dtype=np.int64)[None, :]
    table = members.contains(np.broadcast_to(evaluate(term, q, k), (period, period)))
    rows = tuple(IntegerSet.residues(period, [r - int(key) for key in np.flatnonzero(table[r])]) for r in range(period))
    return _single(Periodic(rows).reduced(), unit)
