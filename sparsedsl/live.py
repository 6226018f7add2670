"""How many pairs of a pattern are live up to a length, counted on its normal form."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sparsedsl.forms import Periodic
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Queries counted at once: bounds the memory.
_AT_ONCE = 1 << 16
# Rows of more segments than this are counted member by member.
_MANY = 24


@cache
def live_pairs(pattern: Pattern, length: int) -> int:
    """The number of pairs (q, k) of the pattern with q, k < length.

    Cost
        O(length / unit · segments) time in numpy, and O(period · segments) to lay the rows out.
    Raises
        NoNormalForm: the pattern is not periodic.
    Example
        >>> from sparsedsl.constructors import causal, sliding
        >>> live_pairs(sliding(3), 10), live_pairs(causal(), 100)
        (27, 5050)

    """
    import numpy as np

    form = normalise(pattern)
    unit, last = form.unit, (length - 1) // form.unit
    total = 0
    for (q_piece, k_piece), cell in form.pieces():
        rows = _Rows(cell)
        for start in range(q_piece[0], min(q_piece[1], last + 1), _AT_ONCE):
            queries = np.arange(start, min(q_piece[1], last + 1, start + _AT_ONCE), dtype=np.int64)
            first, end = k_piece[0], np.full_like(queries, min(k_piece[1], last + 1))
            if form.cut:
                end = np.minimum(end, queries)
            keys = unit * rows.count(queries, queries - end + 1, queries - first + 1)
            here = (first <= last) & (last < end)
            keys -= (unit - (length - last * unit)) * np.where(here, rows.has(queries, queries - last), 0)
            heights = np.minimum(unit, length - queries * unit)
            total += int((heights * keys).sum())
            if form.cut:
                own = (k_piece[0] <= queries) & (queries < k_piece[1]) & (rows.has(queries, 0 * queries) == 1)
                total += int((heights * (heights + 1) // 2)[own].sum())
    return total


class _Rows:
    """The segments of all rows of a rectangle, one after the other in arrays."""

    def __init__(self, cell: Periodic) -> None:
        import numpy as np

        self.rows = cell.rows
        segments = [segment for row in cell.rows for segment in row.segments]
        self.ends = np.cumsum([len(row.segments) for row in cell.rows], dtype=np.int64)
        self.sizes = np.array([len(row.segments) for row in cell.rows], dtype=np.int64)
        self.lo, self.hi, self.period = (
            np.array([segment[field] for segment in segments], dtype=np.int64) for field in range(3)
        )
        # The members of a word below each residue; equal words share a stretch of the table.
        places: dict[tuple[int, int], int] = {}
        table: list[int] = []
        for _, _, period, word in segments:
            if (period, word) not in places:
                places[period, word] = len(table)
                table += [(word & ((1 << residue) - 1)).bit_count() for residue in range(period + 1)]
        self.place = np.array([places[segment.period, segment.word] for segment in segments], dtype=np.int64)
        self.table = np.array(table, dtype=np.int64)

    def count(self, queries: NDArray[np.int64], low: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many distances low <= d < end each query has."""
        import numpy as np

        if not len(self.lo):
            return np.zeros_like(queries)
        if len(self.lo) > _MANY * len(self.rows):
            return self._count_by_members(queries, low, end)
        own = queries % len(self.sizes)
        after = np.cumsum(self.sizes[own])
        before = after - self.sizes[own]
        owner = np.repeat(np.arange(len(queries)), self.sizes[own])
        at = np.arange(len(owner)) - before[owner] + (self.ends - self.sizes)[own][owner]
        a, b = np.maximum(low[owner], self.lo[at]), np.minimum(end[owner], self.hi[at])
        found = np.where(a < b, self._below(at, b) - self._below(at, a), 0)
        running = np.concatenate([[0], np.cumsum(found)])
        return np.asarray(running[after] - running[before])

    def _count_by_members(
        self, queries: NDArray[np.int64], low: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The same by listing what is a member between the least and the greatest bound, row by row."""
        import numpy as np

        result = np.zeros_like(queries)
        for residue, row in enumerate(self.rows):
            own = queries % len(self.rows) == residue
            if not own.any():
                continue
            first, last = int(low[own].min()), int(max(end[own].max(), low[own].min()))
            members = row.contains(np.arange(first, last, dtype=np.int64))
            running = np.concatenate([[0], np.cumsum(members)])
            result[own] = np.maximum(running[np.maximum(end[own], low[own]) - first] - running[low[own] - first], 0)
        return result

    def has(self, queries: NDArray[np.int64], distances: NDArray[np.int64]) -> NDArray[np.int64]:
        """1 where a query has the distance, 0 elsewhere."""
        return self.count(queries, distances, distances + 1)

    def _below(self, at: NDArray[np.int64], bound: NDArray[np.int64]) -> NDArray[np.int64]:
        import numpy as np

        period, place = self.period[at], self.place[at]
        return np.asarray(bound // period * self.table[place + period] + self.table[place + bound % period])
