"""The verifier's check of counted pairs: all pairs of a small graph, layer by layer, by unions of rows.

Part of the verifier: it imports nothing of what writes certificates.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsedsl.index import Predicate, holds
from sparsedsl.proofs.verifier_file import Content, reject
from sparsedsl.proofs.verifier_steps import Layers, Work, below, each_bit

MOST_UNITS = 1 << 14
# Units whose inside is looked at together: a seeded draw costs the square.
_TOGETHER = 16


class CountedPairs:
    """How many pairs 1, 2, ... layers join."""

    def __init__(self, content: Content, predicates: tuple[Predicate, ...], count: int | None, work: Work) -> None:
        length = content.seq_len
        everything = content.pairs == length * length
        if not everything and content.pairs != length * (length + 1) // 2:
            reject("claim", "the pairs are neither all pairs of the length nor those of earlier keys")
        graphs = _Graphs(predicates, length, work)
        if not graphs.fits(everything=everything):
            graphs = _Graphs(predicates, length, work, unit=1)
        if graphs.ahead is not everything and length > 1:
            reject("claim", "all pairs count where some query reads a later key, else those of earlier keys")
        self.content, self.graphs, self.count, self.everything = content, graphs, count, everything

    def claim(self, *, residual: bool) -> None:
        """Recount the pairs, and check the claim against them."""
        content, graphs, count = self.content, self.graphs, self.count
        joined = _Joined(graphs, everything=self.everything, residual=residual, work=graphs.layers.work)
        one_pattern = residual and count is None
        steps = len(content.joined)
        if count is not None and (steps > count or (steps < count and not (residual and content.complete))):
            reject("claim", "the stack has another number of layers")
        before = joined.count()
        for step, listed in enumerate(content.joined):
            if step and before == content.pairs and residual:
                reject("claim", f"fewer layers do: {step}")
            joined.advance(step % len(graphs.rows))
            found = joined.count()
            if found != listed:
                reject(f"layer {step + 1}", "it joins another number of pairs", got=str(listed), expected=str(found))
            if one_pattern and found == before and found != content.pairs:
                reject(f"layer {step + 1}", "it adds nothing, and the chain goes on")
            before = found
        if content.complete:
            if content.layers != steps or before != content.pairs:
                reject("claim", "the last layer does not join all pairs, or another one is claimed to")
            return
        gap = joined.first_gap()
        if gap is None or gap != (content.query, content.key):
            reject("claim", "the pair is not the first that is not joined", expected=str(gap))
        if one_pattern:
            joined.advance(0)
            if (joined.count() == before) is not (content.layers is None):
                reject("claim", "more layers would join more pairs, or would not, other than claimed")
        if content.layers != steps and not (one_pattern and content.layers is None):
            reject("claim", "it speaks of another number of layers than are listed")


class _Graphs:
    """The layers as rows of units, and what the edge of a unit to itself joins: all its pairs, or those i >= j."""

    def __init__(self, predicates: tuple[Predicate, ...], seq_len: int, work: Work, unit: int | None = None) -> None:
        self.layers = Layers(predicates, seq_len, work, unit=unit)
        units = self.layers.units
        if units > MOST_UNITS:
            reject("limits", "the length has too many units for counting pairs", expected=f"at most {MOST_UNITS}")
        self.rows = [[self.layers.row(layer, query) for query in range(units)] for layer in range(len(predicates))]
        # For every unit of every layer: has it an edge to itself, does its first token read its second?
        loops = [bool(row >> query & 1) for rows in self.rows for query, row in enumerate(rows)]
        inside = loops
        if self.layers.unit > 1:
            inside = [each for predicate in predicates for each in _reads_second(predicate, self.layers.unit, units)]
        self.whole, self.cut = inside == loops, not any(inside)
        later = any(row >> query + 1 for rows in self.rows for query, row in enumerate(rows))
        units_inside = [at % units for at, each in enumerate(inside) if each and self.layers.unit > 1]
        self.ahead = later or any(self.layers.tokens_of(unit) > 1 for unit in units_inside)

    def fits(self, *, everything: bool) -> bool:
        """Whether the units tell all: every edge of a unit to itself joins the same pairs, and that is enough."""
        return self.whole or (self.cut and not self.ahead and not everything)


def _reads_second(predicate: Predicate, unit: int, units: int) -> Iterator[bool]:
    import numpy as np

    for first in range(0, units, _TOGETHER):
        starts = np.arange(first, min(first + _TOGETHER, units), dtype=np.int64) * unit
        yield from map(bool, holds(predicate, starts, starts + 1))


class _Joined:
    """For each unit the units that some layers join it to: at all, and by an edge or more."""

    def __init__(self, graphs: _Graphs, *, everything: bool, residual: bool, work: Work) -> None:
        self.graphs, self.everything, self.residual, self.work = graphs, everything, residual, work
        self.units = graphs.layers.units
        self.sets = [1 << unit for unit in range(self.units)]
        self.by_edges = [0] * self.units

    def _wanted(self, query: int) -> int:
        return below(self.units if self.everything else query + 1)

    def advance(self, layer: int) -> None:
        """Add one layer on top."""
        new = []
        for query, row in enumerate(self.graphs.rows[layer]):
            seen = self.by_edges[query] if self.residual else 0
            wanted = self._wanted(query)
            for key in each_bit(row):
                if seen == wanted:
                    break
                self.work.spend(self.units)
                seen |= self.sets[key]
            new.append(seen)
        self.by_edges = new
        self.sets = [seen | 1 << unit for unit, seen in enumerate(new)] if self.residual else new

    def _own(self, unit: int) -> int:
        """The joined pairs of tokens of one unit."""
        size = self.graphs.layers.tokens_of(unit)
        if not self.by_edges[unit] >> unit & 1:
            return size if self.sets[unit] >> unit & 1 else 0
        return size * size if self.everything else size * (size + 1) // 2

    def count(self) -> int:
        """The joined pairs of tokens."""
        layers, last = self.graphs.layers, self.units - 1
        total = 0
        for unit, seen in enumerate(self.sets):
            others = seen & ~(1 << unit)
            keys = others.bit_count() * layers.unit
            if others >> last & 1:
                keys -= layers.unit - layers.tokens_of(last)
            total += keys * layers.tokens_of(unit) + self._own(unit)
        return total

    def first_gap(self) -> tuple[int, int] | None:
        """The first pair of tokens that is not joined: least query, then least key."""
        unit = self.graphs.layers.unit
        for query in range(self.units):
            missing = self._wanted(query) & ~self.sets[query]
            gaps = [(query * unit, ((missing & -missing).bit_length() - 1) * unit)] if missing else []
            if not self.by_edges[query] >> query & 1 and self.graphs.layers.tokens_of(query) > 1:
                first = query * unit
                gaps.append((first, first + 1) if self.everything else (first + 1, first))
            if gaps:
                return min(gaps)
        return None
