"""Depth at every length from boolean matrices, or from sums of distances; nothing of the prover's own."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern

Matrix = NDArray[np.bool_]


def graph(layer: Pattern | PerHead, tokens: int) -> Matrix:
    """One layer's pairs; a per-head layer counts as the union of its heads."""
    matrix: Matrix = layer.dense(tokens)
    if isinstance(layer, PerHead):
        heads: Matrix = np.logical_or.reduce(matrix)
        return heads
    return matrix


def looks_back(pattern: Pattern | PerHead | Stack, tokens: int) -> bool:
    """Whether no pair of these tokens looks ahead."""
    layers = list(pattern) if isinstance(pattern, Stack) else [pattern]
    return not any(np.triu(graph(layer, tokens), 1).any() for layer in layers)


def depths(
    pattern: Pattern | PerHead | Stack, most: int, *, residual: bool = True, ahead: bool = False
) -> list[int | None]:
    """found[n], n <= most: the least number of layers (of a stack: of its first) that join all pairs of n tokens.

    A pattern that looks back is cut at n, since its paths never leave the first n tokens; one that looks ahead is
    multiplied again for every n. Without the residual connection, exactly so many edges; and of a stack only a
    number of layers counts after which its further layers lose no pair.
    """
    if ahead:
        return [None, *(_depth(pattern, length, residual=residual, ahead=True) for length in range(1, most + 1))]
    layers = [graph(each, most) for each in (pattern if isinstance(pattern, Stack) else [pattern])]
    joined: Matrix = np.eye(most, dtype=np.bool_)
    found: list[int | None] = [None] * (most + 1)
    later = ~np.tri(most, dtype=np.bool_)
    count = len(layers) if isinstance(pattern, Stack) else most + 1
    for layer, edges in enumerate(islice(cycle(layers), count), 1):
        above: Matrix = edges.astype(np.float32) @ joined.astype(np.float32) > 0
        after = above | joined if residual else above
        lost = not residual and isinstance(pattern, Stack)
        rows = (after | later).all(axis=1)
        length = most if rows.all() else int(np.argmin(rows))
        for each in range(1, length + 1):
            found[each] = found[each] or layer
        if lost:
            found[length + 1 :] = [None] * (most - length)
        if (length == most and not lost) or (residual and not isinstance(pattern, Stack) and (after == joined).all()):
            break
        joined = after
    return found


def _depth(pattern: Pattern | PerHead | Stack, length: int, *, residual: bool, ahead: bool) -> int | None:
    layers = [graph(each, length) for each in (pattern if isinstance(pattern, Stack) else [pattern])]
    needed = np.ones((length, length), dtype=np.bool_) if ahead else np.tri(length, dtype=np.bool_)
    joined: Matrix = np.eye(length, dtype=np.bool_)
    count = len(layers) if isinstance(pattern, Stack) else 3 * length
    for layer, edges in enumerate(islice(cycle(layers), count), 1):
        above: Matrix = edges.astype(np.float32) @ joined.astype(np.float32) > 0
        joined = above | joined if residual else above
        if isinstance(pattern, Stack) and not residual and layer < count:
            continue
        if (joined | ~needed).all():
            return layer
    return None


def distance_depths(members: set[int], most: int) -> list[int | None]:
    """The same for a set of distances, by the fewest members that sum up to each distance."""
    fewest: list[int | None] = [0]
    for distance in range(1, most):
        before = [fewest[distance - each] for each in members if 0 < each <= distance]
        known = [each for each in before if each is not None]
        fewest.append(min(known) + 1 if known else None)
    found: list[int | None] = [None, 1]
    for length in range(2, most + 1):
        last, farthest = found[-1], fewest[length - 1]
        found.append(None if last is None or farthest is None else max(last, farthest))
    return found
