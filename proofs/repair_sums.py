"""A condition that an added distance must meet: with it, sums of edges make up every distance.

Take a query and a key beyond the last break, and forget the classes: let S_h be all the distances of layer h
there. That only adds edges, and paths between such a query and key see no others. With m edges of the new
distance d in the edited layers, which all have the same S, the other layers' edges must make up D - m·d, for every
distance D between a query and a key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.integers import IntegerSet
from sparsedsl.proofs.bits import ones, progressions, sums
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Distances between query and key for which all candidates are compared at once.
MOST_SAMPLES = 64

Progressions = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Sums:
    """by_count[j]: the sums of one edge, or none, of each layer, all edited ones but j of them left out.

    Bit D of a set says whether the distance D < length is such a sum.
    """

    by_count: tuple[int, ...]
    length: int

    def complete(self, distance: int) -> bool:
        """Whether every distance is a sum, given the new one; O(layers · length / 64)."""
        reached, edited = self.by_count[-1], len(self.by_count) - 1
        for used in range(1, edited + 1):
            reached |= self.by_count[edited - used] << used * distance
            if used * distance >= self.length:
                break
        return reached & ones(self.length) == ones(self.length)

    def possible(self, most: int) -> Sequence[int]:
        """The distances up to `most`, less many of those that are not `complete`.

        Some distances D are chosen; which new distances make up D is told for all of them by strides.
        """
        import numpy as np

        arrays = [_as_array(bits, self.length) for bits in self.by_count]
        possible = np.ones(most + 1, dtype=np.bool_)
        for wanted in _spread(np.flatnonzero(~arrays[-1])):
            fills = np.zeros(most + 1, dtype=np.bool_)
            for used, made in enumerate(arrays[-2::-1], 1):
                # Entry d: made[wanted - used · d].
                strided = made[wanted::-used][: most + 1]
                fills[: len(strided)] |= strided
            possible &= fills
        return [int(each) for each in np.flatnonzero(possible)]


def sums_of(layers: Sequence[PeriodicLayer], schedule: Schedule, edited: Sequence[int]) -> Sums | None:
    """The sums for an edit of some layers of a schedule; None where the condition says nothing.

    It says nothing without a number of layers, where the edited layers differ, and without keys beyond the breaks.

    Cost
        O(layers · progressions · length / 64) time, O(layers · length / 8) bytes.
    """
    places = [schedule.at(layer) for layer in edited]
    start = max(max(*layer.form.q_breaks, *layer.form.k_breaks) for layer in layers)
    length = layers[0].units - start
    if schedule.count is None or len({layers[place] for place in places}) > 1 or length < 2:
        return None
    terms = [_distances(layer, length) for layer in layers]
    others = Counter(schedule.at(layer) for layer in range(schedule.count))
    others.subtract(places)
    reached = 1
    for place, times in others.items():
        reached = _summed(reached, terms[place], times, length)[-1]
    return Sums(tuple(_summed(reached, terms[places[0]], len(places), length)), length)


def _distances(layer: PeriodicLayer, length: int) -> Progressions:
    rows = IntegerSet.union_of([*layer.form.cells[-1][-1].rows]) | IntegerSet.of([0])
    return progressions(rows, length)


def _summed(start: int, terms: Progressions, times: int, length: int) -> list[int]:
    """start, start + S, ..., start + S + ... + S (`times` of them), below the length."""
    found = [start]
    for _ in range(times):
        (after,) = sums([found[-1]], [terms], [length])
        found.append(after)
    return found


def _as_array(bits: int, length: int) -> NDArray[np.bool_]:
    import numpy as np

    packed = np.frombuffer(bits.to_bytes(-(-length // 8), "little"), dtype=np.uint8)
    return np.unpackbits(packed, count=length, bitorder="little").astype(np.bool_)


def _spread(distances: NDArray[np.int64]) -> Iterator[int]:
    """At most `MOST_SAMPLES` of them: the ends first, then ever finer."""
    last = len(distances) - 1
    seen: set[int] = set()
    for level in range(MOST_SAMPLES.bit_length()):
        for step in range((1 << level) + 1):
            place = last * step >> level
            if last >= 0 and place not in seen and len(seen) < MOST_SAMPLES:
                seen.add(place)
                yield int(distances[place])
