"""A proof: steps, the formulas that follow from them, and a check of both."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY
from sparsedsl.proofs.depth.conclusion import Conclusion, conclude
from sparsedsl.proofs.depth.facts import Facts, facts_of
from sparsedsl.proofs.depth.parts import Part
from sparsedsl.proofs.depth.words import Step

if TYPE_CHECKING:
    from sympy import Expr

# Tokens on which the normal forms are compared with the pattern itself.
COMPARED = 192


@dataclass(frozen=True)
class Proof:
    """What holds for every length N >= 2, N up to the largest position 2^40 and beyond.

    complete      True: complete for every N, once there are layers enough (a stack: with its own). False:
                  incomplete for every N >= fails_from. None: no proof was found either way
    fails_from    a length from which on the pattern is incomplete, whatever the number of layers; the least
                  one if `fails_first`: always but for patterns that look ahead or have no normal form
    upper, lower  the depth as a function of N lies between these sympy expressions; None where nothing is
                  known, nan (in a stack) where no number of layers will do
    exact         the two are the same

    A geometric set such as {1, 2, 4, ...} is taken to go on for good: it is listed up to 2^40, the largest
    position that this package accepts.
    """

    facts: Facts
    residual: bool
    frame: tuple[Step, ...]
    parts: tuple[Part, ...]
    complete: bool | None
    fails_from: int | None
    upper: Expr | None
    lower: Expr | None

    @property
    def exact(self) -> bool:
        """Whether the depth is known for every N."""
        return self.upper is not None and self.upper == self.lower

    @property
    def fails_first(self) -> bool:
        """Whether `fails_from` is the least length at which the pattern is incomplete."""
        settled = self.facts.endless or bool(self.parts)
        return self.facts.is_exact and not self.facts.ahead and settled

    @property
    def pattern(self) -> str:
        """The pattern's text."""
        return str(self.facts.pattern)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in reading order."""
        return (*self.frame, *(step for part in self.parts for step in part.steps()))

    def depth(self, seq_len: int) -> tuple[int, int | None]:
        """The bounds of the depth at one length >= 2 in integers; the second is None where none is known.

        Where no number of layers will do, both stand for the layers that would not have been enough: see
        `fails_from`.
        """
        units = -(-seq_len // self.facts.unit)
        below, above = 1, 1
        for part in self.parts:
            at_least, at_most = part.curves(self.facts)
            lowest = at_most.depth(units)
            highest = at_least.depth(units)
            more = part.through.layers if part.through else 0
            if highest is None or (self.upper is None):
                return below, None
            below = max(below, lowest or 1)
            above = max(above, highest + more)
        return below, above if self.upper is not None else None

    def length(self, layers: int) -> tuple[int, int]:
        """The inverse: so many layers are complete at least up to the first length, and at most up to the second.

        INFINITY (2^62) stands for every length.
        """
        unit = self.facts.unit
        lows, highs = [INFINITY], [INFINITY]
        for part in self.parts:
            at_least, at_most = part.curves(self.facts)
            more = part.through.layers if part.through else 0
            lows.append(unit * at_least.length(layers - more) if layers > more else 1)
            highs.append(unit * at_most.length(layers))
        if self.complete is False and not self.parts:
            return 1, (self.fails_from or INFINITY) - 1
        return (min(*lows, INFINITY) if self.upper is not None else 1), min(*highs, INFINITY)

    def __str__(self) -> str:
        from sparsedsl.proofs.depth.printing import text_of

        return text_of(self)

    def to_markdown(self) -> str:
        """The statement and its proof for a page."""
        from sparsedsl.proofs.depth.printing import markdown_of

        return markdown_of(self)

    def to_latex(self) -> str:
        """The same for a paper."""
        from sparsedsl.proofs.depth.printing import latex_of

        return latex_of(self)

    def to_json(self) -> str:
        """The same as one JSON object."""
        from sparsedsl.proofs.depth.printing import json_of

        return json_of(self)

    def verify(self) -> None:
        """Raise AssertionError unless every step holds and the formulas follow from the steps.

        Cost
            About that of the search: exact integers and sympy polynomials, in code of its own.
        """
        _check(self.facts == facts_of(self.facts.pattern), "the normal forms are not the pattern's")
        _check(_sampled(self.facts), "the normal forms differ from the pattern itself")
        for number, step in enumerate(self.steps, 1):
            _check(step.holds(self.facts), f"step {number} ({step.lemma}) does not hold")
        for part in self.parts:
            _check(part.holds(self.facts), "the steps do not follow each other")
        found = conclude(self.facts, self.frame, self.parts, residual=self.residual)
        stated = Conclusion(self.complete, self.fails_from, self.upper, self.lower)
        _check(found == stated, "the formulas do not follow from the steps")


def _check(holds: bool, otherwise: str) -> None:
    # Not an assert statement: `python -O` must not switch it off.
    if not holds:
        raise AssertionError(otherwise)


def _sampled(facts: Facts) -> bool:
    """Whether inner ⊆ pattern ⊆ outer on the first tokens, by the pattern's own matrix."""
    from sparsedsl.layers import PerHead, Stack

    pattern = facts.pattern
    layers = list(pattern) if isinstance(pattern, Stack) else [pattern]
    size = min(COMPARED, ceil((facts.start + 2 * facts.period + 3) * facts.unit))
    for layer, inner, outer in zip(layers, facts.inner, facts.outer, strict=True):
        matrix = layer.union().dense(size) if isinstance(layer, PerHead) else layer.dense(size)
        if (inner.dense(size, size) & ~matrix).any() or (matrix & ~outer.dense(size, size)).any():
            return False
    return True
