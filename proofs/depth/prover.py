"""The prover: from a pattern to statements for every length."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from math import gcd
from operator import and_, or_

from sparsedsl.errors import SparseDSLError, WrongType
from sparsedsl.forms import NormalForm
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.bits import ones
from sparsedsl.proofs.depth.bounds import Upper
from sparsedsl.proofs.depth.conclusion import conclude, is_open
from sparsedsl.proofs.depth.distances import bounds_of
from sparsedsl.proofs.depth.facts import Facts, facts_of
from sparsedsl.proofs.depth.frame import Blocks, Borders, Direct, Everything, Neighbours, OwnBlock, Residues, SelfEdges
from sparsedsl.proofs.depth.layered import layered_of
from sparsedsl.proofs.depth.lengthen import stretch_of
from sparsedsl.proofs.depth.parts import Counted, Distances, Layers, Part, Through
from sparsedsl.proofs.depth.proof import Proof
from sparsedsl.proofs.depth.words import Step
from sparsedsl.proofs.periodic_layer import PeriodicLayer

# The first keys whose pairs are counted one by one.
MOST_FIRST_KEYS = 1 << 10
# The largest chunk whose borders are looked at.
LONGEST_CHUNK = 1 << 14


def prove(pattern: Pattern | PerHead | Stack, residual: bool = True) -> Proof:
    """State for every length whether a pattern is complete, and its depth as a function of the length N.

    Set
        depth(N) is the least number of layers that join every token i < N to every token j <= i. For a stack
        it is the number of its first layers. The upper bound is an induction on the contiguous reach, the lower
        bound a distance that so many layers do not join; `Proof.exact` says that the two meet.
    Cost
        At most some hundred million bytes of sets read, whatever the pattern; most take milliseconds. No
        length enters.
    Raises
        WrongType: the argument is no pattern.
    Example
        >>> from sparsedsl import dilated, power, sliding
        >>> proof = prove(power())
        >>> proof.complete, proof.exact, str(proof.upper)
        (True, True, 'floor(log2(N))')
        >>> prove(sliding(4)).verify()
        >>> proof = prove(dilated(3, 2))
        >>> proof.complete, proof.fails_from
        (False, 2)

    References
        .. [1] Li et al., 2019, arXiv 1907.00235, Theorem 1: floor(log2 N) + 1 layers for the powers of two; one
           fewer is enough.
    """
    if not isinstance(pattern, Pattern | PerHead | Stack):
        raise WrongType(
            "prove takes a pattern",
            where="prove(...)",
            got=f"{pattern!r} of type {type(pattern).__name__}",
            expected="a pattern, a per-head pattern or a stack of layers",
            hint="prove(sliding(1024) | power())",
        )
    try:
        facts = facts_of(pattern)
    except SparseDSLError as error:
        raise error.located(f"prove({pattern})") from None
    frame = tuple(_frame(facts, residual=residual))
    parts = () if _is_settled(facts, frame, residual=residual) else tuple(_parts(facts, frame))
    return Proof(facts, residual, frame, parts, *conclude(facts, frame, parts, residual=residual))


def _is_settled(facts: Facts, frame: tuple[Step, ...], *, residual: bool) -> bool:
    fails = conclude(facts, frame, (), residual=residual).fails_from is not None
    everything = any(isinstance(step, Everything) for step in frame)
    # The layers of a stack may be too few at a lesser length already.
    return is_open(facts, frame, residual=residual) or (fails and facts.endless) or everything


# --- the frame: whether the pattern is ever complete


def _frame(facts: Facts, *, residual: bool) -> list[Step]:
    frame: list[Step] = []
    if facts.ahead:
        return [Everything()] if facts.endless and Everything().holds(facts) else _invariants(facts)
    if not residual:
        missing = _first_without(facts.inner, 0, facts, every=True)
        if missing is not None:
            missing = _first_without(facts.outer, 0, facts, every=True)
            frame += [] if missing is None else [SelfEdges(missing)]
        else:
            frame.append(SelfEdges(None))
    if facts.unit > 1:
        own = _first_without(facts.outer, 0, facts, every=False)
        if own is not None:
            frame.append(OwnBlock(own))
        elif Blocks(facts.unit).holds(facts):
            frame.append(Blocks(facts.unit))
    missing = _first_without(facts.outer, 1, facts, every=False)
    if missing is not None:
        return [*frame, *_invariants(facts), Neighbours(missing)]
    if _first_without(facts.inner, 1, facts, every=False) is None:
        frame.append(Neighbours(None))
    return [*frame, *_direct(facts)]


def _first_without(forms: tuple[NormalForm, ...], distance: int, facts: Facts, *, every: bool) -> int | None:
    """The first unit without an edge of this distance: in some layer (`every` layer has to have it), or in all."""
    has = all if every else any
    for query in range(distance, facts.start + facts.period + distance):
        if not has(distance in form.cell_at(query, query - distance).row(query) for form in forms):
            return query
    return None


def _invariants(facts: Facts) -> list[Step]:
    """What no path changes."""
    rows = [row for form in facts.outer for _, cell in form.pieces() for row in cell.rows]
    divisor = reduce(gcd, map(_divisor, rows), 0)
    found: list[Step] = [Residues(divisor)] if divisor > 1 else []
    if facts.period * facts.unit > 1 and facts.period <= LONGEST_CHUNK and facts.start == 0:
        borders = Borders(facts.period, facts.unit)
        found += [borders] if borders.holds(facts) else []
    return found


def _divisor(row: IntegerSet) -> int:
    """The greatest common divisor of all members; 0 for {0} and for none."""
    divisor = 0
    for lo, hi, period, _ in row.segments:
        start = lo if lo > -INFINITY else 0 if hi == INFINITY else hi - 2 * period
        for each in row.members(start, min(hi, start + 2 * period)):
            divisor = gcd(divisor, each)
            if divisor == 1:
                return 1
        divisor = gcd(divisor, period if hi - lo > period else 0)
    return divisor


def _direct(facts: Facts) -> list[Step]:
    """The pieces of first keys that every later token reads, neighbours joined."""
    ends = sorted({0, facts.start, *(b for form in facts.inner for b in form.k_breaks if b < facts.start)})
    found: list[Direct] = []
    for lo, hi in pairwise(ends):
        piece = Direct(lo, hi)
        if not piece.holds(facts):
            continue
        if found and found[-1].hi == lo:
            piece = Direct(found.pop().lo, hi)
        found.append(piece)
    return list(found)


# --- the parts: depth


def _parts(facts: Facts, frame: tuple[Step, ...]) -> list[Part]:
    if facts.endless:
        return _endless_parts(facts, frame)
    if not facts.is_exact:
        return []
    if facts.period == 1 and _all_direct(facts, frame):
        layered = layered_of([_row_sets(form)[0] & IntegerSet.interval(0, INFINITY) for form in facts.inner])
        if layered is not None:
            return [Layers(layered, facts.start)]
    stretch = stretch_of(facts, absolute_only=False)
    return [Counted(stretch)] if stretch else []


def _endless_parts(facts: Facts, frame: tuple[Step, ...]) -> list[Part]:
    direct = _all_direct(facts, frame)
    if facts.is_exact and facts.period > 1:
        stretch = stretch_of(facts, absolute_only=False)
        if stretch:
            return [Counted(stretch)]
    common = reduce(and_, _row_sets(facts.inner[0]))
    hull = reduce(or_, _row_sets(facts.outer[0])) & IntegerSet.interval(0, INFINITY)
    upper: Upper | None
    upper, lower = bounds_of(hull)
    if common & IntegerSet.interval(0, INFINITY) != hull:
        upper = bounds_of(common)[0] if 1 in common else None
    if direct:
        return [Distances(upper, lower, facts.start)]
    stretch = stretch_of(facts, absolute_only=True) if facts.is_exact else None
    if stretch:
        return [Counted(stretch), Distances(upper, lower, facts.start)]
    return [Distances(upper, lower, facts.start, _through(facts))]


def _all_direct(facts: Facts, frame: tuple[Step, ...]) -> bool:
    return facts.start == 0 or (Direct(0, facts.start) in frame)


def _row_sets(form: NormalForm) -> tuple[IntegerSet, ...]:
    return form.cells[-1][-1].rows


def _through(facts: Facts) -> Through | None:
    """The layers that join all pairs of the tokens up to the start."""
    size = facts.start + 1
    if size > MOST_FIRST_KEYS:
        return None
    layer = PeriodicLayer(facts.inner[0], size)
    queries = [1 << key for key in range(size)]
    for layers in range(1, size + 1):
        queries = [each | layer.readers(each) for each in queries]
        if all(each | ones(key) == ones(size) for key, each in enumerate(queries)):
            return Through(layers)
    return None
