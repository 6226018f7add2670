"""The normal form as a value: a grid of a few rectangles, inside each of which a pattern is periodic.

Positions are counted in units (tokens, or blocks when every term of the pattern is lifted to blocks). A finite
number of breaks on the query axis and on the key axis cut the plane into rectangles: sinks and global tokens make
breaks, nothing else does. In a rectangle the pattern repeats with a period P along the diagonal, so one set of
distances for each residue of the query says everything. Nothing here depends on a length. `normal` makes these
values from patterns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING

from sparsedsl.integers import EMPTY, EVERYTHING, INFINITY, IntegerSet, WordTooLong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_PERIOD = 1 << 16
# Queries of one rectangle that are looked at one by one.
MOST_LOOKED_AT = 1 << 12

_BACK = IntegerSet.interval(0, INFINITY)
_AHEAD = ~_BACK


@dataclass(frozen=True, slots=True)
class Periodic:
    """One rectangle's content: rows[r] = {Q - K : (Q, K) in it} for the queries Q with Q mod period = r."""

    rows: tuple[IntegerSet, ...]

    @property
    def period(self) -> int:
        """The number of different rows."""
        return len(self.rows)

    def row(self, query: int) -> IntegerSet:
        """The distances of a query."""
        return self.rows[query % len(self.rows)]

    def reduced(self) -> Periodic:
        """The same content with the least period."""
        period = len(self.rows)
        for shorter in range(1, period):
            if period % shorter == 0 and all(self.rows[r] == self.rows[r % shorter] for r in range(period)):
                return Periodic(self.rows[:shorter])
        return self

    def combined(self, other: Periodic, join: Callable[[IntegerSet, IntegerSet], IntegerSet]) -> Periodic:
        """Row by row, at the common period."""
        period = lcm(self.period, other.period)
        if period > LONGEST_PERIOD:
            raise WordTooLong(period)
        return Periodic(tuple(join(self.row(r), other.row(r)) for r in range(period))).reduced()


NOTHING = Periodic((EMPTY,))
ALL = Periodic((EVERYTHING,))
BACK = Periodic((_BACK,))


@dataclass(frozen=True, slots=True)
class NormalForm:
    """A pattern as rectangles of periodic content.

    Set
        (q, k) is in it iff, with Q = q // unit in query piece a and K = k // unit in key piece b,
        Q - K is in cells[a][b].rows[Q mod period], and k <= q where `cut` is set.
    Units
        Breaks and distances count units; `cut` only matters in the diagonal unit, and is False when unit = 1.
    Cost
        O(periods · segments), whatever the length.
    """

    unit: int
    cut: bool
    q_breaks: tuple[int, ...]
    k_breaks: tuple[int, ...]
    cells: tuple[tuple[Periodic, ...], ...]

    @property
    def period(self) -> int:
        """The common period of all rectangles, in units."""
        return lcm(*(cell.period for row in self.cells for cell in row))

    @property
    def looks_ahead(self) -> bool:
        """Whether some query reads a key to its right."""
        # In blocks, without the cut, even a block's own keys lie to the right of its first query.
        ahead = _AHEAD if self.unit == 1 else IntegerSet.interval(-INFINITY, 1)
        return not self.cut and any(_some_ahead(*piece, cell, ahead) for piece, cell in self.pieces())

    def pieces(self) -> Iterator[tuple[tuple[tuple[int, int], tuple[int, int]], Periodic]]:
        """Every rectangle as ((q from, q to), (k from, k to)) in units, with its content."""
        q_ends, k_ends = (*self.q_breaks, INFINITY), (*self.k_breaks, INFINITY)
        for q_piece, row in zip(pairwise(q_ends), self.cells, strict=True):
            for k_piece, cell in zip(pairwise(k_ends), row, strict=True):
                yield (q_piece, k_piece), cell

    def cell_at(self, query: int, key: int) -> Periodic:
        """The content at a pair of unit positions."""
        return self.cells[bisect_right(self.q_breaks, query) - 1][bisect_right(self.k_breaks, key) - 1]

    def dense(self, q_len: int, k_len: int, *, q_start: int | None = None) -> NDArray[np.bool_]:
        """The pattern as a boolean matrix, read off this form; the counterpart of `Pattern.dense`."""
        import numpy as np

        start = k_len - q_len if q_start is None else q_start
        matrix = np.zeros((q_len, k_len), dtype=np.bool_)
        k = np.arange(k_len, dtype=np.int64)
        for i in range(max(0, -start), q_len):
            query = (start + i) // self.unit
            piece = bisect_right(self.q_breaks, query) - 1
            for (lo, hi), cell in zip(pairwise((*self.k_breaks, INFINITY)), self.cells[piece], strict=True):
                inside = (k // self.unit >= lo) & (k // self.unit < hi)
                matrix[i] |= inside & cell.row(query).contains(query - k // self.unit)
            if self.cut:
                matrix[i] &= k <= start + i
        return matrix

    def refined(self, unit: int) -> NormalForm:
        """The same pattern in smaller units; `unit` divides the present one."""
        if unit == self.unit:
            return self
        factor = self.unit // unit
        cells = tuple(tuple(_refined(cell, factor, cut=self.cut) for cell in row) for row in self.cells)
        return NormalForm(
            unit,
            self.cut and unit > 1,
            tuple(each * factor for each in self.q_breaks),
            tuple(each * factor for each in self.k_breaks),
            cells,
        )

    def verify(self) -> None:
        """Raise AssertionError unless the form is well made."""
        assert self.unit >= 1
        assert not (self.cut and self.unit == 1)
        for breaks in (self.q_breaks, self.k_breaks):
            assert breaks[0] == 0
            assert all(left < right for left, right in pairwise(breaks))
        assert len(self.cells) == len(self.q_breaks)
        assert all(len(row) == len(self.k_breaks) for row in self.cells)


def _some_ahead(q_piece: tuple[int, int], k_piece: tuple[int, int], cell: Periodic, ahead: IntegerSet) -> bool:
    """Whether some query of a rectangle has one of these distances to a key of it."""
    end = min(q_piece[1], k_piece[1])
    if end - q_piece[0] <= MOST_LOOKED_AT:
        # Which residues the few queries have that lie before these keys matters: others have rows that are never read.
        queries = ((query, query + 1) for query in range(q_piece[0], end))
        return any(cell.row(each[0]) & ahead & _distances_between(each, k_piece) for each in queries)
    between = ahead & _distances_between(q_piece, k_piece)
    return any(row & between for row in cell.rows if row and row.minimum <= ahead.maximum)


def _distances_between(q_piece: tuple[int, int], k_piece: tuple[int, int]) -> IntegerSet:
    lowest = -INFINITY if k_piece[1] == INFINITY else q_piece[0] - k_piece[1] + 1
    highest = INFINITY if q_piece[1] == INFINITY else q_piece[1] - k_piece[0]
    return IntegerSet.interval(lowest, highest)


def _refined(cell: Periodic, factor: int, *, cut: bool) -> Periodic:
    if cell.period * factor > LONGEST_PERIOD:
        raise WordTooLong(cell.period * factor)
    spread = [spread_over(row, factor) for row in cell.rows]
    rows = [base.shift(r) for base in spread for r in range(factor)]
    return Periodic(tuple(row & _BACK for row in rows) if cut else tuple(rows)).reduced()


def spread_over(distances: IntegerSet, factor: int) -> IntegerSet:
    """{e : ceil(e / factor) in distances}; e = (distance in small units) - (place of the query in its unit)."""
    return distances.negate().lift(factor).negate()
