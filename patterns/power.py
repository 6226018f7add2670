"""PowerAttention: one key at every power of two back, so that the layers together see exponentially far.

Write a distance in binary: each 1-bit is one hop, so popcount(d) layers join two tokens d apart. The
implementation works on blocks and adds a window, which carries the near tokens, and a sink, which takes the
attention that no token wants. It is one set for all heads, all layers, prefill and decode.

References
    .. [1] Chen, Xu, An et al., PowerAttention, 2025, arXiv 2503.03588: Theorem B.1 and Algorithm 1.
    .. [2] Li et al., 2019, arXiv 1907.00235: the same edges and the self edge, earlier; see `logsparse`.
"""

from __future__ import annotations

from sparsedsl.constructors import causal, power, sliding
from sparsedsl.constructors import sink as first_keys
from sparsedsl.pattern import Pattern, wholes


def power_attention(*, block: int = 256, window: int = 5, sink: int = 1) -> Pattern:
    """Window, sink and powers of two, in blocks: the implementation of PowerAttention (Algorithm 1).

    Set
        With D = q // block − k // block: k ≤ q, and D < window, or D = 2ᵗ for a t ≥ 0, or k // block < sink.
    Units
        window and sink count blocks; the window's first block is the query's own.
    Degree
        9, 10, 11, 12 blocks at 64, 128, 256, 512 blocks: one more each time the length doubles.
    Depth
        5, 6, 7, 8 layers at 64, 128, 256, 512 blocks (16K to 128K tokens), and at n blocks at most floor(log2
        n): the powers alone need no more.
    Cost
        O(N log N) pairs: 351 535 104 at 131 072 tokens, 4.1 % of the causal triangle.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(power_attention(block=1, window=2), 10))
        # . . . . . . . . .
        # # . . . . . . . .
        # # # . . . . . . .
        # # # # . . . . . .
        # . # # # . . . . .
        # # . # # # . . . .
        # . # . # # # . . .
        # . . # . # # # . .
        # . . . # . # # # .
        # # . . . # . # # #

    """
    wholes("power_attention", block=block, window=window, sink=sink)
    return (sliding(window) | power() | first_keys(sink)).blocks(block) & causal()


def power_theorem() -> Pattern:
    """The bare powers of two, without the self edge: the graph of PowerAttention's Theorem B.1.

    Set
        q − k = 2ᵗ for a t ≥ 0. Query 0 has no key: its output is 0.
    Degree
        floor(log2(n − 1)) + 1 = ceil(log2 n) keys; the paper's "less than log n" is one too few.
    Depth
        floor(log2 n) layers with the residual connection. Without it, distance d is joined by exactly L edges
        iff popcount(d) ≤ L ≤ d, so no number of layers joins all pairs: a token never sees itself.
    Cost
        O(N log N) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(power_theorem(), 6))
        . . . . . .
        # . . . . .
        # # . . . .
        . # # . . .
        # . # # . .
        . # . # # .

    """
    return power() - sliding(1)
