"""From steps to formulas; the prover and the check of a proof both end here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sparsedsl.integers import INFINITY
from sparsedsl.proofs.depth.curves import Curve, Endless
from sparsedsl.proofs.depth.facts import Facts
from sparsedsl.proofs.depth.frame import Blocks, Borders, Direct, Everything, Neighbours, OwnBlock, Residues, SelfEdges
from sparsedsl.proofs.depth.parts import Counted, Part, covers
from sparsedsl.proofs.depth.words import Step

if TYPE_CHECKING:
    from sympy import Expr


class Conclusion(NamedTuple):
    """See `Proof`, whose fields these are."""

    complete: bool | None
    fails_from: int | None
    upper: Expr | None
    lower: Expr | None


UNKNOWN = Conclusion(None, None, None, None)


def conclude(facts: Facts, frame: Sequence[Step], parts: Sequence[Part], *, residual: bool) -> Conclusion:
    """What the steps prove, each of them being taken to hold."""
    failing = [at for step in frame if (at := _fails_from(step, facts)) is not None]
    if failing:
        ends = [part.curves(facts)[1].length(len(facts.inner)) for part in parts if not facts.endless]
        lengths = [end * facts.unit + 1 for end in ends]
        return Conclusion(False, min(*failing, *lengths, INFINITY), None, None)
    if any(isinstance(step, Everything) for step in frame):
        from sympy import Integer

        return Conclusion(True, None, Integer(1), Integer(1))
    if is_open(facts, frame, residual=residual):
        return UNKNOWN
    joined = Neighbours(None) in frame
    curves = [part.curves(facts) for part in parts]
    lower = _greatest([at_most for _, at_most in curves], facts) if curves else None
    if not any(covers(part, facts) for part in parts) or not _first_keys_covered(facts, frame, parts):
        return Conclusion(True if joined and facts.endless else None, None, None, lower)
    more = max((part.through.layers for part in parts if part.through), default=0)
    upper = _greatest([at_least for at_least, _ in curves], facts, more)
    if facts.endless:
        return Conclusion(joined or None, None, upper if joined else None, lower)
    # A stack: with its own layers it is complete for good, or up to a length.
    if all(isinstance(curve.tail, Endless) for curve, _ in curves):
        return Conclusion(True, None, upper, lower)
    longest = min(curve.length(len(facts.inner)) for curve, _ in curves)
    return Conclusion(False, longest * facts.unit + 1 if longest < INFINITY else None, upper, lower)


def is_open(facts: Facts, frame: Sequence[Step], *, residual: bool) -> bool:
    """Whether the frame lacks what every statement about depth needs."""
    if facts.ahead or (not residual and SelfEdges(None) not in frame):
        return True
    return facts.unit > 1 and Blocks(facts.unit) not in frame


def _fails_from(step: Step, facts: Facts) -> int | None:
    """The length from which on a step says that some pair is never joined."""
    match step:
        case SelfEdges(int(missing)):
            return missing * facts.unit + 1
        case Neighbours(int(missing)):
            return missing * facts.unit + 1
        case OwnBlock(block):
            return block * facts.unit + 2
        case Residues() if facts.ahead:
            return facts.unit + 1
        case Borders(size, unit) if facts.ahead:
            return size * unit + 1
    return None


def _first_keys_covered(facts: Facts, frame: Sequence[Step], parts: Sequence[Part]) -> bool:
    """Whether the keys before the start have an upper bound as well."""
    if any(isinstance(part, Counted) or part.through for part in parts):
        return True
    covered = 0
    for step in frame:
        if isinstance(step, Direct) and step.lo <= covered:
            covered = max(covered, step.hi)
    return covered >= facts.start


def _greatest(curves: Sequence[Curve], facts: Facts, more: int = 0) -> Expr:
    """The depth of the deepest part as an expression in N."""
    from sympy import Max, Symbol, ceiling

    length = Symbol("N", integer=True, positive=True)
    units = ceiling(length / facts.unit) if facts.unit > 1 else length
    formulas = list(dict.fromkeys(curve.of(units) for curve in curves))
    deepest = formulas[0] if len(formulas) == 1 else Max(*formulas, evaluate=False)
    return deepest + more if more else deepest
