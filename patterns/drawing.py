"""Draw a pattern as text, for docstrings and terminals."""

from __future__ import annotations

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern


def draw(pattern: Pattern | PerHead | Stack, n: int) -> str:
    """The pattern among the first n positions: `#` where the query (row) may read the key (column), else `.`.

    Shapes
        n lines of n signs; the heads of a layer, and the layers of a stack, side by side.
    Cost
        O(n²) time and memory for each head and layer.
    Example
        >>> from sparsedsl.constructors import cycle, sliding, strided, causal
        >>> print(draw(cycle([sliding(2), strided(2) & causal()], layers=2), 4))
        # . . .   # . . .
        # # . .   . # . .
        . # # .   # . # .
        . . # #   . # . #

    """
    return "\n".join(_rows(pattern, n))


def _rows(pattern: Pattern | PerHead | Stack, n: int) -> list[str]:
    match pattern:
        case PerHead(heads=parts):
            return _side_by_side([_rows(head, n) for head in parts])
        case Stack():
            return _side_by_side([_rows(pattern[layer], n) for layer in range(len(pattern))])
    return [" ".join("#" if live else "." for live in row) for row in pattern.dense(n)]


def _side_by_side(drawings: list[list[str]]) -> list[str]:
    return ["   ".join(lines) for lines in zip(*drawings, strict=True)]
