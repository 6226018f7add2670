"""What is measured on a flow graph: edges of the shortest paths, numbers of paths, influence, a least vertex cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from sparsedsl.proofs.bits import members, runs
from sparsedsl.proofs.flow_graph import FlowGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = TypeVar("Row")

# No path through the layers so far.
UNJOINED = (1 << 15) - 1
# A maximum flow on more edges takes networkx longer than half a minute.
MOST_CUT_EDGES = 1 << 17


def hop_counts(graph: FlowGraph) -> Iterator[NDArray[np.int16]]:
    """After 1, 2, ... layers: entry (Q, K) is the least number of edges on a path from Q to K, or UNJOINED.

    The residual connection is no edge, so (Q, Q) is 0. The matrix is overwritten by the next one.

    Cost
        O(units² · (runs of a row + log2 units)) time for each layer, and nothing once the same pattern in all
        layers changes nothing any more; O(units² · log2 units) bytes.
    """
    import numpy as np

    hops = np.full((graph.units, graph.units), UNJOINED, dtype=np.int16)
    np.fill_diagonal(hops, 0)
    still = False
    for layer in range(len(graph.layers)):
        if not still:
            through = np.minimum(_least_of_keys(hops, graph.edges(layer)), UNJOINED - 1) + 1
            after = np.minimum(hops, through)
            still = graph.uniform and bool((after == hops).all())
            hops = after
        yield hops


def _least_of_keys(hops: NDArray[np.int16], rows: Sequence[int]) -> NDArray[np.int16]:
    """For each unit the least of hops[K] over its keys K."""
    import numpy as np

    result = np.full_like(hops, UNJOINED)
    # level -> (query, first of 2**level keys): two overlapping spans for each run of keys.
    spans: dict[int, list[tuple[int, int]]] = {}
    for query, row in enumerate(rows):
        for lo, hi in runs(row):
            level = (hi - lo).bit_length() - 1
            spans.setdefault(level, []).extend({(query, lo), (query, hi - (1 << level))})
    # Invariant: table[i] = least of hops[i], ..., hops[i + 2**level - 1].
    table = hops
    for level in range(max(spans, default=-1) + 1):
        if level:
            half = 1 << (level - 1)
            table = np.minimum(table[:-half], table[half:])
        for query, first in spans.get(level, ()):
            np.minimum(result[query], table[first], out=result[query])
    return result


def path_counts(graph: FlowGraph) -> Iterator[list[int]]:
    """After 1, 2, ... layers: the number of paths from the last unit to each unit K, exactly.

    Set
        A path takes one step for each layer: an edge of the layer, or its residual connection. Both from Q to Q
        are two different steps. So the numbers are the last row of (I + E_h) ... (I + E_1), E the 0-1 adjacency.
    Cost
        O(runs + units) additions of integers for each layer, and O(layers) times as many where they differ.
    """
    spans = {heads: [list(runs(row)) for row in graph.union(set(heads))] for heads in set(graph.layers)}
    start = [int(unit == graph.units - 1) for unit in range(graph.units)]
    return _rows_of_products(graph, start, lambda row, heads: _spread(row, spans[heads]))


def _spread(counts: list[int], spans: list[list[tuple[int, int]]]) -> list[int]:
    """counts · (I + E), the row of each unit given by its runs."""
    # Differences of neighbours, so that a run of keys costs two additions.
    changes = [0] * (len(counts) + 1)
    for count, keys in zip(counts, spans, strict=True):
        if count:
            for lo, hi in keys:
                changes[lo] += count
                changes[hi] -= count
    return [count + more for count, more in zip(counts, accumulate(changes[:-1]), strict=True)]


def influences(graph: FlowGraph, alpha: float) -> Iterator[NDArray[np.float64]]:
    """After 1, 2, ... layers: the influence of each unit on the last one.

    Set
        The last row of M_h ... M_1 with M = alpha · I + (1 - alpha) · A; see `FlowGraph.weights` for A.
    Cost
        O(units²) time for each layer, and O(layers) times as much where they differ; O(units²) bytes for each
        different layer.
    """
    import numpy as np

    weights = {heads: graph.weights(graph.layers.index(heads)) for heads in set(graph.layers)}
    start = np.zeros(graph.units)
    start[-1] = 1.0

    def step(row: NDArray[np.float64], heads: tuple[int, ...]) -> NDArray[np.float64]:
        return alpha * row + (1 - alpha) * (row @ weights[heads])

    return _rows_of_products(graph, start, step)


def _rows_of_products(graph: FlowGraph, start: Row, step: Callable[[Row, tuple[int, ...]], Row]) -> Iterator[Row]:
    """After 1, 2, ... layers from the bottom: `start` led down through them, the top one of them first."""
    row = start
    for height in range(1, len(graph.layers) + 1):
        if graph.uniform:
            row = step(row, graph.layers[0])
        else:
            row = start
            for heads in reversed(graph.layers[:height]):
                row = step(row, heads)
        yield row


def influence_matrix(graph: FlowGraph, alpha: float) -> NDArray[np.float64]:
    """Entry (Q, K): the influence of K on Q after all layers; O(log2 layers · units³), O(layers · units³) if they
    differ.
    """
    import numpy as np

    def matrix(layer: int) -> NDArray[np.float64]:
        return alpha * np.eye(graph.units) + (1 - alpha) * graph.weights(layer)

    if graph.uniform:
        return np.linalg.matrix_power(matrix(0), len(graph.layers))
    result = np.eye(graph.units)
    for layer in range(len(graph.layers)):
        result = matrix(layer) @ result
    return result


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A least set of units that every path from the last unit to the first passes, a direct edge left out.

    direct    the last unit reads the first one itself, in some layer
    cut       the units, in rising order; empty where no path but a direct edge is left. None where there are too
              many edges to look, or where the first unit is the last one
    """

    direct: bool
    cut: tuple[int, ...] | None


