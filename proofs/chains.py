"""Chains of sets for certificates: what is joined after 1, 2, ... layers of a pattern that only looks back.

Units are tokens or blocks, as in `reach`. Beyond `start` the edges repeat with a period, so that what a query sees
there is one set of distances for each class of queries; each earlier key has its own set of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import gcd, lcm

from sparsedsl.index import Predicate
from sparsedsl.integers import IntegerSet
from sparsedsl.proofs.bits import lowest, lowest_missing, members, ones, periodic_bits, progressions, sums
from sparsedsl.proofs.extent import Extent
from sparsedsl.rows import Rows, block_size, repetition

# Beyond so many classes each class is added up by itself.
_FEW_CLASSES = 16

Terms = tuple[tuple[int, int, int], ...]


class BackLayers:
    """The layers of a pattern that only looks back, on the units of one length."""

    def __init__(self, predicates: Sequence[Predicate], seq_len: int) -> None:
        self.predicates = tuple(predicates)
        self.extent = Extent(seq_len, gcd(*map(block_size, predicates)) or 1)
        self.units = self.extent.units
        self.layers = [Rows(each, unit=self.extent.unit, count=self.units) for each in predicates]
        found = [repetition(rows.predicate) for rows in self.layers]
        known = [each for each in found if each is not None]
        self.periodic = len(known) == len(found)
        self.period = lcm(*(period for period, _ in known))
        self.start = min(self.units, max((start for _, start in known), default=0))
        self.columns: dict[tuple[int, int], int] = {}

    @property
    def classes(self) -> int:
        """The number of classes with a query beyond `start`."""
        return min(self.period, self.units - self.start)

    def last_queries(self) -> range:
        """One query for each class, the last one."""
        return range(self.units - self.classes, self.units)

    @cached_property
    def terms(self) -> list[dict[int, Terms]]:
        """For each layer and class (query mod period): the distances to keys beyond `start` as progressions."""
        return [
            {query % self.period: self._terms(rows, query) for query in self.last_queries()} for rows in self.layers
        ]

    def _terms(self, rows: Rows, query: int) -> Terms:
        back = rows.row_set(query).negate().shift(query)
        return progressions(back & IntegerSet.interval(0, query + 1), query - self.start + 1)

    def column(self, layer: int, key: int) -> int:
        """The readers of a key before `start`."""
        if (layer, key) not in self.columns:
            self.columns[layer, key] = self.layers[layer].column(key)
        return self.columns[layer, key]

    def readers(self, layer: int, keys: int) -> int:
        """The units with an edge to some unit of `keys`."""
        found = 0
        for key in members(keys & ones(self.start)):
            found |= self.column(layer, key)
        later = keys >> self.start
        for s, terms in self.terms[layer].items() if later else ():
            (reached,) = sums([later], [terms], [self.units - self.start])
            word = 1 << (s - self.start) % self.period
            found |= (reached & periodic_bits(word, self.period, self.units - self.start)) << self.start
        return found

    def keys(self, layer: int, queries: int) -> int:
        """The units that some unit of `queries` has an edge to."""
        found = sum(1 << key for key in range(self.start) if self.column(layer, key) & queries)
        last = self.units - 1
        # Mirrored at the last unit, keys lie to the right of their queries.
        mirrored = _mirrored(queries >> self.start, self.units - self.start)
        reached = 0
        for s, terms in self.terms[layer].items():
            word = 1 << (last - s) % self.period
            part = mirrored & periodic_bits(word, self.period, self.units - self.start)
            if part:
                reached |= sums([part], [terms], [self.units - self.start])[0]
        return found | _mirrored(reached, self.units - self.start) << self.start

    def loops_at(self, layer: int, unit: int) -> bool:
        """Whether a unit has an edge to itself."""
        return bool(self.layers[layer].row(unit) >> unit & 1)


def _mirrored(bits: int, length: int) -> int:
    return int(f"{bits:0{length}b}"[::-1], 2) if length else 0


class DistanceChain:
    """What all queries see after some layers: sets of distances by class, and sets of queries for early keys."""

    def __init__(self, back: BackLayers, *, residual: bool) -> None:
        self.back, self.residual = back, residual
        self.queries = [1 << key for key in range(back.start)]
        self.limits = [0] * back.period
        for query in back.last_queries():
            self.limits[query % back.period] = query - back.start + 1
        self.sets = [1 if limit else 0 for limit in self.limits]
        self.fresh = True
        # Units whose own pairs are joined: by early key, by class.
        self.early_loops = [False] * back.start
        self.loops = [False] * back.period

    def advance(self, layer: int) -> bool:
        """Add one layer; whether anything changed."""
        back = self.back
        rows = [back.terms[layer].get(s, ()) for s in range(back.period)]
        if self.fresh:
            # Before the first layer a query sees itself, and one edge leads to what it reads.
            new = [sums([1], [row], [limit])[0] for row, limit in zip(rows, self.limits, strict=True)]
        elif self.residual and back.classes > _FEW_CLASSES:
            new = [self._above(s, rows[s]) for s in range(back.period)]
        else:
            new = sums(self.sets, rows, self.limits)
        queries = [back.readers(layer, each) for each in self.queries]
        early = [back.loops_at(layer, key) for key in range(back.start)]
        loops = [any(first == 0 for first, _, _ in row) for row in rows]
        if self.residual:
            new = [a | b for a, b in zip(new, self.sets, strict=True)]
            queries = [a | b for a, b in zip(queries, self.queries, strict=True)]
            early = [a or b for a, b in zip(early, self.early_loops, strict=True)]
            loops = [a or b for a, b in zip(loops, self.loops, strict=True)]
        else:
            early = [bool(each >> key & 1) for key, each in enumerate(queries)]
            loops = [bool(each & 1) for each in new]
        self.fresh = False
        changed = (new, queries, early, loops) != (self.sets, self.queries, self.early_loops, self.loops)
        self.sets, self.queries, self.early_loops, self.loops = new, queries, early, loops
        return changed

    def _above(self, s: int, terms: Terms) -> int:
        """What class s sees through one more layer, and without it, the longest progressions first.

        With many classes the sets are often full after a few of them.
        """
        limit, period = self.limits[s], self.back.period
        full = ones(limit)
        seen = self.sets[s]
        for first, step, count in sorted(terms, key=lambda each: (-each[2], each[0])):
            # Distances that are equal mod period lead to one class.
            for start in range(first, first + step * min(count, period // gcd(step, period)), step):
                if seen == full:
                    return full
                apart = lcm(step, period)
                number = (first + step * (count - 1) - start) // apart + 1
                seen |= sums([self.sets[(s - start) % period]], [[(start, apart, number)]], [limit])[0]
        return seen

    def loops_everywhere(self, layer: int) -> bool:
        """Whether every unit has an edge to itself in a layer."""
        back = self.back
        return all(back.loops_at(layer, key) for key in range(back.start)) and all(
            any(first == 0 for first, _, _ in terms) for terms in back.terms[layer].values()
        )

    def listed(self) -> list[int]:
        """All sets in the order of a certificate: early keys, then classes by their last query."""
        return self.queries + [self.sets[query % self.back.period] for query in self.back.last_queries()]

    def reach(self) -> int:
        """The tokens that the last query sees."""
        extent = self.back.extent
        last = extent.units - 1
        if last < self.back.start:
            seen, own = 0, bool(self.queries[last] >> last & 1)
            looped = self.early_loops[last]
        else:
            s = last % self.back.period
            seen, own, looped = (self.sets[s] & ~1).bit_count(), bool(self.sets[s] & 1), self.loops[s]
        seen += sum(bits >> last & 1 for key, bits in enumerate(self.queries) if key < last)
        return seen * extent.unit + (extent.last_size if looped else int(own))

    def first_gap(self) -> tuple[int, int] | None:
        """The first pair of tokens that is not joined: least query, then least key."""
        return min(self._gaps(), default=None)

    def _gaps(self) -> Iterator[tuple[int, int]]:
        back, extent = self.back, self.back.extent
        for key, bits in enumerate(self.queries):
            distance = lowest_missing(bits >> key)
            if distance < extent.units - key:
                yield (key + distance) * extent.unit, key * extent.unit
            if not self.early_loops[key] and extent.size(key) > 1:
                yield key * extent.unit + 1, key * extent.unit
        for s in range(back.period):
            limit = self.limits[s]
            missing = self.sets[s] ^ ones(limit)
            if missing:
                least = back.start + lowest(missing)
                query = least + (s - least) % back.period
                far = (missing & ones(query - back.start + 1)).bit_length() - 1
                yield query * extent.unit, (query - far) * extent.unit
            if limit and not self.loops[s]:
                query = back.start + (s - back.start) % back.period
                if extent.size(query) > 1:
                    yield query * extent.unit + 1, query * extent.unit


def gap_by_rows(back: BackLayers, layers: Sequence[int] | None, end: int, *, residual: bool) -> tuple[int, int] | None:
    """The first pair of tokens not joined, among the queries of units before `end`, one query after the other.

    `layers` lists the layers from the bottom; None asks for any number of one pattern's layers.

    Cost
        Time O(layers · edges · end / 64) up to the first gap, memory O(layers · end² / 8) bytes; without a number
        of layers, as for one.
    """
    extent = back.extent
    index = [0] if layers is None else layers
    # joined[h][Q]: the units that Q sees after h layers; without a number of layers, joined[1] is the closure.
    joined: list[list[int]] = [[] for _ in range(len(index) + 1)]
    rows = [Rows(each, unit=extent.unit, count=end) for each in back.predicates]
    for query in range(end):
        everything = ones(query + 1)
        by_layer = [each.row(query) for each in rows]
        loop = any(by_layer[layer] >> query & 1 for layer in index)
        joined[0].append(1 << query)
        for height, layer in enumerate(index, 1):
            below = joined[height - 1]
            seen = 0 if not residual else below[query] if layers is not None else 1 << query
            source = joined[1] if layers is None else below
            if seen != everything or not residual:
                edges = by_layer[layer]
                if layers is None:
                    edges &= ~(1 << query)
                if layers is None or height == 1:
                    seen |= edges
                # The nearest keys first: they see most.
                while edges and seen != everything and (layers is None or height > 1):
                    key = edges.bit_length() - 1
                    edges ^= 1 << key
                    seen |= source[key]
            joined[height].append(seen)
        missing = everything & ~joined[-1][query]
        first = query * extent.unit
        if missing:
            return first, lowest(missing) * extent.unit
        if residual and not loop and extent.size(query) > 1:
            return first + 1, first
    return None


def query_chain(
    back: BackLayers, query: int, layers: Sequence[int] | None, *, endless: bool, residual: bool, by_rows: bool
) -> tuple[list[int], bool]:
    """The units that unit `query` sees through the top 1, 2, ... layers, and whether no more layers change that.

    `layers` lists the layers from the top; None asks for any number of one pattern's layers. With the residual
    connection the sets hold the query itself, and if one pattern goes on without end (`endless`), they end
    where nothing changes any more.
    """
    known: dict[tuple[int, int], int] = {}

    def keys(layer: int, queries: int) -> int:
        if not by_rows:
            return back.keys(layer, queries)
        found = 0
        for each in members(queries):
            if (layer, each) not in known:
                known[layer, each] = back.layers[layer].row(each)
            found |= known[layer, each]
        return found

    seen = 1 << query
    chain: list[int] = []
    while layers is None or len(chain) <= len(layers):
        last = layers is not None and len(chain) == len(layers)
        if last and not (endless and residual):
            break
        # One layer beyond the last tells whether the chain would go on.
        new = keys(0 if layers is None or last else layers[len(chain)], seen) | (seen if residual else 0)
        if endless and residual and new == seen and chain:
            return chain, True
        if last:
            break
        chain.append(new)
        seen = new
    return chain, False
