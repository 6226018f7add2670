"""Reach on a layer graph: one row of bits for each unit, one union of rows for each edge."""

from __future__ import annotations

from collections.abc import Hashable

from sparsedsl.integers import INFINITY
from sparsedsl.proofs.bits import lowest, ones
from sparsedsl.proofs.course import Course, Evidence, Snapshot, Work, follow
from sparsedsl.proofs.layer_graph import LayerGraphs
from sparsedsl.proofs.schedule import Schedule


class GraphPairs:
    """All pairs of units: bit K of joined[Q] says whether Q is joined to K.

    A path may leave a unit and come back, or use an edge (Q, Q); either makes Q `looped`, and joins the pairs of
    its own tokens: all of them if the graphs look ahead, and i >= j if not.
    """

    def __init__(self, graphs: LayerGraphs, *, residual: bool) -> None:
        self.graphs, self.extent, self.residual = graphs, graphs.extent, residual
        self.joined = [1 << unit for unit in range(self.extent.units)]
        self.looped = [False] * self.extent.units

    def advance(self, layer: int) -> bool:
        """Add one layer."""
        new = self.graphs.layers[layer].above(self.joined)
        looped = [bool(row >> unit & 1) for unit, row in enumerate(new)]
        if self.residual:
            new = [after | before for after, before in zip(new, self.joined, strict=True)]
            looped = [after or before for after, before in zip(looped, self.looped, strict=True)]
        changed = new != self.joined or looped != self.looped
        self.joined, self.looped = new, looped
        return changed

    def _missing(self, query: int) -> int:
        needed = ones(self.extent.units if self.graphs.ahead else query + 1)
        return needed & ~self.joined[query]

    def _lacks_own_pairs(self, unit: int) -> bool:
        return not self.looped[unit] and self.extent.size(unit) > 1

    def snapshot(self) -> Snapshot:
        """What the layers so far join."""
        gap = INFINITY
        for query in range(self.extent.units):
            missing = self._missing(query)
            if missing:
                earlier, later = missing & ones(query + 1), missing >> query
                nearest = min(
                    query + 1 - earlier.bit_length() if earlier else INFINITY,
                    lowest(later) if later else INFINITY,
                )
                gap = min(gap, self.extent.token_gap(nearest))
            if self._lacks_own_pairs(query):
                gap = min(gap, 1)
        return Snapshot(gap == INFINITY, self._seen(), gap)

    def _own(self, unit: int) -> int:
        return self.extent.size(unit) if self.looped[unit] else self.joined[unit] >> unit & 1

    def _seen(self) -> int:
        last = self.extent.units - 1
        return (self.joined[last] & ones(last)).bit_count() * self.extent.unit + self._own(last)

    def evidence(self) -> Evidence:
        """The same in full."""
        units = self.extent.units
        row = self.joined[-1]
        distances = int(f"{row:0{units}b}"[::-1], 2)
        return Evidence(self._first_gap(), self._joined_pairs(), distances, self._own(units - 1))

    def _first_gap(self) -> tuple[int, int] | None:
        unit = self.extent.unit
        for query in range(self.extent.units):
            gaps = []
            missing = self._missing(query)
            if missing:
                gaps.append((query * unit, lowest(missing) * unit))
            if self._lacks_own_pairs(query):
                first = query * unit
                gaps.append((first, first + 1) if self.graphs.ahead else (first + 1, first))
            if gaps:
                return min(gaps)
        return None

    def last_lost_key(self) -> int | None:
        """The last unit with a token that some query does not reach; None if there is none."""
        lost = 0
        for query in range(self.extent.units):
            lost |= self._missing(query) | (1 << query if self._lacks_own_pairs(query) else 0)
        return lost.bit_length() - 1 if lost else None

    def _joined_pairs(self) -> int:
        extent = self.extent
        last = extent.units - 1
        total = 0
        for query, row in enumerate(self.joined):
            size = extent.size(query)
            others = row & ~(1 << query)
            by_last = others >> last & 1
            total += size * ((others.bit_count() - by_last) * extent.unit + by_last * extent.last_size)
            if not self.looped[query]:
                total += size * (row >> query & 1)
            else:
                total += size * size if self.graphs.ahead else size * (size + 1) // 2
        return total

    def state(self) -> Hashable:
        """What the future depends on."""
        return tuple(self.joined)

    def cost(self, layer: int) -> int:
        """About how many bytes a layer reads."""
        return (self.graphs.layers[layer].unions + 8 * self.extent.units) * (self.extent.units // 8 + 256)


def graph_course(graphs: LayerGraphs, schedule: Schedule, *, residual: bool) -> Course:
    """The course of all pairs on the layer graphs."""
    return follow(GraphPairs(graphs, residual=residual), schedule, Work(), residual=residual)
