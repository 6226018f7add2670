"""Steps about a stack: another set of distances in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.bits import lowest_missing, progressions, sums
from sparsedsl.proofs.depth.curves import Curve, Endless, Geometric, Run, runs_through
from sparsedsl.proofs.depth.recheck import contiguous_reaches
from sparsedsl.proofs.depth.words import Said, reach, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts

# The farthest distance up to which layers that do not fill every gap are counted.
MOST_BITS = 1 << 20


@dataclass(frozen=True, slots=True)
class Layered:
    """values[h] is the contiguous reach after the first h layers, INFINITY for every distance.

    `counted`: found by listing all sums. If not, each layer fills every gap up to its largest distance, and the
    reach is the sum of the largest distances, beyond which no path leads.
    """

    layers: tuple[IntegerSet, ...]
    values: tuple[int, ...]
    counted: bool

    @property
    def lemma(self) -> str:
        """The name."""
        return "counted" if self.counted else "layer by layer"

    def statement(self) -> Basic:
        """R(0) = 0, R(1) = ..., or one formula for all."""
        from sympy import And, Eq, Integer, oo

        shape = self.shape()
        if shape is not None:
            h = whole_symbol("h")
            return Eq(reach(h), shape.whole * (Integer(shape.ratio) ** h - 1))
        return And(*(Eq(reach(h), oo if value == INFINITY else value) for h, value in enumerate(self.values)))

    def because(self) -> Said:
        """Each layer adds its largest distance."""
        h = whole_symbol("h")
        if self.counted:
            return Said("all sums of at most one distance of each layer were listed")
        return Said(
            "no layer has a gap wider than {} + 1, so the copies of [0, {}] moved by its distances leave no gap; and "
            "the sum of the largest distances is the farthest that any path leads",
            (reach(h), reach(h)),
        )

    def shape(self) -> Geometric | None:
        """The curve c · (b^h − 1) + 1 if the reach grows so."""
        if len(self.values) < 4 or self.values[-1] == INFINITY:
            return None
        first, second = self.values[1], self.values[2] - self.values[1]
        if first < 1 or second <= first or second % first or first % (second // first - 1):
            return None
        ratio = second // first
        whole = first // (ratio - 1)
        if any(value != whole * (ratio**h - 1) for h, value in enumerate(self.values)):
            return None
        return Geometric(0, 1, first, ratio, 1, last=len(self.values) - 1)

    def curve(self) -> Curve:
        """The lengths, reach + 1."""
        shape = self.shape()
        if shape is not None:
            return Curve((), shape)
        finite = [value for value in self.values if value < INFINITY]
        runs = runs_through(tuple(value + 1 for value in finite))
        if len(finite) < len(self.values):
            return Curve(runs, Endless(len(finite)))
        last = Run(len(finite) - 1, finite[-1] + 1, 0)
        return Curve(runs if runs[-1] == last else (*runs, last))

    def holds(self, facts: Facts) -> bool:
        """Fill the gaps once more, or count once more."""
        if len(self.layers) != len(self.values) - 1 and self.values[-1] != INFINITY:
            return False
        for form, distances in zip(facts.inner, self.layers, strict=True):
            rows = form.cells[-1][-1].rows
            if any((row & _EARLIER) - distances or distances & _EARLIER - row for row in rows):
                return False
        if self.counted:
            below = max(self.values) + 2
            return tuple(contiguous_reaches(self.layers, below)) == self.values
        farthest = [0]
        for distances, before, after in zip(self.layers, self.values, self.values[1:], strict=False):
            everything = (distances & _EARLIER | IntegerSet.of([0])).dilate(before + 1)
            if not IntegerSet.interval(0, after if after == INFINITY else after + 1) <= everything:
                return False
            farthest.append(after if after == INFINITY else farthest[-1] + max(0, (distances | _ZERO).maximum))
        return tuple(farthest) == self.values


_EARLIER = IntegerSet.interval(1, INFINITY)
_ZERO = IntegerSet.of([0])


def layered_of(layers: Sequence[IntegerSet]) -> Layered | None:
    """The reach after each layer; None where neither way finds it."""
    from sparsedsl.proofs.depth.distances import first_gap

    values = [0]
    for distances in layers:
        joined = values[-1]
        solid, _ = first_gap(distances | _ZERO, joined + 1)
        farthest = (distances | _ZERO).maximum
        if solid < farthest:
            return _counted(layers)
        values.append(INFINITY if farthest == INFINITY else joined + farthest)
        if values[-1] == INFINITY:
            break
    return Layered(tuple(layers), tuple(values), False)


def _counted(layers: Sequence[IntegerSet]) -> Layered | None:
    farthest = sum((distances | _ZERO).maximum for distances in layers)
    if farthest > MOST_BITS:
        return None
    values, joined, limit = [0], 1, farthest + 2
    for distances in layers:
        (further,) = sums([joined], [progressions(distances & _EARLIER, limit)], [limit])
        joined |= further
        values.append(lowest_missing(joined) - 1)
    return Layered(tuple(layers), tuple(values), True)
