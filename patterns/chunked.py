"""Chunks that do not see each other: the cheapest pattern of all, and one that no depth completes."""

from __future__ import annotations

from sparsedsl.constructors import causal, chunked
from sparsedsl.pattern import Pattern, wholes


def block_local(*, size: int = 8192) -> Pattern:
    """The tokens of the query's own chunk.

    Set
        k ≤ q and q // size = k // size.
    Degree
        size.
    Depth
        1 layer inside a chunk; across a border never. It needs other layers beside it, as in
        `cycle([block_local(), causal()], layers=...)`.
    Cost
        O(N · size) pairs; in decoding, (length mod size) + 1 keys.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(block_local(size=3), 7))
        # . . . . . .
        # # . . . . .
        # # # . . . .
        . . . # . . .
        . . . # # . .
        . . . # # # .
        . . . . . . #

    """
    wholes("block_local", size=size)
    return chunked(size) & causal()
