"""The cheapest addition of each kind that completes a pattern, for one set of layers after the other.

More edges keep every path, so that the joined pairs only grow: if a set of added pairs completes the pattern, so
does every larger one. Windows are nested, so the least one that completes is found by bisection, and as the cost
grows with the window it is the cheapest as well. Distances are not nested: each one is looked at.

A sink of c in one layer joins every query to each key K < c: one edge, and the residual connection in the other
layers. It does nothing for the keys from c on, since no path to them passes a key before them. So the least sink
reaches just beyond the last key that some query does not reach, whichever layers have it.

Most candidates are refuted by one pair that they leave unjoined, and such pairs are kept and tried first. No
candidate is accepted by them: the full check follows, and where it fails it gives the next pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sparsedsl.layers import Stack
from sparsedsl.progress import Progress
from sparsedsl.proofs.bits import ones
from sparsedsl.proofs.course import Course
from sparsedsl.proofs.repair_base import Base
from sparsedsl.proofs.repair_edits import Addition, Kind

# The largest sink: `check` follows each of its keys by itself.
MOST_SINK = 1 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """An addition that completes the pattern, where, and the token pairs that it adds to all layers there."""

    addition: Addition
    positions: tuple[int, ...]
    cost: int


@dataclass
class Search:
    """One pattern that is not complete, and the pairs of units known to refute additions."""

    base: Base
    course: Course
    progress: Progress
    tried: int = 0
    refuting: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._refuted_by(self.course)

    def best(self, kind: Kind) -> Found | None:
        """The cheapest addition of a kind over all sets of layers; the first of them if several cost the same.

        There always is a window: it can grow to the full causal pattern.
        """
        best: Found | None = None
        for positions in self.targets():
            found = self._found(kind, positions, None if best is None else best.cost)
            if found is not None and (best is None or found.cost < best.cost):
                best = found
        return best

    def _found(self, kind: Kind, positions: tuple[int, ...], limit: int | None) -> Found | None:
        if kind == "distance":
            return self._distance(positions, limit)
        amount = self._window(positions) if kind == "window" else self._sink
        if kind == "sink" and amount > MOST_SINK:
            return None
        addition = Addition(kind, amount)
        return Found(addition, positions, self.cost(addition, positions))

    def targets(self) -> Iterator[tuple[int, ...]]:
        """The sets of layers that one edit changes: each layer, all layers with one pattern, all layers."""
        places = self.base.places()
        seen = set()
        pattern = self.base.pattern
        same = [
            tuple(place for place in places if isinstance(pattern, Stack) and pattern[place] == each)
            for each in (pattern.patterns if isinstance(pattern, Stack) else ())
        ]
        for positions in (*((place,) for place in places), *same, tuple(places)):
            if positions not in seen:
                seen.add(positions)
                yield positions

    # --- is it complete?

    def _survives(self, addition: Addition, positions: Sequence[int]) -> bool:
        """Whether no known pair refutes an addition."""
        self.tried += 1
        self.progress.at(self.tried)
        for place, (q, k) in enumerate(self.refuting):
            if not self.base.joins(q, k, addition, positions):
                # What refuted one candidate refutes its neighbours: try it first.
                self.refuting.insert(0, self.refuting.pop(place))
                return False
        return True

    def _complete(self, addition: Addition, positions: Sequence[int]) -> bool:
        course = self.base.course(addition, positions)
        self._refuted_by(course)
        return course.evidence.first_gap is None

    def _refuted_by(self, course: Course) -> None:
        gap = course.evidence.first_gap
        if gap is None:
            return
        unit, units = self.base.extent.unit, self.base.extent.units
        last = course.evidence.last
        farthest = (ones(units) & ~last).bit_length() - 1
        for q, k in ((gap[0] // unit, gap[1] // unit), (units - 1, units - 1 - max(farthest, 0))):
            # A pair inside one unit is left to the full check.
            if q != k and (q, k) not in self.refuting:
                self.refuting.append((q, k))

    def cost(self, addition: Addition, positions: Sequence[int]) -> int:
        """The token pairs added to all the layers, each in the head that needs the fewest."""
        layers = Counter(self.base.heads_at(place) for place in positions)
        return sum(
            count * min(self.base.extra_pairs(head, addition) for head in heads) for heads, count in layers.items()
        )

    def _window(self, positions: tuple[int, ...]) -> int:
        # Invariant: no window below `lo` completes. The least one that survives is checked in full.
        lo, most = 1, self.base.extent.units
        while True:
            window = least(lambda each: self._survives(Addition("window", each), positions), lo, most)
            if window == most or self._complete(Addition("window", window), positions):
                return window
            lo = window + 1

    @cached_property
    def _sink(self) -> int:
        key = self.base.last_lost_key()
        assert key is not None  # the pattern is not complete
        return key + 1

    # --- distances

    def _distance(self, positions: tuple[int, ...], limit: int | None) -> Found | None:
        import numpy as np

        # A path from q down to k has no edge longer than q - k: the nearest pair that is not joined is a bound.
        extent = self.base.extent
        most = min(-(-self.course.snapshots[-1].gap // extent.unit), extent.units - 1)
        sums = self.base.sums(positions)
        possible = range(most + 1) if sums is None else sums.possible(most)
        layers = Counter(self.base.heads_at(place) for place in positions)
        costs = np.zeros(len(possible), dtype=np.int64)
        for heads, count in layers.items():
            each = [self.base.extra_on_diagonals(head, possible) for head in heads]
            costs += count * np.minimum.reduce(each)
        for place in np.argsort(costs, kind="stable"):
            cost, distance = int(costs[place]), int(possible[place])
            if limit is not None and cost >= limit:
                return None
            # A distance that is there already changes nothing.
            if not cost or not (sums is None or sums.complete(distance)):
                continue
            addition = Addition("distance", distance)
            if self._survives(addition, positions) and self._complete(addition, positions):
                return Found(addition, positions, cost)
        return None


def least(holds: Callable[[int], bool], lo: int, most: int) -> int:
    """The least x in [lo, most] for which it holds, if it holds from there on, and for `most`.

    >>> least(lambda x: x * x >= 50, 1, 100)
    8

    """
    hi = most
    while lo < hi:
        middle = (lo + hi) // 2
        if holds(middle):
            hi = middle
        else:
            lo = middle + 1
    return hi
