"""Longformer: a window, dilated or not, and a few global tokens that read all and that all read.

References
    .. [1] Beltagy et al., "Longformer: The Long-Document Transformer", 2020, arXiv 2004.05150.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparsedsl.arithmetic import where
from sparsedsl.constructors import causal, dilated
from sparsedsl.pattern import Pattern, listed, wholes


def longformer(*, window: int = 512, dilation: int = 1, global_tokens: Iterable[int] = (0,)) -> Pattern:
    """A causal Longformer: `window` keys, `dilation` apart, and the global tokens at these positions.

    Set
        k ≤ q, and q − k ∈ {0, d, ..., (window − 1) d} or k is global or q is global.
    Degree
        At most window + globals; n for a global query.
    Depth
        2 layers for a pair with a global token between them. Under the causal cut a global token serves no
        other pair: without one, ceil(distance / (window − 1)) layers if dilation = 1, and if it is more,
        never unless it divides the distance. Bidirectional, 2 layers would do for all.
    Cost
        O(N · (window + globals)) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(longformer(window=2, global_tokens=[0, 4]), 8))
        # . . . . . . .
        # # . . . . . .
        # # # . . . . .
        # . # # . . . .
        # # # # # . . .
        # . . . # # . .
        # . . . # # # .
        # . . . # . # #

    """
    wholes("longformer", window=window, dilation=dilation)
    pattern = dilated(window, dilation)
    for token in listed("longformer", "global_tokens", global_tokens, least=0):
        pattern |= where(f"(q == {token}) | (k == {token})")
    return pattern & causal()
