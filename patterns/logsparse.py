"""LogSparse: a token reads itself and the tokens 1, 2, 4, 8, ... back; the first power-of-two pattern.

References
    .. [1] Li et al., "Enhancing the Locality and Breaking the Memory Bottleneck of Transformer on Time Series
       Forecasting", 2019, arXiv 1907.00235: Theorem 1, and the local and restart variants.
"""

from __future__ import annotations

from sparsedsl.arithmetic import where
from sparsedsl.constructors import causal, power, sliding
from sparsedsl.pattern import Pattern, wholes


def logsparse(*, window: int = 1, restart: int | None = None) -> Pattern:
    """Powers of two back, with a dense local window and a restart of the distances if asked for.

    Set
        k ≤ q, and q − k < window or e ∈ {0, 1, 2, 4, 8, ...}, where e = q − k, or (q − k) mod restart if
        given.
    Degree
        floor(log2 q) + 2 for query q ≥ 1, with window = 1. A restart repeats that number of keys every
        `restart` tokens, so the degree grows with n / restart.
    Depth
        floor(log2 n) layers at n tokens for window = 1, the most 1-bits that a distance has; the paper's
        Theorem 1 says floor(log2 n) + 1. With a restart floor(log2 restart), whatever the length.
    Cost
        O(N log N) pairs, or O(N² log(restart) / restart).
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(logsparse(), 9))
        # . . . . . . . .
        # # . . . . . . .
        # # # . . . . . .
        . # # # . . . . .
        # . # # # . . . .
        . # . # # # . . .
        . . # . # # # . .
        . . . # . # # # .
        # . . . # . # # #

    """
    wholes("logsparse", window=window)
    if restart is None:
        return power() if window == 1 else sliding(window) | power()
    wholes("logsparse", least=2, restart=restart)
    distances = [0, *(1 << t for t in range((restart - 1).bit_length()))]
    repeated = where(" | ".join(f"((q - k) % {restart} == {e})" for e in distances))
    return (sliding(window) | repeated) & causal()
