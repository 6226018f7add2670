"""Which tokens a query reaches, by networkx on the graph that is unrolled over the layers."""

from __future__ import annotations

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern

Matrix = NDArray[np.bool_]


def graphs(pattern: Pattern | PerHead | Stack, tokens: int) -> list[Matrix]:
    """One matrix for each layer of a stack, one in all for a pattern."""
    layers = list(pattern) if isinstance(pattern, Stack) else [pattern]
    dense = [layer.dense(tokens) for layer in layers]
    return [np.asarray(each.any(axis=0)) if each.ndim == 3 else each for each in dense]


def joined(pattern: Pattern | PerHead | Stack, tokens: int, layers: int | None, *, residual: bool) -> Matrix:
    """The pairs joined by so many layers; by any number of them, with the residual connection, for None."""
    matrices = graphs(pattern, tokens)
    graph = nx.DiGraph()
    if layers is None:
        graph.add_nodes_from((0, token) for token in range(tokens))
        graph.add_edges_from(((0, int(q)), (0, int(k))) for q, k in np.argwhere(matrices[0]))
        top = 0
    else:
        top = layers
        for height in range(1, layers + 1):
            edges = matrices[(height - 1) % len(matrices)]
            graph.add_nodes_from((level, token) for level in (height, height - 1) for token in range(tokens))
            graph.add_edges_from(((height, int(q)), (height - 1, int(k))) for q, k in np.argwhere(edges))
            if residual:
                graph.add_edges_from(((height, token), (height - 1, token)) for token in range(tokens))
    found: Matrix = np.zeros((tokens, tokens), dtype=np.bool_)
    for query in range(tokens):
        for level, key in nx.descendants(graph, (top, query)):
            found[query, key] |= level == 0
        found[query, query] |= layers is None
    return found


def scope(pattern: Pattern | PerHead | Stack, tokens: int) -> Matrix:
    """The pairs that complete asks for: all, where some query reads a later key, else those of earlier keys."""
    ahead = any(np.triu(matrix, 1).any() for matrix in graphs(pattern, tokens))
    return np.ones((tokens, tokens), dtype=np.bool_) if ahead else np.tri(tokens, dtype=np.bool_)
