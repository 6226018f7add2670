"""A sliding window, alone and with a sink: near tokens, and a reach that grows by one window a layer."""

from __future__ import annotations

from sparsedsl.constructors import causal, sliding
from sparsedsl.constructors import sink as first_keys
from sparsedsl.pattern import Pattern, wholes


def sliding_window(*, window: int = 4096) -> Pattern:
    """The last `window` tokens, the query's own included.

    Set
        0 ≤ q − k < window.
    Degree
        window.
    Depth
        ceil((n − 1) / (window − 1)) layers at n tokens; for window = 1, never.
    Cost
        O(N · window) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(sliding_window(window=3), 6))
        # . . . . .
        # # . . . .
        # # # . . .
        . # # # . .
        . . # # # .
        . . . # # #

    """
    wholes("sliding_window", window=window)
    return sliding(window)


def sliding_sink(*, block: int = 256, window: int = 9, sink: int = 1) -> Pattern:
    """A window and a sink in blocks: the sliding baseline of the PowerAttention paper.

    Set
        With D = q // block − k // block: k ≤ q, and D < window or k // block < sink.
    Units
        window and sink count blocks; the window's first block is the query's own.
    Degree
        window + sink blocks.
    Depth
        ceil((n − 1 − sink) / (window − 1)) layers at n blocks: 8, 16, 32, 64 at 64, 128, 256, 512 blocks. The
        sink is seen at once, but nothing is seen through it: its own keys lie before it.
    Cost
        O(N · (window + sink) · block) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(sliding_sink(block=2, window=2), 8))
        # . . . . . . .
        # # . . . . . .
        # # # . . . . .
        # # # # . . . .
        # # # # # . . .
        # # # # # # . .
        # # . . # # # .
        # # . . # # # #

    References
        .. [1] Chen, Xu, An et al., PowerAttention, 2025, arXiv 2503.03588: the baselines.
    """
    wholes("sliding_sink", block=block, window=window, sink=sink)
    return (sliding(window) | first_keys(sink)).blocks(block) & causal()
