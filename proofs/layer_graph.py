"""The graph of each layer as rows of bits, for patterns that look ahead or that have no normal form.

The graph stands on tokens, or on blocks where every condition of all layers is told in blocks. It is exact: an
edge between blocks joins all their tokens. Inside a block all layers cut at the diagonal, or none does; where
they differ, the graph stands on tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from sparsedsl.errors import Unsupported
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.bits import ones, runs
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.quotient import block_rows, block_size, blocks_reading_ahead
from sparsedsl.proofs.schedule import common_forms, looks_ahead
from sparsedsl.segments import WordTooLong

# A graph of more units has more than 2**28 pairs: 32 MiB for each set of them.
MOST_UNITS = 1 << 14


@dataclass(frozen=True)
class LayerGraph:
    """The edges of one layer: bit K of rows[Q] says whether unit Q reads unit K."""

    rows: tuple[int, ...]

    def row(self, query: int) -> int:
        """The units that a unit has an edge to."""
        return self.rows[query]

    def readers(self, keys: int) -> int:
        """The units with an edge to some unit of `keys`; O(units² / 64)."""
        digits = "".join("1" if row & keys else "0" for row in reversed(self.rows))
        return int(digits, 2)

    def loops_at(self, unit: int) -> bool:
        """Whether a unit has an edge to itself."""
        return bool(self.rows[unit] >> unit & 1)

    @cached_property
    def _wanted(self) -> dict[int, list[tuple[int, int]]]:
        """level -> (query, first of 2**level keys): two overlapping spans for each run of keys."""
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for query, row in enumerate(self.rows):
            for lo, hi in runs(row):
                level = (hi - lo).bit_length() - 1
                wanted[level].append((query, lo))
                if hi - lo > 1 << level:
                    wanted[level].append((query, hi - (1 << level)))
        return wanted

    @cached_property
    def unions(self) -> int:
        """How many unions of rows `above` takes."""
        return sum(map(len, self._wanted.values())) + len(self.rows) * max(self._wanted, default=0)

    def above(self, joined: Sequence[int]) -> list[int]:
        """For each unit the union of joined[K] over its keys K.

        Cost
            O(units² / 64 · (log2 of the longest run + runs in a row)) time.
        """
        result = [0] * len(self.rows)
        # Invariant: table[i] = union of joined[i], ..., joined[i + 2**level - 1].
        table = list(joined)
        for level in range(max(self._wanted, default=-1) + 1):
            if level:
                half = 1 << (level - 1)
                table = [a | b for a, b in zip(table, table[half:], strict=False)]
            for query, first in self._wanted.get(level, ()):
                result[query] |= table[first]
        return result


@dataclass(frozen=True, slots=True)
class LayerGraphs:
    """The graphs of all layers on the units of one length.

    `ahead`: some layer reads a key to its right, so that complete means every pair at all, and an edge (Q, Q)
    joins all pairs of its tokens. Otherwise such an edge joins the pairs i >= j.
    """

    layers: tuple[LayerGraph, ...]
    extent: Extent
    ahead: bool


def layer_graphs(patterns: tuple[Pattern, ...], seq_len: int) -> LayerGraphs:
    """The graphs of all layers, on the largest blocks in which all of them are told.

    Raises
        Unsupported: the graph would have more than `MOST_UNITS` units.
    """
    graphs = _from_forms(patterns, seq_len)
    if graphs is not None:
        return graphs
    size = gcd(*(block_size(pattern.predicate()) for pattern in patterns)) or 1
    return (_from_predicates(patterns, seq_len, size) if size > 1 else None) or _on_tokens(patterns, seq_len)


def _from_forms(patterns: tuple[Pattern, ...], seq_len: int) -> LayerGraphs | None:
    forms = common_forms(patterns)
    if forms is None:
        return None
    if len({form.cut for form in forms}) == 2:
        try:
            forms = tuple(form.refined(1) for form in forms)
        except WordTooLong:
            return None
    extent = _extent(seq_len, forms[0].unit)
    periodic = [PeriodicLayer(form, extent.units) for form in forms]
    graphs = tuple(LayerGraph(tuple(map(layer.row, range(extent.units)))) for layer in periodic)
    return LayerGraphs(graphs, extent, any(map(looks_ahead, forms)))


def _from_predicates(patterns: tuple[Pattern, ...], seq_len: int, size: int) -> LayerGraphs | None:
    """The graphs on blocks; None where the layers don't agree on what an edge (Q, Q) means."""
    extent = _extent(seq_len, size)
    graphs, cuts = [], set()
    for pattern in patterns:
        predicate = pattern.predicate()
        rows = block_rows(predicate, size, extent.units)
        whole = blocks_reading_ahead(predicate, size, extent.units)
        own = sum(1 << unit for unit, row in enumerate(rows) if row >> unit & 1)
        if whole & ~own:
            return None
        cuts |= {cut for cut, where in ((False, whole), (True, own & ~whole)) if where}
        graphs.append(LayerGraph(tuple(rows)))
    ahead = _reads_later_units(graphs)
    if len(cuts) == 2 or (True in cuts and ahead):
        return None
    return LayerGraphs(tuple(graphs), extent, ahead or False in cuts)


def _on_tokens(patterns: tuple[Pattern, ...], seq_len: int) -> LayerGraphs:
    extent = _extent(seq_len, 1)
    graphs = [LayerGraph(tuple(block_rows(pattern.predicate(), 1, extent.units))) for pattern in patterns]
    return LayerGraphs(tuple(graphs), extent, _reads_later_units(graphs))


def _reads_later_units(graphs: Sequence[LayerGraph]) -> bool:
    return any(row & ~ones(query + 1) for graph in graphs for query, row in enumerate(graph.rows))


def _extent(seq_len: int, unit: int) -> Extent:
    extent = Extent(seq_len, unit)
    if extent.units > MOST_UNITS:
        what = "tokens" if unit == 1 else f"blocks of {unit} tokens"
        raise Unsupported(
            "the pattern looks ahead or has no normal form, and its layer graph is too large",
            got=f"{extent.units} {what}, {extent.units**2 >> 33} GiB for each set of pairs",
            expected=f"at most {MOST_UNITS} tokens or blocks",
            hint=f"seq_len={MOST_UNITS * unit} (--seq-len {MOST_UNITS * unit}), .blocks(size), or & causal()",
        )
    return extent
