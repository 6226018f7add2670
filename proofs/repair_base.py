"""The pattern that a repair starts from, on units: whom its layers read, and what an addition costs or joins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from sparsedsl.errors import Unsupported
from sparsedsl.integers import IntegerSet
from sparsedsl.layers import PerHead, Stack
from sparsedsl.normal import normalise_predicate
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.bits import ones, periodic_bits
from sparsedsl.proofs.counts import form_counts, graph_counts
from sparsedsl.proofs.course import Course, Part
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.graph_reach import GraphPairs, graph_course
from sparsedsl.proofs.layer_graph import LayerGraph, LayerGraphs, layer_graphs
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.problem import problem_of
from sparsedsl.proofs.reach import AbsoluteKey, RegularKeys, periodic_course
from sparsedsl.proofs.repair_edits import Addition, edited, with_addition
from sparsedsl.proofs.repair_sums import Sums, sums_of
from sparsedsl.proofs.schedule import Schedule, common_forms, schedule_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UnitLayer = PeriodicLayer | LayerGraph


@dataclass(slots=True)
class Base:
    """The layers of a pattern that looks back only, on the units of one length.

    `layers` are the schedule's patterns (heads united), `heads` every head by itself. Both are periodic, or both
    are graphs.
    """

    pattern: Pattern | PerHead | Stack
    schedule: Schedule
    extent: Extent
    layers: tuple[UnitLayer, ...]
    heads: dict[Pattern, UnitLayer]
    _pairs: dict[tuple[Pattern, Addition | None], int] = field(default_factory=dict)

    def degree(self) -> int:
        """The keys of the worst row, in some layer, its heads united."""
        layers = self._periodic()
        if layers:
            return max(form_counts(layer, self.extent).degree for layer in layers)
        graphs = LayerGraphs(self._graphs(), self.extent, ahead=False)
        return max(graph_counts(graphs, place).degree for place in range(len(graphs.layers)))

    def places(self) -> range:
        """The layers that can be edited one by one: those of a stack, or the one pattern of all layers."""
        return range(len(self.pattern)) if isinstance(self.pattern, Stack) else range(1)

    def heads_at(self, place: int) -> tuple[Pattern, ...]:
        """The heads of a layer."""
        layer = self.pattern[place] if isinstance(self.pattern, Stack) else self.pattern
        return layer.heads if isinstance(layer, PerHead) else (layer,)

    def is_edited(self, layer: int, positions: Collection[int]) -> bool:
        """Whether an edit at these places changes a layer of the schedule."""
        return not isinstance(self.pattern, Stack) or layer in positions

    def joins(self, q: int, k: int, addition: Addition, positions: Collection[int]) -> bool:
        """Whether the edited layers join unit q to unit k, two different ones; O(layers) sets of readers."""
        joined, layer = 1 << k, 0
        while layer != self.schedule.count:
            after = joined | self.layers[self.schedule.at(layer)].readers(joined)
            if self.is_edited(layer, positions):
                after |= addition.readers(joined, self.extent.units)
            if after >> q & 1:
                return True
            if self.schedule.endless and after == joined:
                return False
            joined, layer = after, layer + 1
        return False

    def course(self, addition: Addition | None = None, positions: Collection[int] = ()) -> Course:
        """What all layers join, edited or not: the check itself."""
        if self._graphs():
            return self._graph_course(addition, positions)
        changed = self.pattern
        if addition is not None:
            heads = [0] * len(self.places())
            changed = edited(self.pattern, addition, self.extent.unit, positions=positions, heads=heads)
        problem = problem_of(changed, seq_len=self.extent.seq_len, layers=self.schedule.count)
        return periodic_course(problem.periodic, _ending(problem.schedule), problem.extent, residual=True)

    def _graph_course(self, addition: Addition | None, positions: Collection[int]) -> Course:
        # Rows of bits take an addition directly: the pattern's own conditions are not evaluated again.
        layers, schedule = self._graphs(), self.schedule
        if addition is not None:
            each = [layers[schedule.at(place)] for place in self.places()]
            layers = tuple(
                _added(layer, addition) if self.is_edited(place, positions) else layer
                for place, layer in enumerate(each)
            )
            patterns = tuple(schedule.patterns[schedule.at(place)] for place in self.places())
            schedule = replace(schedule, patterns=patterns)
        graphs = LayerGraphs(layers, self.extent, ahead=False)
        return graph_course(graphs, _ending(schedule), residual=True)

    def _periodic(self) -> tuple[PeriodicLayer, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, PeriodicLayer))

    def _graphs(self) -> tuple[LayerGraph, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, LayerGraph))

    def sums(self, positions: Sequence[int]) -> Sums | None:
        """The condition on added distances; see `sums_of`."""
        layers = self._periodic()
        edited = positions if isinstance(self.pattern, Stack) else range(self.schedule.count or 0)
        return sums_of(layers, self.schedule, edited) if layers else None

    def last_lost_key(self) -> int | None:
        """The last unit with a token that some query does not reach through all layers; None if complete."""
        layers = self._periodic()
        if not layers:
            return self._last_lost_in_graphs()
        start = max(max(*layer.form.q_breaks, *layer.form.k_breaks) for layer in layers)
        units = self.extent.units
        if start < units:
            regular = RegularKeys(layers, self.extent, start=start, residual=True)
            self._through_all(regular)
            key = regular.last_lost_key()
            if key is not None:
                return key
        for key in range(min(start, units) - 1, -1, -1):
            absolute = AbsoluteKey(layers, self.extent, key=key, residual=True)
            self._through_all(absolute)
            if not absolute.snapshot().complete:
                return key
        return None

    def _through_all(self, part: Part) -> None:
        layer = 0
        while layer != self.schedule.count:
            changed = part.advance(self.schedule.at(layer))
            layer += 1
            if self.schedule.endless and not changed:
                return

    def _last_lost_in_graphs(self) -> int | None:
        pairs = GraphPairs(LayerGraphs(self._graphs(), self.extent, ahead=False), residual=True)
        self._through_all(pairs)
        return pairs.last_lost_key()

    # --- cost

    def extra_pairs(self, head: Pattern, addition: Addition) -> int:
        """The token pairs that a head gains."""
        if addition.kind == "distance":
            return int(self.extra_on_diagonals(head, [addition.amount])[0])
        return self._pairs_of(head, addition) - self._pairs_of(head, None)

    def extra_on_diagonals(self, head: Pattern, distances: Sequence[int]) -> NDArray[np.int64]:
        """For each distance in units the token pairs that a head lacks there; O(distances), and more for those
        that occur in the head at all.
        """
        import numpy as np

        extent, layer = self.extent, self.heads[head]
        each = np.asarray(distances, dtype=np.int64)
        last = extent.units - 1
        lacking: NDArray[np.int64] = extent.unit * (
            np.maximum(last - each, 0) * extent.unit + (each <= last) * extent.last_size
        )
        own = [size * (size + 1) // 2 for size in (extent.unit, extent.last_size)]
        lacking[each == 0] = last * own[0] + own[1]
        for place in np.flatnonzero(_occurring(layer, extent.units).contains(each)):
            distance = int(each[place])
            queries = self._queries_at(layer, distance)
            by_last = queries >> last & 1
            whole = queries.bit_count() - by_last
            if distance:
                lacking[place] -= extent.unit * (whole * extent.unit + by_last * extent.last_size)
            else:
                lacking[place] -= whole * own[0] + by_last * own[1]
        return lacking

    def _pairs_of(self, head: Pattern, addition: Addition | None) -> int:
        key = (head, addition)
        if key not in self._pairs:
            layer = self.heads[head]
            if isinstance(layer, LayerGraph):
                changed = layer if addition is None else _added(layer, addition)
                counts = graph_counts(LayerGraphs((changed,), self.extent, ahead=False), 0)
            elif addition is None:
                counts = form_counts(layer, self.extent)
            else:
                text = with_addition(head, addition, self.extent.unit)
                form = normalise_predicate(text.predicate(), where=str(text)).refined(self.extent.unit)
                counts = form_counts(PeriodicLayer(form, self.extent.units), self.extent)
            self._pairs[key] = counts.pairs
        return self._pairs[key]

    def _queries_at(self, layer: UnitLayer, distance: int) -> int:
        """The units that read the unit `distance` before them."""
        units = self.extent.units
        if isinstance(layer, LayerGraph):
            digits = ("1" if row >> query & 1 else "0" for query, row in enumerate(layer.rows[distance:]))
            return int("".join(digits)[::-1], 2) << distance
        found = 0
        for (q_piece, k_piece), cell in layer.form.pieces():
            lo, hi = max(q_piece[0], k_piece[0] + distance), min(q_piece[1], k_piece[1] + distance, units)
            if lo < hi:
                word = sum(1 << residue for residue, row in enumerate(cell.rows) if distance in row)
                found |= periodic_bits(word, cell.period, hi) & ~ones(lo)
        return found


def _ending(schedule: Schedule) -> Schedule:
    """The same layers; how many more it would take is not asked."""
    return schedule if schedule.count is None else replace(schedule, endless=False)


def _occurring(layer: UnitLayer, units: int) -> IntegerSet:
    """The distances in units of some pair of the layer, and perhaps some others."""
    if isinstance(layer, LayerGraph):
        return IntegerSet.interval(0, units)
    return IntegerSet.union_of([row for _, cell in layer.form.pieces() for row in cell.rows])


def _added(layer: LayerGraph, addition: Addition) -> LayerGraph:
    return LayerGraph(tuple(row | addition.row(query) for query, row in enumerate(layer.rows)))


def base_of(pattern: Pattern | PerHead | Stack, *, seq_len: int, layers: int | None) -> Base:
    """The pattern on the largest units in which all its heads are told.

    Raises
        Unsupported: the pattern looks ahead.
    """
    schedule = schedule_of(pattern, layers)
    problem = problem_of(pattern, seq_len=seq_len, layers=layers)
    if problem.ahead:
        raise Unsupported(
            "repair mends patterns that look back only",
            got="a pattern that reads keys after the query",
            expected="k <= q in every layer",
            hint="(...) & causal()",
        )
    each = list(pattern) if isinstance(pattern, Stack) else [pattern]
    heads = tuple(dict.fromkeys(head for layer in each for head in _heads(layer)))
    seq_len = problem.extent.seq_len
    forms = None if problem.graphs is not None else common_forms((*schedule.patterns, *heads))
    if forms is None:
        # The rows of seeded choices are slow to draw: not twice.
        drawn = problem.graphs if heads == schedule.patterns else None
        graphs = drawn or layer_graphs(heads, seq_len)
        rows = dict(zip(heads, graphs.layers, strict=True))
        united = {layer: _united([rows[head] for head in _heads(layer)]) for layer in each}
        distinct = pattern.patterns if isinstance(pattern, Stack) else (pattern,)
        return Base(pattern, schedule, graphs.extent, tuple(united[layer] for layer in distinct), dict(rows))
    extent = Extent(seq_len, forms[0].unit)
    periodic = [PeriodicLayer(form, extent.units) for form in forms]
    count = len(schedule.patterns)
    return Base(pattern, schedule, extent, tuple(periodic[:count]), dict(zip(heads, periodic[count:], strict=True)))


def _heads(layer: Pattern | PerHead) -> tuple[Pattern, ...]:
    return layer.heads if isinstance(layer, PerHead) else (layer,)


def _united(graphs: list[LayerGraph]) -> LayerGraph:
    rows = zip(*(graph.rows for graph in graphs), strict=True)
    return LayerGraph(tuple(reduce(or_, row) for row in rows))
