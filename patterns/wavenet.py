"""Another pattern in every layer: each jumps farther than the one before, as the digits of a number weigh.

With the same edges in every layer, joining n tokens in log2 n layers takes about log2 n keys a row; with a
schedule, two keys do. No schedule with b keys a row can see more than b**layers tokens, and this one does.

References
    .. [1] van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016, arXiv 1609.03499.
"""

from __future__ import annotations

from sparsedsl.constructors import dilated
from sparsedsl.layers import Stack
from sparsedsl.pattern import wholes

# The dilation doubles at least with each layer; the last is the largest that there is.
MOST_LAYERS = 41


def wavenet(*, kernel: int = 2, layers: int = 17) -> Stack:
    """`kernel` keys a row, the dilation doubling with each layer.

    Set
        Layer l = 0, 1, ...: q − k ∈ {0, 2ˡ, ..., (kernel − 1) · 2ˡ}.
    Degree
        kernel.
    Depth
        All `layers`, in order: the last sees 1 + (kernel − 1) · (2**layers − 1) tokens, every one of them.
        With kernel = 2, ceil(log2 n) layers join all pairs of n tokens: 17 at 131 072.
    Cost
        O(N · kernel) pairs a layer.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(wavenet(layers=3), 6))
        # . . . . .   # . . . . .   # . . . . .
        # # . . . .   . # . . . .   . # . . . .
        . # # . . .   # . # . . .   . . # . . .
        . . # # . .   . # . # . .   . . . # . .
        . . . # # .   . . # . # .   # . . . # .
        . . . . # #   . . . # . #   . # . . . #

    """
    wholes("wavenet", kernel=kernel)
    wholes("wavenet", most=MOST_LAYERS, layers=layers)
    return Stack([dilated(kernel, 1 << layer) for layer in range(layers)])


def digits(*, base: int = 4, layers: int = 9) -> Stack:
    """The schedule of least degree: each layer settles one digit of the distance.

    Set
        Layer l = 0, 1, ...: q − k ∈ {0, bˡ, ..., (b − 1) · bˡ}, b = base.
    Degree
        base.
    Depth
        All `layers` see exactly base**layers tokens, the most that any schedule with `base` keys a row can:
        262 144 for 4 keys and 9 layers.
    Cost
        O(N · base) pairs a layer.
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(digits(base=3, layers=2), 7))
        # . . . . . .   # . . . . . .
        # # . . . . .   . # . . . . .
        # # # . . . .   . . # . . . .
        . # # # . . .   # . . # . . .
        . . # # # . .   . # . . # . .
        . . . # # # .   . . # . . # .
        . . . . # # #   # . . # . . #

    """
    wholes("digits", base=base)
    wholes("digits", most=MOST_LAYERS, layers=layers)
    return Stack([dilated(base, base**layer) for layer in range(layers)])
