"""Steps that bound the depth from above: how the contiguous reach grows with each layer, by induction.

R(h) is the contiguous reach of a set of distances, the same in every layer: the greatest R such that each distance
0, ..., R is a sum of at most h members. If [0, R] is joined, one more layer joins [0, R] + d for each member d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.depth.recheck import contiguous_reaches
from sparsedsl.proofs.depth.words import Said, reach, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts

# 2^40 is the last position.
LONGEST_POWER = 40


@dataclass(frozen=True, slots=True)
class Counted:
    """values[h] is the contiguous reach after h layers exactly: values[h] + 1 is not a sum of h distances."""

    distances: IntegerSet
    values: tuple[int, ...]

    @property
    def lemma(self) -> str:
        """The name."""
        return "base" if len(self.values) == 1 else "counted"

    def statement(self) -> Basic:
        """R(0) = 0, R(1) = ..., ..."""
        from sympy import And, Eq

        return And(*(Eq(reach(h), value) for h, value in enumerate(self.values)))

    def because(self) -> Said:
        """By counting."""
        from sympy import Integer

        if len(self.values) == 1:
            return Said("no layer joins each token to itself alone")
        sizes = Integer(len(self.values) - 1), Integer(self.values[-1] + 1)
        return Said("all sums of at most {} distances were listed up to {}", sizes)

    def holds(self, facts: Facts) -> bool:
        """Add the distances one by one."""
        layers = [self.distances] * (len(self.values) - 1)
        return tuple(contiguous_reaches(layers, self.values[-1] + 2)) == self.values


@dataclass(frozen=True, slots=True)
class Rise:
    """From R(layers) >= reach on, each layer adds `slope`, a member."""

    distances: IntegerSet
    layers: int
    reach: int
    slope: int

    lemma = "step"

    def statement(self) -> Basic:
        """R(h + 1) >= R(h) + slope for h >= layers."""
        from sympy import Ge, Implies

        h = whole_symbol("h")
        return Implies(Ge(h, self.layers), Ge(reach(h + 1), reach(h) + self.slope))

    def because(self) -> Said:
        """The copies of [0, R] meet."""
        from sympy import Integer

        h = whole_symbol("h")
        return Said(
            "the distances up to {} have no gap wider than R({}) + 1 = {}, so the copies of [0, {}] moved by them "
            "leave no gap, and the last one ends at {}; the same holds for every longer reach",
            (
                Integer(self.slope),
                Integer(self.layers),
                Integer(self.reach + 1),
                reach(h),
                reach(h) + self.slope,
            ),
        )

    def holds(self, facts: Facts) -> bool:
        """[0, R] + distances covers [0, R + slope] at the first R, and so for each later one."""
        from sympy import expand

        h = whole_symbol("h")
        bound = self.reach + (h - self.layers) * self.slope
        used = self.distances & IntegerSet.interval(0, self.slope + 1) | IntegerSet.of([0])
        copies = used.dilate(self.reach + 1)
        return (
            self.slope >= 1
            and self.layers >= 0
            and self.reach >= 0
            and self.slope in self.distances
            and expand(bound.subs(h, h + 1) - bound - self.slope) == 0
            and IntegerSet.interval(0, self.reach + self.slope + 1) <= copies
        )


@dataclass(frozen=True, slots=True)
class Powers:
    """From R(layers) = reach on, base − 1 layers in turn add base^power, then as many base^(power + 1), ..."""

    distances: IntegerSet
    layers: int
    reach: int
    base: int
    power: int

    lemma = "step"

    def statement(self) -> Basic:
        """R(h + 1) >= R(h) + base^(power + i) for h = layers + (base − 1) i + j."""
        from sympy import Ge, Implies, Integer, floor

        h = whole_symbol("h")
        stage = self.power + floor((h - self.layers) / Integer(self.base - 1))
        return Implies(Ge(h, self.layers), Ge(reach(h + 1), reach(h) + Integer(self.base) ** stage))

    def because(self) -> Said:
        """Two powers are enough."""
        from sympy import Integer

        t = whole_symbol("t")
        b = Integer(self.base)
        return Said(
            "with the powers {} and {} the copies of [0, R] at 0, at the lower and at the upper one leave no gap: "
            "the lower one is at most R + 1, the upper one at most R + 1 more than it; both hold at R({}) = {}, "
            "t = {}, and R + 1 then grows as fast as the powers do",
            (b ** (t - 1), b**t, Integer(self.layers), Integer(self.reach), Integer(self.power)),
        )

    def holds(self, facts: Facts) -> bool:
        """The two inequalities as polynomials in x = base^i >= 1, and the powers in the set."""
        from sympy import Integer, Symbol, expand

        if self.base < 2 or not 1 <= self.power <= LONGEST_POWER or self.layers < 0:
            return False
        x = Symbol("x", positive=True)
        top = Integer(self.base) ** self.power
        low = top / self.base
        solid = self.reach + 1 + top * (x - 1)  # R + 1 at the first layer of stage i
        gaps = [expand(solid - low * x), expand(solid + low * x - top * x)]
        powers = IntegerSet.powers(self.base) & IntegerSet.interval(self.base ** max(self.power - 1, 0), INFINITY)
        return powers <= self.distances and all(gap.coeff(x, 1) >= 0 and gap.subs(x, 1) >= 0 for gap in gaps)


@dataclass(frozen=True, slots=True)
class Covering:
    """With R(layers) >= reach, one more layer joins every distance."""

    distances: IntegerSet
    layers: int
    reach: int

    lemma = "step"

    def statement(self) -> Basic:
        """R(layers + 1) = ∞."""
        from sympy import Eq, oo

        return Eq(reach(self.layers + 1), oo)

    def because(self) -> Said:
        """The set has no wider gap."""
        from sympy import Integer

        return Said(
            "the distances go on for good and have no gap wider than R({}) + 1 = {}, so the copies of [0, {}] moved "
            "by them leave no gap at all",
            (Integer(self.layers), Integer(self.reach + 1), Integer(self.reach)),
        )

    def holds(self, facts: Facts) -> bool:
        """[0, reach] + distances covers everything."""
        copies = (self.distances & IntegerSet.interval(0, INFINITY) | IntegerSet.of([0])).dilate(self.reach + 1)
        return IntegerSet.interval(0, INFINITY) <= copies
