"""The check of a pattern: does every token reach every earlier token through its layers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import islice
from math import lcm
from operator import or_

from sparsedsl.errors import LONGEST_SHOWN_LINE, SparseDSLError, clipped, shown
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.bits import ones, runs
from sparsedsl.proofs.counts import Counts, form_counts, graph_counts
from sparsedsl.proofs.course import Course, Evidence
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.graph_reach import graph_course
from sparsedsl.proofs.problem import Problem, problem_of
from sparsedsl.proofs.reach import periodic_course
from sparsedsl.proofs.report import report

# Intervals listed in a verdict; their full number is given beside them.
INTERVALS_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Counterexample:
    """The first pair that is not joined (least q, then least k), and the least length that shows it."""

    q: int
    k: int
    seq_len: int


@dataclass(frozen=True, slots=True)
class Intervals:
    """Token positions as half-open intervals, the first 16 of them; how many intervals and tokens there are."""

    first: tuple[tuple[int, int], ...]
    count: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `layers` layers of a pattern join at one length; all in tokens, exact.

    complete      every pair j <= i < seq_len is joined; every pair at all if the pattern looks `ahead`
    depth         the layers needed; None if no number of layers will do (for a stack: none of its own), and None
                  if not `settled`: more than `layers` are needed, and the search for how many was given up
    reach         the tokens that the last query sees after 1, 2, ... layers, its own included; it ends with the
                  last layer, or before, where all is joined or nothing changes any more
    contiguous    for the same layers, the greatest R such that every token is joined to every token at a
                  distance <= R (-1 where some token is not joined to itself, without the residual connection)
    degree        the keys of the worst row
    density       the pairs k <= q over the causal triangle; of the worst layer
    live_pairs    all pairs of a layer; of the worst layer
    joined_pairs  the pairs joined after all layers, out of `pairs`
    holes         positions that the last query does not see, after its farthest key
    keyless       rows without a key, in some layer
    unit          the tokens of a unit; the verdict was found on units and is exact on tokens
    basis         what the verdict rests on
    """

    pattern: str
    seq_len: int
    layers: int | None
    residual: bool
    complete: bool
    depth: int | None
    settled: bool
    ahead: bool
    reach: tuple[int, ...]
    contiguous: tuple[int, ...]
    degree: int
    density: float
    live_pairs: int
    joined_pairs: int
    pairs: int
    counterexample: Counterexample | None
    holes: Intervals
    keyless: Intervals
    unit: int
    basis: str

    def __str__(self) -> str:
        return report(self)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self))


def check(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int = 131072,
    layers: int | None = None,
    residual: bool = True,
) -> Verdict:
    """Say whether every token reaches every earlier token within the layers, and how many layers it would take.

    Set
        Pairs (i, j) are joined if a path of at most L edges leads from query i down to key j, the h-th edge
        from the bottom being in layer h's pattern; without the residual connection, of exactly L edges. A
        per-head pattern counts as the union of its heads. `layers` defaults to as many as it takes, and for a
        stack to its own.
    Cost
        Causal patterns with a normal form: per layer O(P · n / 64 · (terms + log2 n)) time and O(P · n / 8)
        bytes, for n units (blocks, where the whole pattern is lifted to blocks) and period P. Others: O(n² / 64)
        for each key of a row and O(n² / 8) bytes, up to 16 384 units.
    Raises
        WrongType, WrongValue, OutOfRange: arguments that no check can take.
        Unsupported: a check over its limits of units, memory or work.
    Example
        >>> from sparsedsl import causal, power, sink, sliding
        >>> verdict = check((sliding(5) | power() | sink(1)).blocks(256) & causal(), seq_len=16384, layers=28)
        >>> verdict.complete, verdict.depth, verdict.degree, verdict.reach
        (True, 5, 2304, (2304, 6912, 12544, 15872, 16384))
        >>> check(sliding(4), seq_len=100, layers=5).counterexample
        Counterexample(q=16, k=0, seq_len=17)

    """
    try:
        problem = problem_of(pattern, seq_len=seq_len, layers=layers)
        if problem.graphs is None:
            course = periodic_course(problem.periodic, problem.schedule, problem.extent, residual=residual)
            counts = [form_counts(layer, problem.extent) for layer in problem.periodic]
        else:
            course = graph_course(problem.graphs, problem.schedule, residual=residual)
            counts = [graph_counts(problem.graphs, index) for index in range(len(problem.graphs.layers))]
    except SparseDSLError as error:
        raise error.located(f"check({clipped(str(pattern), LONGEST_SHOWN_LINE)}, seq_len={shown(seq_len)})") from None
    return _verdict(str(pattern), problem, course, counts, residual=residual)


