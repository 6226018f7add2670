"""A chain of steps about one set of distances, and the curve that it proves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from sparsedsl.proofs.depth.curves import Curve, Endless, Geometric, Run, runs_through
from sparsedsl.proofs.depth.facts import Facts
from sparsedsl.proofs.depth.growth import Counted, Covering, Powers, Rise
from sparsedsl.proofs.depth.limits import Carries, Farthest, Mirror

Growth = Rise | Powers | Covering
Limit = Farthest | Mirror | Carries


@dataclass(frozen=True, slots=True)
class Upper:
    """What so many layers join at least: counted at first, then by one or more inductions."""

    counted: Counted
    growth: tuple[Growth, ...]

    def curve(self) -> Curve:
        """The lengths, reach + 1."""
        first = self.growth[0].layers
        table = runs_through(tuple(value + 1 for value in self.counted.values[:first]))
        rises = tuple(Run(s.layers, s.reach + 1, s.slope) for s in self.growth if isinstance(s, Rise))
        last = self.growth[-1]
        if isinstance(last, Rise):
            return Curve((*table, *rises))
        if isinstance(last, Powers):
            return Curve((*table, *rises), _geometric(last))
        table = runs_through(tuple(value + 1 for value in self.counted.values[: first + 1])) if not rises else table
        solid = Run(last.layers, last.reach + 1, 0)
        return Curve((*table, *rises, *([solid] if rises else [])), Endless(last.layers + 1))

    def holds(self, facts: Facts) -> bool:
        """Each step, and each where the one before has led."""
        first = self.growth[0]
        same = all(step.distances == self.counted.distances for step in self.growth)
        starts = first.layers < len(self.counted.values) and first.reach == self.counted.values[first.layers]
        joined = all(
            isinstance(one, Rise)
            and one.layers < other.layers
            and other.reach <= one.reach + one.slope * (other.layers - one.layers)
            for one, other in pairwise(self.growth)
        )
        return same and starts and joined and facts.inside(self.counted.distances)


@dataclass(frozen=True, slots=True)
class Lower:
    """What so many layers join at most: counted at first, then by one lemma for every number of layers."""

    counted: Counted
    limit: Limit | None

    def curve(self) -> Curve:
        """The lengths, reach + 1; without a lemma, nothing is said after the counted layers."""
        table = tuple(value + 1 for value in self.counted.values)
        last, limit = len(table) - 1, self.limit
        if limit is None:
            return Curve(runs_through(table), Endless(last + 1))
        if isinstance(limit, Carries):
            return Curve(runs_through(table[:-1]), _geometric(limit))
        missing = limit.missing if isinstance(limit, Mirror) else -1
        if table[-1] == last * limit.distance - missing:
            return Curve((*runs_through(table[:-1]), Run(last, table[-1], limit.distance)))
        following = (last + 1) * limit.distance - missing
        return Curve((*runs_through(table), Run(last + 1, following, limit.distance)))

    def holds(self, facts: Facts) -> bool:
        """The steps are about one set, and the lemma starts where counting ends."""
        limit = self.limit
        same = limit is None or limit.distances == self.counted.distances
        starts = not isinstance(limit, Carries) or (
            limit.layers == len(self.counted.values) - 1 and limit.reach == self.counted.values[-1]
        )
        return same and starts and facts.covered_by(self.counted.distances)


def _geometric(step: Powers | Carries) -> Geometric:
    return Geometric(step.layers, step.reach + 1, step.base**step.power, step.base, step.base - 1)
