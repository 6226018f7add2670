"""StreamingLLM: a window that keeps the very first tokens, which a softmax uses to park its weight.

References
    .. [1] Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023, arXiv 2309.17453.
"""

from __future__ import annotations

from sparsedsl.constructors import causal, sliding
from sparsedsl.constructors import sink as first_keys
from sparsedsl.pattern import Pattern, wholes


def streaming_llm(*, sink: int = 4, window: int = 1024) -> Pattern:
    """The first `sink` tokens and the last `window`, the query's own included.

    Set
        k ≤ q, and q − k < window or k < sink.
    Degree
        window + sink.
    Depth
        ceil((n − 1 − sink) / (window − 1)) layers at n tokens: sinks are seen at once, and add no reach.
    Cost
        O(N · (window + sink)) pairs. Decoding reads window + sink keys at any length.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(streaming_llm(sink=1, window=2), 6))
        # . . . . .
        # # . . . .
        # # # . . .
        # . # # . .
        # . . # # .
        # . . . # #

    """
    wholes("streaming_llm", sink=sink, window=window)
    return (sliding(window) | first_keys(sink)) & causal()
