"""Dilated windows: every d-th key. The same budget looks d times as far, and sees one residue class only."""

from __future__ import annotations

from sparsedsl.constructors import causal, dilated
from sparsedsl.pattern import Pattern, wholes


def dilated_window(*, window: int = 1024, dilation: int = 4) -> Pattern:
    """`window` keys, `dilation` apart, the query's own the first.

    Set
        q − k ∈ {0, d, 2d, ..., (window − 1) d}, d = dilation.
    Degree
        window.
    Depth
        Never complete for d > 1: q and k are joined at some depth iff d divides q − k, about one pair in d.
        Those pairs take ceil(floor((n − 1) / d) / (window − 1)) layers at n tokens.
    Cost
        O(N · window) pairs; within a residue class it is a plain sliding window.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(dilated_window(window=3, dilation=2), 6))
        # . . . . .
        . # . . . .
        # . # . . .
        . # . # . .
        # . # . # .
        . # . # . #

    """
    wholes("dilated_window", window=window, dilation=dilation)
    return dilated(window, dilation)


def dilated_paper_baseline(*, block: int = 256) -> Pattern:
    """Every second block among the last 20: the dilated baseline of the PowerAttention paper.

    Set
        With D = q // block − k // block: k ≤ q, D even, D < 20.
    Degree
        10 blocks.
    Depth
        Never complete: an odd D is never joined. 50.39 % of the block pairs are, in 7 layers, at 128 blocks.
    Cost
        O(N · 10 · block) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(dilated_paper_baseline(block=2), 6))
        # . . . . .
        # # . . . .
        . . # . . .
        . . # # . .
        # # . . # .
        # # . . # #

    References
        .. [1] Chen, Xu, An et al., PowerAttention, 2025, arXiv 2503.03588: the baselines, after Longformer.
    """
    wholes("dilated_paper_baseline", block=block)
    return dilated(10, 2).blocks(block) & causal()
