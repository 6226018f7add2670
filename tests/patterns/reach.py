"""Depth by multiplying matrices: slow, plain, and nothing of the library's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.bool_]


def layers_until_still(edges: Matrix) -> tuple[int, Matrix]:
    """How many layers join every pair that is ever joined, and those pairs; with the residual connection."""
    edges = edges | np.eye(len(edges), dtype=np.bool_)
    seen, layers = edges, 1
    while True:
        further = joined(seen, edges)
        if np.array_equal(further, seen):
            return layers, seen
        seen, layers = further, layers + 1


def joined(later: Matrix, earlier: Matrix) -> Matrix:
    """The pairs (q, k) with a token between: q reads it in the later layers, it reads k in the earlier."""
    return later.astype(np.float32) @ earlier.astype(np.float32) > 0


def past(n: int) -> Matrix:
    """All pairs k <= q."""
    return np.tri(n, dtype=np.bool_)