def _verdict(text: str, problem: Problem, course: Course, counts: list[Counts], *, residual: bool) -> Verdict:
    extent = problem.extent
    length = extent.seq_len
    triangle = length * (length + 1) // 2
    gap = course.evidence.first_gap
    return Verdict(
        pattern=text,
        seq_len=length,
        layers=problem.schedule.count,
        residual=residual,
        complete=gap is None,
        depth=course.depth,
        settled=course.settled,
        ahead=problem.ahead,
        reach=tuple(each.seen for each in course.snapshots),
        contiguous=tuple(min(each.gap, length) - 1 for each in course.snapshots),
        degree=max(each.degree for each in counts),
        density=max(each.causal_pairs for each in counts) / triangle,
        live_pairs=max(each.pairs for each in counts),
        joined_pairs=course.evidence.joined,
        pairs=length * length if problem.ahead else triangle,
        counterexample=None if gap is None else Counterexample(*gap, max(gap) + 1),
        holes=_holes(course.evidence, extent),
        keyless=_token_intervals(reduce(or_, (each.keyless for each in counts)), extent),
        unit=extent.unit,
        basis=_basis(problem),
    )


def _token_intervals(units: int, extent: Extent) -> Intervals:
    """The tokens of a set of units."""
    found = ((lo * extent.unit, min(hi * extent.unit, extent.seq_len)) for lo, hi in runs(units))
    size = units.bit_count() * extent.unit
    if units >> extent.units - 1 & 1:
        size -= extent.unit - extent.last_size
    return Intervals(tuple(islice(found, INTERVALS_SHOWN)), _run_count(units), size)


def _run_count(bits: int) -> int:
    return (bits & ~(bits << 1)).bit_count()


def _holes(evidence: Evidence, extent: Extent) -> Intervals:
    """The positions that the last query does not see between its farthest key and itself."""
    last = extent.units - 1
    farthest = evidence.last.bit_length() - 1
    # Bit K - (last - farthest) for unit K, so that runs come in the order of positions.
    seen = int(f"{evidence.last:b}"[::-1], 2) if evidence.last else 0
    first = last - farthest
    holes = (ones(farthest + 1) & ~seen) << first
    listed = _token_intervals(holes, extent)
    if not farthest > 0 or not 0 < evidence.last_own < extent.last_size:
        return listed
    # The last token sees an earlier unit and itself, but not the tokens before it in its own unit.
    own = (last * extent.unit, extent.seq_len - 1)
    size = listed.tokens + own[1] - own[0]
    if listed.first and listed.first[-1][1] == own[0]:
        return Intervals((*listed.first[:-1], (listed.first[-1][0], own[1])), listed.count, size)
    return Intervals((*listed.first, own)[:INTERVALS_SHOWN], listed.count + 1, size)


def _basis(problem: Problem) -> str:
    extent = problem.extent
    units = "tokens" if extent.unit == 1 else f"blocks of {extent.unit} tokens"
    if problem.graphs is not None:
        return f"layer graph on {extent.units} {units}"
    forms = [layer.form for layer in problem.periodic]
    period = lcm(*(form.period for form in forms))
    absolute = max(max(*form.q_breaks, *form.k_breaks) for form in forms)
    return f"sets of distances on {extent.units} {units}; period {period}, absolute before {absolute}"
