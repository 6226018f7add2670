"""BigBird: window, global and random blocks. The random ones make the graph an expander, in expectation.

References
    .. [1] Zaheer et al., "Big Bird: Transformers for Longer Sequences", 2020, arXiv 2007.14062.
"""

from __future__ import annotations

from sparsedsl.constructors import causal, random_blocks, sink, sliding
from sparsedsl.pattern import Pattern, wholes


def bigbird(*, block: int = 64, window: int = 3, random: int = 3, global_blocks: int = 2, seed: int = 0) -> Pattern:
    """A causal BigBird: the last `window` blocks, the first `global_blocks`, and `random` blocks drawn.

    Set
        With Q = q // block, K = k // block: k ≤ q, and Q − K < window, or K < global_blocks, or K is among
        the `random` blocks that `seed` draws for Q from 0..Q.
    Units
        All counts are in blocks. The draw depends on seed and Q only, never on the length; it may hit a block
        that is there already.
    Degree
        At most window + random + global_blocks blocks.
    Depth
        At most ceil((n − 1 − global_blocks) / (window − 1)) layers at n blocks, by the window alone; the
        random blocks shorten it, by how much only the seed says: ask `check`. The global star, 2 layers when
        bidirectional, looks back only and adds no reach.
    Cost
        O(N · (window + random + global_blocks) · block) pairs; it is not periodic, so the kernel walks a
        table.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(bigbird(block=1, window=2, random=1, global_blocks=1), 10))
        # . . . . . . . . .
        # # . . . . . . . .
        # # # . . . . . . .
        # . # # . . . . . .
        # . # # # . . . . .
        # . . . # # . . . .
        # . . # . # # . . .
        # . . . . . # # . .
        # . . # . . . # # .
        # . . . . . . . # #

    """
    wholes("bigbird", block=block, window=window, random=random, global_blocks=global_blocks)
    wholes("bigbird", least=0, seed=seed)
    local = (sliding(window) | sink(global_blocks)).blocks(block)
    return (local | random_blocks(block, random, seed=seed)) & causal()
