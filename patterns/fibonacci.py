"""Fibonacci distances: like powers of two, with a smaller ratio; more keys a row, fewer layers.

References
    .. [1] Capps, 2026, arXiv 2606.28560: a dense window and Fibonacci offsets, there scaled for each layer.
       Its formula was not seen; this is the plain set, the same in every layer.
"""

from __future__ import annotations

from sparsedsl.constructors import offsets, sliding
from sparsedsl.integers import LAST_POSITION
from sparsedsl.pattern import Pattern, wholes


def fibonacci(*, window: int = 64) -> Pattern:
    """A window and the Fibonacci numbers back.

    Set
        0 ≤ q − k < window, or q − k ∈ {1, 2, 3, 5, 8, ...}, up to the last position that there is, 2⁴⁰.
    Degree
        window + the number of Fibonacci numbers in [window, n): O(log n).
    Depth
        With window = 1 and F(1) = F(2) = 1, the largest T with F(2T + 1) ≤ n: every distance is a sum of
        Fibonacci numbers no two of which are neighbours (Zeckendorf), and F(2) + F(4) + ... + F(2T) needs all
        T. At n = 128 that is 5 layers, with 11 keys.
    Cost
        O(N · (window + log N)) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(fibonacci(window=1), 7))
        # . . . . . .
        # # . . . . .
        # # # . . . .
        # # # # . . .
        . # # # # . .
        # . # # # # .
        . # . # # # #

    """
    wholes("fibonacci", window=window)
    distances = [1, 2]
    while distances[-1] + distances[-2] <= LAST_POSITION:
        distances.append(distances[-1] + distances[-2])
    return sliding(window) | offsets(distances)
