"""LongNet: segments of growing length, read at a growing dilation; each head keeps a residue of its own.

At level (w, r) the sequence is cut into segments of w tokens, and of each segment head j keeps the tokens
with residue j mod r, as queries and as keys. A layer sees the union of its heads: with r heads or more, every
query reads its own residue class of its segment.

The paper mixes the levels by their softmax denominators, which is one softmax in which a key seen at several
levels counts several times. A pattern is a set: here it counts once.

References
    .. [1] Ding et al., "LongNet: Scaling Transformers to 1,000,000,000 Tokens", 2023, arXiv 2307.02486.
    .. [2] Chen, Xu, An et al., PowerAttention, 2025, arXiv 2503.03588: the baseline with residue 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from sparsedsl.arithmetic import where
from sparsedsl.constructors import causal, chunked, per_head, strided
from sparsedsl.errors import WrongValue
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern, listed, wholes

MOST_HEADS = 1 << 12


def longnet(
    *,
    segments: Sequence[int] = (2048, 4096, 8192, 16384, 32768),
    dilations: Sequence[int] = (1, 2, 4, 8, 16),
    heads: int = 16,
) -> PerHead:
    """Dilated attention with its per-head offsets.

    Set
        Head j: k ≤ q, and at some level (w, r): q // w = k // w and q ≡ k ≡ j (mod r).
    Units
        Tokens; lift it with `.blocks(size)` and cut it again with `& causal()`.
    Degree
        At most Σ w / r keys, in each head and in the union of the heads.
    Depth
        Never complete beyond the largest segment, and not always inside it: a pair across a segment border
        needs a level that spans both. At 128 units, with segments 8, ..., 128 and dilations 1, ..., 16, the
        last unit sees all in 3 layers and 97.27 % of the pairs are joined in 5; the pair (8, 7) never is.
    Cost
        O(N · Σ w / r²) pairs a head, over all r heads of a level O(N · Σ w / r).
    Raises
        WrongValue: other than one dilation a segment, or a dilation that does not divide its segment.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(longnet(segments=[2, 4], dilations=[1, 2], heads=2), 8))
        # . . . . . . .   # . . . . . . .
        # # . . . . . .   # # . . . . . .
        # . # . . . . .   . . # . . . . .
        . . # # . . . .   . # # # . . . .
        . . . . # . . .   . . . . # . . .
        . . . . # # . .   . . . . # # . .
        . . . . # . # .   . . . . . . # .
        . . . . . . # #   . . . . . # # #

    """
    wholes("longnet", most=MOST_HEADS, heads=heads)
    segments = listed("longnet", "segments", segments, least=1)
    dilations = listed("longnet", "dilations", dilations, least=1)
    paired = 0 < len(segments) == len(dilations)
    if not paired or any(w % r for w, r in zip(segments, dilations, strict=True)):
        raise WrongValue(
            "the segments and the dilations do not fit each other",
            where="longnet(segments=..., dilations=...)",
            got=f"segments = {list(segments)}, dilations = {list(dilations)}",
            expected="one dilation for each segment, and a divisor of it",
            hint="longnet(segments=[2048, 4096], dilations=[1, 2], heads=2)",
        )
    levels = list(zip(segments, dilations, strict=True))
    return per_head([_head(levels, j) for j in range(heads)]) & causal()


def longnet_paper_baseline(*, block: int = 256) -> Pattern:
    r"""Five levels in blocks, residue 0 for every head: the LongNet baseline of the PowerAttention paper.

    Set
        With Q = q // block, K = k // block: k ≤ q, and for a level w = 8, 16, 32, 64, 128 with r = w / 8:
        Q // w = K // w and r divides Q and K. The paper writes (Q xor K) < w and ((Q or K) & (r − 1)) = 0.
    Degree
        13 blocks.
    Depth
        Never complete: 62.79 % of the block pairs are joined, in 6 layers, at 128 blocks, 15.79 % at 512.
        Without the offsets of the heads this is not LongNet; see `longnet`.
    Cost
        O(N · 13 · block) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print("\n".join(draw(longnet_paper_baseline(block=1), 16).splitlines()[12:]))
        # . # . # . # . # # # # # . . .
        . . . . . . . . # # # # # # . .
        # . # . # . # . # # # # # # # .
        . . . . . . . . # # # # # # # #

    """
    wholes("longnet_paper_baseline", block=block)
    return _head([(8, 1), (16, 2), (32, 4), (64, 8), (128, 16)], 0).blocks(block) & causal()


def _head(levels: Sequence[tuple[int, int]], j: int) -> Pattern:
    return reduce(or_, (_level(w, r, j % r) for w, r in levels))


def _level(w: int, r: int, residue: int) -> Pattern:
    if r == 1:
        return chunked(w)
    return chunked(w) & strided(r) & where(f"k % {r} == {residue}")