def bottleneck(graph: FlowGraph) -> Bottleneck:
    """A minimum vertex cut between the last unit and the first, in the union of all layers, in any order.

    Cost
        O(size of the cut · edges) by augmenting paths, in networkx; about 10 µs an edge and path.
    """
    import networkx as nx
    from networkx.algorithms.flow import shortest_augmenting_path

    last = graph.units - 1
    rows = list(graph.union({head for layer in graph.layers for head in layer}))
    direct = bool(rows[last] & 1)
    rows[last] &= ~1
    # Self edges, edges back into the last unit and edges out of the first one add no path.
    rows = [row & ~(1 << unit) & ~(1 << last) if unit else 0 for unit, row in enumerate(rows)]
    between = _between(rows)
    if last == 0 or sum((row & between).bit_count() for row in rows) > MOST_CUT_EDGES:
        return Bottleneck(direct, None)
    edges = [(query, key) for query in members(between) for key in members(rows[query] & between)]
    if not edges:
        return Bottleneck(direct, ())
    cut = nx.minimum_node_cut(nx.DiGraph(edges), last, 0, flow_func=shortest_augmenting_path)
    return Bottleneck(direct, tuple(sorted(cut)))


def _between(rows: Sequence[int]) -> int:
    """The units on some path from the last unit to the first; no unit where there is no path."""
    keys: list[int] = [0] * len(rows)
    for query, row in enumerate(rows):
        for key in members(row):
            keys[key] |= 1 << query
    return _reached(rows, len(rows) - 1) & _reached(keys, 0)


def _reached(rows: Sequence[int], start: int) -> int:
    """The units that edges lead to from one unit, itself included."""
    seen = new = 1 << start
    while new:
        found = 0
        for unit in members(new):
            found |= rows[unit]
        new = found & ~seen
        seen |= new
    return seen
