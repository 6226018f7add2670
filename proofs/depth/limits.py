"""Steps that bound the depth from below: distances that so many layers do not join, for every number of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY, LAST_POSITION, IntegerSet
from sparsedsl.proofs.depth.growth import LONGEST_POWER
from sparsedsl.proofs.depth.recheck import is_a_sum
from sparsedsl.proofs.depth.words import Said, reach, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts


@dataclass(frozen=True, slots=True)
class Farthest:
    """No edge is longer than `distance`."""

    distances: IntegerSet
    distance: int

    lemma = "largest distance"

    def statement(self) -> Basic:
        """R(h) <= h · distance."""
        from sympy import Le

        h = whole_symbol("h")
        return Le(reach(h), h * self.distance)

    def because(self) -> Said:
        """h edges."""
        from sympy import Integer

        h = whole_symbol("h")
        return Said(
            "no edge is longer than {}, so {} edges join no distance beyond {}",
            (Integer(self.distance), h, h * self.distance),
        )

    def holds(self, facts: Facts) -> bool:
        """No member lies beyond."""
        return self.distance >= 1 and not self.distances & IntegerSet.interval(self.distance + 1, INFINITY)


@dataclass(frozen=True, slots=True)
class Mirror:
    """h · distance − missing is not a sum of h distances: each edge falls short of the largest distance."""

    distances: IntegerSet
    distance: int
    missing: int

    lemma = "mirror"

    def statement(self) -> Basic:
        """R(h) < h · distance − missing, where that is positive."""
        from sympy import Gt, Implies, Lt

        h = whole_symbol("h")
        first = h * self.distance - self.missing
        return Implies(Gt(first, 0), Lt(reach(h), first))

    def because(self) -> Said:
        """Turn every edge round."""
        from sympy import Integer

        h, d = whole_symbol("h"), whole_symbol("d")
        return Said(
            "an edge of distance {} falls short of {} by {}; {} edges to the distance {} would fall short by {} in "
            "all, which is no sum of such numbers",
            (
                d,
                Integer(self.distance),
                self.distance - d,
                h,
                h * self.distance - self.missing,
                Integer(self.missing),
            ),
        )

    def holds(self, facts: Facts) -> bool:
        """No sum of the mirrored distances is the missing number."""
        if self.distance < 1 or self.missing < 1 or self.distances & IntegerSet.interval(self.distance + 1, INFINITY):
            return False
        with_residual = self.distances & IntegerSet.interval(0, INFINITY) | IntegerSet.of([0])
        return not is_a_sum(self.missing, with_residual.negate().shift(self.distance))


@dataclass(frozen=True, slots=True)
class Carries:
    """Where R(layers) = reach is exact, no later layer adds more than base^power, base^(power + 1), ...

    From base^first on, the distances are the powers alone; below, they are at most `rest`.
    """

    distances: IntegerSet
    layers: int
    reach: int
    base: int
    power: int
    first: int
    rest: int

    lemma = "carries"

    def statement(self) -> Basic:
        """R(h + 1) <= R(h) + base^(power + i) for h = layers + (base − 1) i + j."""
        from sympy import Ge, Implies, Integer, Le, floor

        h = whole_symbol("h")
        stage = self.power + floor((h - self.layers) / Integer(self.base - 1))
        return Implies(Ge(h, self.layers), Le(reach(h + 1), reach(h) + Integer(self.base) ** stage))

    def because(self) -> Said:
        """A shortest sum has no carry."""
        from sympy import Integer

        h, t = whole_symbol("h"), whole_symbol("t")
        b = Integer(self.base)
        return Said(
            "a shortest sum takes no power {} times, since {} copies of {} are one {}. Let a = {} + 1 not be a sum "
            "of {} members. Then {} is no sum of {}: with {} in it, the rest would be a sum for a; a greater power "
            "is too large; and without them the lesser powers and the distances up to {} are too few to get so far",
            (
                b,
                b,
                b**t,
                b ** (t + 1),
                reach(h),
                h,
                reach(h) + 1 + b**t,
                h + 1,
                b**t,
                Integer(self.rest),
            ),
        )

    def holds(self, facts: Facts) -> bool:
        """The shape of the set, and the inequalities at stage 0 with their growth."""
        if self.base < 2 or not 0 <= self.first <= self.power <= LONGEST_POWER:
            return False
        lowest = self.base**self.first
        top = self.base**self.power
        listed = IntegerSet.powers(self.base) & IntegerSet.interval(lowest, INFINITY)
        far = self.distances & IntegerSet.interval(lowest, INFINITY)
        near = self.distances & IntegerSet.interval(self.rest + 1, lowest)
        missing = self.reach + 1
        return (
            lowest <= LAST_POSITION
            and far == listed
            and not near
            and 0 <= self.rest < lowest
            # a = missing: after every addition of stage i it stays below base^(power + i + 1),
            and missing < top
            # and without base^(power + i) the sum of base^first, ... with base − 1 copies and of the rest is less.
            and (self.layers + self.base - 1) * self.rest < missing + lowest
            and self.rest <= top
        )
