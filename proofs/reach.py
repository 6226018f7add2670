"""Reach by sets of distances: causal patterns with a normal form, exact at token granularity.

Let C_h be the unit pairs joined by h layers with at least one edge, and J_h = C_h ∪ {(Q, Q)} with the residual
connection, J_h = C_h without. One more layer E on top gives C = E∘J ∪ C (E∘J without the residual connection).

Units may be blocks. An edge between different blocks joins all their tokens, so a path may pass through any token
of a block on its way, and tokens of different blocks are joined iff their blocks are in J. Inside a block the
causal cut leaves the pairs i >= j; these are joined iff (Q, Q) is in C, a token with itself iff (Q, Q) is in J.

Paths of a causal pattern stay between key and query. Beyond the last break every row is periodic, so for keys
there J is one set of distances for each residue of the query (`RegularKeys`). Each key before the last break has
its own set of queries (`AbsoluteKey`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from math import lcm

from sparsedsl.errors import Unsupported
from sparsedsl.integers import INFINITY
from sparsedsl.proofs.bits import below, lowest_missing, ones, progressions, steps_below, sums
from sparsedsl.proofs.course import Course, Evidence, Part, Snapshot, Work, follow, merged
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.schedule import Schedule

# Without the residual connection and without a number of layers, what this many layers join is shown.
LAYERS_SHOWN = 64
# Sets of more bits than this, all classes together, are refused: 512 MiB.
MOST_BITS = 1 << 32


class RegularKeys:
    """The pairs (Q, K) with K at or beyond the last break.

    Let s = Q mod period, the class of Q. The distance d is in set s iff (Q, Q - d) is joined, for every Q of class s
    with Q - d >= start. Distances below `base` are joined in every class (so is the residual connection there);
    the sets hold the distances from `base` on.
    """

    def __init__(self, layers: Sequence[PeriodicLayer], extent: Extent, *, start: int, residual: bool) -> None:
        self.extent, self.start, self.residual = extent, start, residual
        cells = [layer.form.cells[-1][-1] for layer in layers]
        self.period = lcm(*(cell.period for cell in cells))
        length = extent.units - start
        self.rows = [[progressions(cell.row(s), length) for s in range(self.period)] for cell in cells]
        self.loops = [[0 in cell.row(s) for s in range(self.period)] for cell in cells]
        # Class s has the distances 0, ..., limits[s] - 1: up to the distance of its last query from `start`.
        self.limits = [(last - start + 1 if (last := self._last_query(s)) >= start else 0) for s in range(self.period)]
        self.sets = [1 if limit else 0 for limit in self.limits]
        self.looped = [False] * self.period
        self.base = 0
        # With all distances up to this one joined, one more layer reads no distance below.
        self.reach = max(
            (first + step * (count - 1) for rows in self.rows for row in rows for first, step, count in row),
            default=0,
        )
        self.solid = 1

    def _last_query(self, s: int) -> int:
        last = self.extent.units - 1
        return last - (last - s) % self.period

    def advance(self, layer: int) -> bool:
        """Add one layer."""
        self._check_memory(layer)
        limits = [max(0, limit - self.base) for limit in self.limits]
        new = sums(self.sets, self.rows[layer], limits)
        loops = self.loops[layer]
        if self.residual:
            new = [after | before for after, before in zip(new, self.sets, strict=True)]
            looped = [a or b for a, b in zip(self.looped, loops, strict=True)]
        else:
            looped = [bool(bits & 1) for bits in new]
        changed = new != self.sets or looped != self.looped
        self.sets, self.looped = new, looped
        self._trim(limits)
        return changed

    def _trim(self, limits: list[int]) -> None:
        """Note the least distance that is missing somewhere, and drop the distances that no layer will read."""
        missing = [
            gap
            for bits, limit in zip(self.sets, limits, strict=True)
            if limit and (gap := lowest_missing(bits)) < limit
        ]
        self.solid = self.base + min(missing) if missing else INFINITY
        if self.residual and missing and min(missing) > self.reach:
            by = min(missing) - self.reach
            self.base += by
            self.sets = [bits >> by for bits in self.sets]

    def snapshot(self) -> Snapshot:
        """What the layers so far join."""
        extent = self.extent
        gap = INFINITY if self.solid == INFINITY else extent.token_gap(self.solid)
        if gap > 1 and any(not looped and self._queries_of(s, with_pairs=True) for s, looped in enumerate(self.looped)):
            gap = 1
        return Snapshot(gap == INFINITY, self._seen(), gap)

    def _queries_of(self, s: int, *, with_pairs: bool) -> int:
        """How many queries from `start` on have class s; `with_pairs`: and more than one token."""
        end = self.extent.units
        if with_pairs:
            if self.extent.unit == 1:
                return 0
            end -= self.extent.last_size == 1
        first = self.start + (s - self.start) % self.period
        return max(0, -((first - end) // self.period))

    def _seen(self) -> int:
        last = self.extent.units - 1
        if last < self.start:
            return 0
        s = last % self.period
        joined = self.sets[s].bit_count() + min(self.base, self.limits[s])
        own = bool(self.base or self.sets[s] & 1)
        return (joined - own) * self.extent.unit + self._own(s, own)

    def _own(self, s: int, own: bool) -> int:
        return self.extent.last_size if self.looped[s] else int(own)

    def _full(self, s: int) -> int:
        return below(ones(self.base) | self.sets[s] << self.base, self.limits[s])

    def evidence(self) -> Evidence:
        """The same in full."""
        joined = sum(self._joined(s, self._full(s)) for s in range(self.period) if self.limits[s])
        last = self.extent.units - 1
        if last < self.start:
            return Evidence(self._first_gap(), joined, 0, 0)
        s = last % self.period
        return Evidence(self._first_gap(), joined, self._full(s), self._own(s, bool(self._full(s) & 1)))

    def _first_gap(self) -> tuple[int, int] | None:
        unit = self.extent.unit
        gaps = []
        nearest = [lowest_missing(self._full(s)) for s in range(self.period)]
        # The least missing distance of a class has its first query.
        lost = [
            (self._first_query(s, self.start + distance), s)
            for s, (distance, limit) in enumerate(zip(nearest, self.limits, strict=True))
            if distance < limit
        ]
        if lost:
            # That query's farthest missing key comes first.
            query, s = min(lost)
            distance = (ones(query - self.start + 1) & ~self._full(s)).bit_length() - 1
            gaps.append((query * unit, (query - distance) * unit))
        for s, (looped, limit) in enumerate(zip(self.looped, self.limits, strict=True)):
            if limit and not looped and self._queries_of(s, with_pairs=True):
                query = self._first_query(s, self.start)
                gaps.append((query * unit + 1, query * unit))
        return min(gaps, default=None)

    def last_lost_key(self) -> int | None:
        """The last unit from `start` on with a token that some query does not reach; None if there is none."""
        keys = []
        for s in range(self.period):
            # The last query of a class is the one whose nearest missing key is last.
            distance = lowest_missing(self._full(s))
            if distance < self.limits[s]:
                keys.append(self._last_query(s) - distance)
            if not self.looped[s] and (count := self._queries_of(s, with_pairs=True)):
                keys.append(self._first_query(s, self.start) + (count - 1) * self.period)
        return max(keys, default=None)

    def _first_query(self, s: int, least: int) -> int:
        return least + (s - least) % self.period

    def _joined(self, s: int, bits: int) -> int:
        """Joined token pairs with a query of class s."""
        extent = self.extent
        unit, last = extent.unit, extent.units - 1
        whole = self._queries_of(s, with_pairs=False)
        earlier = bits & ~1
        total = 0
        own = bits & 1
        pairs = unit * (unit + 1) // 2 if self.looped[s] else unit * own
        if last % self.period == s:
            whole -= 1
            total += earlier.bit_count() * unit * extent.last_size
            size = extent.last_size
            total += size * (size + 1) // 2 if self.looped[s] else size * own
        total += whole * pairs
        # Every whole unit Q = start + d, start + d + period, ... of the class sees the unit d before it.
        end = (last - 1) - (last - 1 - s) % self.period - self.start
        if end > 0:
            total += steps_below(below(earlier, end + 1), end, self.period) * unit * unit
        return total

    def state(self) -> Hashable:
        """What the future depends on."""
        return tuple(self.sets), tuple(self.looped), self.base

    def cost(self, layer: int) -> int:
        """About how many bytes a layer reads."""
        levels = max((count.bit_length() for row in self.rows[layer] for _, _, count in row), default=1)
        terms = sum(len(row) for row in self.rows[layer])
        size = sum(bits.bit_length() for bits in self.sets) // 8
        return (size // self.period + 256) * (terms * 4 + (levels + 8) * self.period)

    def _check_memory(self, layer: int) -> None:
        bits = 0
        for row, limit, s in zip(self.rows[layer], self.limits, range(self.period), strict=True):
            ends = [last + self.sets[(s - last) % self.period].bit_length() for last in map(_last_term, row)]
            bits += min(limit - self.base, max(ends, default=0))
        if bits > MOST_BITS:
            raise Unsupported(
                "the check takes more memory than its limit",
                got=f"{self.extent.units} units and a period of {self.period}: {bits >> 33} GiB",
                expected=f"at most {MOST_BITS >> 33 or 0.5} GiB",
                hint="seq_len=131072 (--seq-len 131072)",
            )


def _last_term(progression: tuple[int, int, int]) -> int:
    first, step, count = progression
    return first + step * (count - 1)


class AbsoluteKey:
    """The pairs (Q, key) of one key before the last break: bit Q says whether Q is joined to it."""

    def __init__(self, layers: Sequence[PeriodicLayer], extent: Extent, *, key: int, residual: bool) -> None:
        self.layers, self.extent, self.key, self.residual = layers, extent, key, residual
        self.queries = 1 << key
        self.looped = False

    def advance(self, layer: int) -> bool:
        """Add one layer."""
        new = self.layers[layer].readers(self.queries)
        if self.residual:
            new |= self.queries
            looped = self.looped or self.layers[layer].loops_at(self.key)
        else:
            looped = bool(new >> self.key & 1)
        changed = new != self.queries or looped != self.looped
        self.queries, self.looped = new, looped
        return changed

    def snapshot(self) -> Snapshot:
        """What the layers so far join."""
        extent, key = self.extent, self.key
        distance = lowest_missing(self.queries >> key)
        gap = extent.token_gap(distance) if distance < extent.units - key else INFINITY
        if gap > 1 and not self.looped and extent.size(key) > 1:
            gap = 1
        return Snapshot(gap == INFINITY, self._seen(), gap)

    def _own(self) -> int:
        return self.extent.size(self.key) if self.looped else self.queries >> self.key & 1

    def _seen(self) -> int:
        last = self.extent.units - 1
        return self._own() if self.key == last else (self.queries >> last & 1) * self.extent.unit

    def evidence(self) -> Evidence:
        """The same in full."""
        extent, key = self.extent, self.key
        unit, last = extent.unit, extent.units - 1
        gaps = []
        distance = lowest_missing(self.queries >> key)
        if distance <= last - key:
            gaps.append(((key + distance) * unit, key * unit))
        if not self.looped and extent.size(key) > 1:
            gaps.append((key * unit + 1, key * unit))
        size = extent.size(key)
        joined = size * (size + 1) // 2 if self.looped else size * (self.queries >> key & 1)
        later = self.queries >> key + 1
        if key < last:
            seen_by_last = self.queries >> last & 1
            joined += ((later.bit_count() - seen_by_last) * unit + seen_by_last * extent.last_size) * unit
        own = self._own() if key == last else 0
        return Evidence(min(gaps, default=None), joined, (self.queries >> last & 1) << (last - key), own)

    def state(self) -> Hashable:
        """What the future depends on."""
        return self.queries, self.looped

    def cost(self, layer: int) -> int:
        """About how many bytes a layer reads."""
        form = self.layers[layer].form
        rows = sum(len(cell.rows) for row in form.cells for cell in row)
        return rows * 8 * (256 + self.extent.units // 8)


def periodic_course(layers: Sequence[PeriodicLayer], schedule: Schedule, extent: Extent, *, residual: bool) -> Course:
    """The course of all pairs of a causal pattern with a normal form.

    Cost
        Each layer: time O(P · n / 64 · (progressions + log2 n)) for n units and period P, and as much without
        the factor P for each unit before the last break; memory O(P · n / 8) bytes. Once all distances up to
        the longest edge are joined, the part that is joined everywhere costs nothing any more.
    """
    units = extent.units
    if not residual:
        # With an edge from every unit to itself in every layer, the residual connection adds nothing. With one
        # such edge missing, that token is never joined to itself, whatever the number of layers.
        residual = all(layer.loops == ones(units) for layer in layers)
        if not residual and schedule.count is None:
            schedule = replace(schedule, count=LAYERS_SHOWN)
    work = Work()
    start = max(0, *(max(*layer.form.q_breaks, *layer.form.k_breaks) for layer in layers))
    parts: Iterator[Part] = (
        AbsoluteKey(layers, extent, key=key, residual=residual) for key in range(min(start, units))
    )
    if start < units:
        parts = chain([RegularKeys(layers, extent, start=start, residual=residual)], parts)
    joint: Course | None = None
    for part in parts:
        # Once one part is known to stay incomplete, the depth of the others does not matter.
        search = residual and (joint is None or joint.depth is not None)
        course = follow(part, schedule, work, residual=residual, search=search)
        joint = course if joint is None else merged(joint, course, residual=residual)
    assert joint is not None  # there is at least one unit, so at least one part
    return joint
