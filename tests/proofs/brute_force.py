"""The oracle of `check`: boolean matrices on tokens, multiplied layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern

Matrix = NDArray[np.bool_]
# More than any sequence of powers of a random matrix of 48 tokens needs here to come round.
MOST_LAYERS = 2000


@dataclass(frozen=True)
class Oracle:
    """The layers of a pattern as matrices: entry (q, k) says whether q reads k."""

    layers: tuple[Matrix, ...]
    count: int | None
    residual: bool

    @staticmethod
    def of(pattern: Pattern | PerHead | Stack, seq_len: int, layers: int | None, residual: bool) -> Oracle:
        """The oracle of a pattern; a stack brings its own number of layers."""
        if isinstance(pattern, Stack):
            matrices = [graph(pattern[layer], seq_len) for layer in range(len(pattern))]
            return Oracle(tuple(matrices), len(pattern), residual)
        return Oracle((graph(pattern, seq_len),), layers, residual)

    @property
    def tokens(self) -> int:
        return len(self.layers[0])

    @property
    def is_stack(self) -> bool:
        return len(self.layers) > 1

    def powers(self, most: int) -> list[Matrix]:
        """The pairs joined after 1, 2, ... layers, until `most` or until a matrix comes again."""
        joined: Matrix = np.eye(self.tokens, dtype=np.bool_)
        found: list[Matrix] = []
        seen = set()
        for layer in range(most):
            edges = self.layers[layer % len(self.layers)].astype(np.float32)
            above: Matrix = (edges @ joined.astype(np.float32)) > 0
            joined = above | joined if self.residual else above
            if not self.is_stack and joined.tobytes() in seen:
                return found
            seen.add(joined.tobytes())
            found.append(joined)
        return found

    def after(self, layers: int) -> Matrix:
        """The pairs joined by exactly this many layers, the last matrix standing for all later ones if it stays."""
        joined: Matrix = np.eye(self.tokens, dtype=np.bool_)
        for layer in range(layers):
            edges = self.layers[layer % len(self.layers)].astype(np.float32)
            above: Matrix = (edges @ joined.astype(np.float32)) > 0
            joined = above | joined if self.residual else above
        return joined


def graph(layer: Pattern | PerHead, tokens: int) -> Matrix:
    """One layer as a matrix; the union of the heads."""
    matrix: Matrix = layer.dense(tokens)
    if isinstance(layer, PerHead):
        matrix = np.asarray(matrix.any(axis=0))
    return matrix


def scope(tokens: int, *, ahead: bool) -> Matrix:
    """The pairs that complete asks for."""
    matrix: Matrix = np.ones((tokens, tokens), dtype=np.bool_)
    return matrix if ahead else np.tril(matrix)


def contiguous(joined: Matrix, *, ahead: bool) -> int:
    """The greatest R such that all pairs in scope at distances <= R are joined; -1 if not even R = 0."""
    tokens = len(joined)
    for distance in range(tokens):
        below = np.diagonal(joined, -distance)
        above = np.diagonal(joined, distance)
        if not below.all() or (ahead and not above.all()):
            return distance - 1
    return tokens - 1


def first_gap(joined: Matrix, *, ahead: bool) -> tuple[int, int] | None:
    """The first pair in scope that is not joined."""
    missing = np.argwhere(scope(len(joined), ahead=ahead) & ~joined)
    return (int(missing[0][0]), int(missing[0][1])) if len(missing) else None


def intervals(inside: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """The maximal intervals of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return tuple((int(lo), int(hi)) for lo, hi in list(pairwise(edges))[::2])


def holes(row: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """The positions after the first True that are False."""
    seen = np.flatnonzero(row)
    if not len(seen):
        return ()
    return intervals(~row & (np.arange(len(row)) > seen[0]))
