"""Sparse Transformer: two kinds of edges with about √n keys each; one hop of each kind joins any two tokens.

The paper gives the two kinds to different heads, or to one; here they are the union, one head's pattern.

References
    .. [1] Child et al., "Generating Long Sequences with Sparse Transformers", 2019, arXiv 1904.10509.
    .. [2] Chen, Xu, An et al., PowerAttention, 2025, arXiv 2503.03588: the stride slash baseline.
"""

from __future__ import annotations

from sparsedsl.arithmetic import where
from sparsedsl.constructors import causal, chunked, sliding, strided
from sparsedsl.constructors import sink as first_keys
from sparsedsl.errors import WrongValue
from sparsedsl.pattern import Pattern, wholes


def sparse_transformer_strided(*, stride: int = 512) -> Pattern:
    """The last `stride` tokens and every `stride`-th before.

    Set
        k ≤ q, and q − k ≤ stride or stride divides q − k.
    Degree
        stride + floor((n − 1) / stride) for n > stride: O(√n) when stride ≈ √n.
    Depth
        2 layers: the distance a · stride + b is one jump of a strides and one step of b < stride tokens.
    Cost
        O(N · (stride + N / stride)) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(sparse_transformer_strided(stride=3), 8))
        # . . . . . . .
        # # . . . . . .
        # # # . . . . .
        # # # # . . . .
        . # # # # . . .
        . . # # # # . .
        # . . # # # # .
        . # . . # # # #

    """
    wholes("sparse_transformer_strided", stride=stride)
    return (sliding(stride + 1) | strided(stride)) & causal()


def sparse_transformer_fixed(*, stride: int = 512, summary: int = 8) -> Pattern:
    """The query's own chunk of `stride` tokens and the last `summary` tokens of every chunk before.

    Set
        k ≤ q, and q // stride = k // stride or k mod stride ≥ stride − summary.
    Degree
        stride + summary · (chunks before the query's own).
    Depth
        2 layers: a chunk's last token is read by all after it, and reads its whole chunk.
    Cost
        O(N · (stride + summary · N / stride)) pairs.
    Raises
        WrongValue: a chunk has fewer tokens than its summary.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(sparse_transformer_fixed(stride=3, summary=1), 8))
        # . . . . . . .
        # # . . . . . .
        # # # . . . . .
        . . # # . . . .
        . . # # # . . .
        . . # # # # . .
        . . # . . # # .
        . . # . . # # #

    """
    wholes("sparse_transformer_fixed", stride=stride, summary=summary)
    if summary > stride:
        raise WrongValue(
            "the summary does not fit in a chunk",
            where=f"sparse_transformer_fixed(stride={stride}, summary={summary})",
            got=f"summary = {summary}",
            expected="1 <= summary <= stride, because the summary is the end of a chunk",
            hint=f"sparse_transformer_fixed(stride={stride}, summary=1)",
        )
    return (chunked(stride) | where(f"k % {stride} >= {stride - summary}")) & causal()


def stride_slash(*, block: int = 256, window: int = 6, stride: int = 32, sink: int = 1) -> Pattern:
    """Window, sink and every `stride`-th block: the stride slash baseline of the PowerAttention paper.

    Set
        With D = q // block − k // block: k ≤ q, and D < window, or stride divides D, or k // block < sink.
    Units
        window, stride and sink count blocks. The paper gives no stride: its three slashes at 128 blocks mean
        32 to 42.
    Degree
        8, 10, 14, 22 blocks at 64, 128, 256, 512 blocks: it grows with the length.
    Depth
        7 layers at 64 blocks, 8 at 128, 256 and 512: one jump, then at most stride − 1 blocks by steps of
        window − 1. The paper's 6 layers at 128 blocks need a stride of 22 to 26.
    Cost
        O(N² / stride) pairs.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(stride_slash(block=1, window=2, stride=4), 10))
        # . . . . . . . . .
        # # . . . . . . . .
        # # # . . . . . . .
        # . # # . . . . . .
        # . . # # . . . . .
        # # . . # # . . . .
        # . # . . # # . . .
        # . . # . . # # . .
        # . . . # . . # # .
        # # . . . # . . # #

    """
    wholes("stride_slash", block=block, window=window, stride=stride, sink=sink)
    return (sliding(window) | strided(stride) | first_keys(sink)).blocks(block) & causal()
