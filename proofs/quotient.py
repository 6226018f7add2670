"""The blocks in which a whole pattern is told, for patterns with and without a normal form."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from sparsedsl.index import AllOf, AnyOf, Chosen, Comparison, Member, Negation, Predicate, holds, lowered
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.terms import DISTANCE, Binary, Constant, Position, Term

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Rows of the matrix evaluated at once: a seeded choice costs the square of it.
_ROWS = 16
_BACK = IntegerSet.interval(0, INFINITY)
_AHEAD = ~_BACK


def block_size(predicate: Predicate) -> int:
    """The largest s such that the predicate, the causal cut apart, depends on q // s and k // s only.

    0 where any size will do.

    Example
        >>> from sparsedsl import causal, random_blocks, sink
        >>> block_size(((random_blocks(block=64, count=2) | sink(96)) & causal()).predicate())
        32

    """
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            return gcd(*(block_size(part) for part in parts))
        case Negation(part):
            return block_size(part)
        case Comparison():
            return block_size(lowered(predicate))
        case Chosen(_, _, query, key):
            return gcd(_size_of(query), _size_of(key))
        case Member(term, members):
            if term == DISTANCE and members in (_BACK, _AHEAD):
                return 0
            if isinstance(term, Position) and all(segment.period == 1 for segment in members.segments):
                ends = (end for segment in members.segments for end in segment[:2])
                return gcd(*(end for end in ends if abs(end) != INFINITY))
            return _size_of(term)


def _size_of(term: Term) -> int:
    match term:
        case Position():
            return 1
        case Constant():
            return 0
        case Binary("//", Position(), Constant(size)):
            return size
        case Binary(_, left, right):
            return gcd(_size_of(left), _size_of(right))


def block_rows(predicate: Predicate, size: int, blocks: int) -> list[int]:
    """For each query block, the key blocks that its first token reads the first token of, as bits.

    Cost
        O(blocks²) evaluations of the predicate, 16 rows at a time.
    """
    import numpy as np

    starts = np.arange(blocks, dtype=np.int64) * size
    rows: list[int] = []
    for first in range(0, blocks, _ROWS):
        matrix = holds(predicate, starts[first : first + _ROWS, None], starts[None, :])
        packed = np.packbits(matrix, axis=1, bitorder="little")
        rows.extend(int.from_bytes(row.tobytes(), "little") for row in packed)
    return rows


def blocks_reading_ahead(predicate: Predicate, size: int, blocks: int) -> int:
    """The blocks whose first token reads its second one, as bits: there the causal cut is not made."""
    import numpy as np

    ahead: NDArray[np.bool_] = np.zeros(blocks, dtype=np.bool_)
    for first in range(0, blocks, _ROWS):
        starts = np.arange(first, min(first + _ROWS, blocks), dtype=np.int64) * size
        ahead[first : first + _ROWS] = holds(predicate, starts, starts + 1)
    return int.from_bytes(np.packbits(ahead, bitorder="little").tobytes(), "little")
